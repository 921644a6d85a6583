"""A release's dossier where MLflow users look: metrics, parameters, tables and files of the release's run.

In: the dossier's facts. Out: what MLflow shows. The rule: logging twice leaves what logging once leaves. A metric is
one point, at the run's own start; a table is written whole, never appended to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.dossier import FACTS
from registry.dossier import EVIDENCE

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from parity.dossier.document import Dossier, Target

PLACE = "dossier"
TABLES_TAG = "mlflow.loggedArtifacts"
"""Where MLflow's own `log_table` notes which artifacts are tables, for its evaluation view."""
Table = Mapping[str, list[Any]]


def record(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Log a dossier to a run; `folder` is the dossier's."""
    from mlflow.entities import Metric, Param, RunTag

    from parity.dossier.document import parse

    dossier = parse((folder / FACTS).read_text())
    at = client.get_run(run_id).info.start_time
    found = tables(dossier)
    named = [{"path": f"{PLACE}/{name}.json", "type": "table"} for name in found]
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, at, 0) for name, value in metrics(dossier).items()],
        params=[Param(name, value) for name, value in params(dossier).items()],
        tags=[RunTag(TABLES_TAG, json.dumps(named)), RunTag("lockstep.ship", dossier.ship.word)],
    )
    for name in sorted(path.name for path in folder.iterdir() if path.name != "step.json"):
        client.log_artifact(run_id, str(folder / name), PLACE)
    for name, table in found.items():
        client.log_text(run_id, json.dumps(_split(table)), f"{PLACE}/{name}.json")
    client.log_artifact(run_id, str(folder / FACTS), EVIDENCE)


def metrics(dossier: Dossier) -> dict[str, float]:
    """The figures that are compared between runs; nothing for what was not measured."""
    found: dict[str, float] = {}
    for target in dossier.targets:
        found |= {f"{target.name}/{name}": value for name, value in _figures(target).items()}
    return found


def _figures(target: Target) -> dict[str, float]:
    pair, cloud, speed = target.pair("source"), target.pair("baseline"), target.speed
    values: dict[str, float | None] = {
        "agreement": None if pair is None else pair.agree,
        "agreement_low": None if pair is None else pair.agree_low,
        "agreement_with_cloud": None if cloud is None else cloud.agree,
        "agreement_with_cloud_low": None if cloud is None else cloud.agree_low,
        "correct": None if target.right is None else target.right[1],
        "correct_source": None if target.right is None else target.right[0],
        "latency_p50_ms": None if speed is None else speed.p50_s * 1000,
        "latency_ratio": None if speed is None else speed.ratio,
        "size_bytes": target.size_bytes,
    }
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def params(dossier: Dossier) -> dict[str, str]:
    """What the release digest fixes: MLflow refuses a parameter that changes."""
    return {
        "policy": dossier.policy.name,
        "policy_digest": dossier.policy.digest,
        "suite_digest": str(dossier.suite_digest),
        "source_digest": dossier.source_digest,
    }


def tables(dossier: Dossier) -> dict[str, Table]:
    """`limits`: every limit with its measurement; `flips`: the shown rows that are answered differently."""
    limits = [(target, found) for target in dossier.targets for found in target.findings]
    flips = [(target, pair, flip) for target in dossier.targets for pair in target.pairs for flip in pair.flips]
    names = ("metric", "against", "status", "sense", "limit", "value", "low", "high", "n", "why")
    return {
        "limits": {
            "target": [target.name for target, _ in limits],
            **{name: [_plain(getattr(found, name)) for _, found in limits] for name in names},
        },
        "flips": {
            "target": [target.name for target, _, _ in flips],
            "against": [pair.other for _, pair, _ in flips],
            **{
                name: [getattr(flip, name) for _, _, flip in flips]
                for name in ("id", "label", "reference", "candidate", "reference_sure", "candidate_sure")
            },
        },
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _split(table: Table) -> dict[str, Any]:
    """The layout of MLflow's own tables: pandas' `orient="split"` without its index."""
    return {"columns": list(table), "data": [list(row) for row in zip(*table.values(), strict=True)]}
