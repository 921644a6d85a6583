"""What lies on disk about a target, read into facts: the one place that knows how older and newer files differ.

In: the JSON files of verdict, timing, `explain` and `selftest`. Out: facts, with every missing file said. The rule: a
file that was made of other artifacts than the verdict speaks of is never shown as if it were of these.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compile.step import read_record
from parity import measure
from parity.dossier.document import FindingFact
from parity.dossier.evidence import Cause, Planted, Rung, SecondCause, SelfTest, Speed, Tensor, Tolerance
from parity.dossier.pair import SliceFact
from parity.limit import Limit, unit_of
from parity.policy import Policy

Json = Mapping[str, Any]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def findings(verdict: Json, policy: Policy, precision: str) -> tuple[FindingFact, ...]:
    """The findings of a verdict, each with the reason and the confidence of the limit behind it."""
    return tuple(_finding(found, policy, precision) for found in verdict.get("findings", []))


def _finding(found: Json, policy: Policy, precision: str) -> FindingFact:
    metric: Any = found.get("of") or ""
    limit = _limit_behind(found, metric, policy, precision)
    asked = (None, None) if limit is None else (limit.kind, limit.bound)
    unit = unit_of(metric, found.get("kind") or asked[0]) if metric else "breaches"
    value, low, high = (float(found["measured"][name]) for name in ("value", "low", "high"))
    return FindingFact(
        **{name: found[name] for name in ("metric", "against", "status", "sense", "limit", "sentence")},
        value=value,
        low=low,
        high=high,
        n=found["measured"]["n"],
        groups=found["measured"].get("groups"),
        needed=found["measured"].get("needed"),
        unit=unit,
        confidence=found.get("confidence", None if limit is None else limit.confidence),
        why=found.get("why") or (None if limit is None else limit.why),
        of=metric or None,
        by=tuple(found.get("by", ())),
        kind=found.get("kind") or asked[0],
        bound=found.get("bound") or asked[1],
        tells=found.get("tells"),
        used=used(unit, found["sense"], float(found["limit"]), low, high),
    )


def _limit_behind(found: Json, metric: str, policy: Policy, precision: str) -> Limit | None:
    return next(
        (
            limit
            for limit in policy.limits
            if limit.metric == metric
            and limit.sense == found["sense"]
            and limit.threshold == float(found["limit"])
            and precision in limit.precision
            and found["against"] in limit.pairs
        ),
        None,
    )


def used(unit: str, sense: str, limit: float, low: float, high: float) -> float | None:
    """The share of a limit's allowance that the worse bound takes up: at most 1 is a pass. None where nothing is allowed, or a
    bound is open. Of decibels it is the share of the noise that is allowed beside the signal."""
    if math.isnan(low) or math.isnan(high) or unit == "breaches" or math.isinf(low) or math.isinf(high):
        return None
    if sense == "at_most":
        return max(high / limit, 0.0)
    if unit in ("points", "label"):
        return None if limit == 0 else max(low / limit, 0.0)
    if unit in ("share", "plain", "relative"):
        return max((1 - low) / (1 - limit), 0.0)
    if unit == "dB":
        return float(10 ** ((limit - low) / 10))
    return limit / low if low > 0 else math.inf


def given_slices(verdict: Json, against: str) -> tuple[SliceFact, ...] | None:
    """The slices that a newer verdict lists for one side; None for one that does not."""
    for found in verdict.get("findings", []):
        if found["against"] == against and found["measured"].get("parts"):
            return tuple(_slice(one) for one in found["measured"]["parts"])
    return None


def _slice(one: Json) -> SliceFact:
    value = float(one["value"])
    differ = round((1 - value) * one["n"])
    return SliceFact(
        name=one["name"], n=one["n"], differ=differ, value=value, low=float(one["low"]), high=float(one["high"])
    )


def speed(folder: Path) -> Speed | None:
    """Latency of the timed calls; None where none were timed."""
    import numpy as np

    if not (folder / "timing.json").is_file():
        return None
    seconds: dict[str, list[float]] = read_json(folder / "timing.json").get("seconds", {})
    if not seconds.get("artifact"):
        return None
    p50, p95, p99 = (float(p) for p in np.percentile(seconds["artifact"], (50, 95, 99)))
    ratio = measure.latency_ratio(seconds, 0.95) if "float" in seconds else None
    return Speed(
        calls=len(seconds["artifact"]),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        float_p50_s=float(np.median(seconds["float"])) if "float" in seconds else None,
        ratio=None if ratio is None else ratio.value,
        ratio_low=None if ratio is None else ratio.low,
        ratio_high=None if ratio is None else ratio.high,
    )


def fresh(folder: Path, digests: Json) -> bool:
    """Whether what lies in a step's folder was made of the artifact or the answers that the verdict speaks of."""
    record = read_record(folder)
    about = {digests.get("artifact"), digests.get("observation")} - {None}
    return record is not None and bool(about & set(record.inputs.values()))


def cause(folder: Path, digests: Json, model: str, target: str) -> Cause:
    """What `lockstep explain` found about this very artifact, or the command that finds it."""
    command = f"lockstep explain {model} {target}"
    if not (folder / "explain.json").is_file():
        return Cause(missing=f"To find the cause: `{command}`")
    if not fresh(folder, digests):
        return Cause(missing=f"The cause on file is of an earlier artifact or suite; to look again: `{command}`")
    document = read_json(folder / "explain.json")
    suggestion = document.get("suggestion")
    return Cause(
        missing=None,
        cause=document.get("cause"),
        explained=document.get("explained"),
        sentence=document.get("sentence"),
        second=None if document.get("second") is None else SecondCause(**document["second"]),
        rungs=tuple(_rung(one) for one in document.get("rungs", [])),
        tensors=tuple(_tensor(one) for one in document.get("tensors", [])),
        first=None if document.get("first") is None else _tensor(document["first"]),
        worst=None if document.get("worst") is None else _tensor(document["worst"]),
        suggestion=suggestion.get("text") if isinstance(suggestion, dict) else suggestion,
        reproduce=_as_text(document.get("reproduce")),
    )


def _rung(one: Json) -> Rung:
    agreement = one.get("agreement") or {}
    return Rung(
        name=str(one["name"]),
        status=str(one["status"]),
        why=str(one.get("why") or ""),
        differ=agreement.get("disagree"),
        n=agreement.get("n"),
        sqnr_db=one.get("sqnr_db"),
    )


def _tensor(one: Json | str) -> Tensor:
    if isinstance(one, str):
        return Tensor(module=one, op="", sqnr_db=None, local_sqnr_db=None)
    return Tensor(
        module=str(one.get("module", "")),
        op=str(one.get("op", "")),
        sqnr_db=one.get("sqnr_db"),
        local_sqnr_db=one.get("local_sqnr_db"),
    )


def _as_text(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def selftest(folder: Path, digests: Json, model: str, target: str) -> SelfTest:
    """What `lockstep selftest` found with this very artifact, or the command that finds it."""
    command = f"lockstep selftest {model} {target}"
    if not (folder / "selftest.json").is_file():
        return SelfTest(missing=f"The judge was not tested on this model yet. To plant faults and count: `{command}`")
    record = read_record(folder)
    if record is None or any(record.inputs.get(what) != digests.get(what) for what in ("artifact", "policy")):
        return SelfTest(missing=f"What was counted is of an earlier artifact or policy. To count again: `{command}`")
    document = read_json(folder / "selftest.json")
    counts = {name: document.get(name) for name in ("planted", "must_catch", "caught", "benign", "false_alarms")}
    return SelfTest(
        missing=None,
        **counts,
        kinds=tuple(_planted(document["rows"])),
        fixed=tuple(
            Tolerance(
                tolerance=name,
                caught=one["caught"],
                must_catch=one["of"],
                false_alarms=one["false_alarms"],
                benign=one["benign"],
            )
            for name, one in sorted(document["fixed_tolerances"].items())
        ),
    )


def _planted(rows: list[Json]) -> Iterator[Planted]:
    """Trials of planted faults, counted by kind and size."""
    trials: dict[tuple[str, float], list[tuple[bool, bool]]] = defaultdict(list)
    for row in rows:
        if row["place"] != "benign":
            trials[row["kind"], row["size"]].append((row["oracle"] == "must catch", row["caught_by"] is not None))
    for (kind, size), seen in trials.items():
        yield Planted(
            kind=kind,
            size=size,
            planted=len(seen),
            must_catch=sum(must for must, _ in seen),
            caught=sum(caught for _, caught in seen),
            missed=sum(must and not caught for must, caught in seen),
        )
