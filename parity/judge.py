"""Observations in, verdict out: reads what was observed, measures, and lets `verdict.decide` speak.

The order: integrity and schema, finiteness, constant outputs; float error against the floor; SQNR per output;
agreement of decisions; the task's own metric; speed. A law broken early ends the judging: later numbers would mean
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compile.config import ModelFile, TargetFile, load_model, load_target
from compile.dataset import columns_of
from compile.project import Project
from parity import measure
from parity.observed import Observed, broken_laws, read_observed
from parity.policy import Against, Limit, Policy, load_policy
from parity.verdict import Finding, Measured, Sense, Status, decide, overall


def judge(
    project: Project,
    made: Path,
    model: str,
    target: str,
    places: dict[str, str | None],
    digests: dict[str, str],
    baseline: dict[str, str | None],
    deferred: str | None,
) -> None:
    """The step behind a verdict. `places`: folders of suite, source, observation, baseline, timing, build, float."""
    config, target_file = load_model(project, model), load_target(project, target)
    document: dict[str, Any] = {"model": model, "target": target, "digests": digests, "baseline": baseline}
    if deferred is not None:
        document |= {"status": Status.DEFERRED, "why": deferred, "findings": [], "summary": {}}
    else:
        folders = {name: Path(place) for name, place in places.items() if place is not None}
        findings, summary = examine(config, target_file, load_policy(project, config.policy), folders)
        document |= {
            "status": overall(findings),
            "why": None,
            "summary": summary,
            "findings": [asdict(finding) for finding in findings],
        }
    (made / "verdict.json").write_text(json.dumps(document, indent=1, sort_keys=True))


def examine(
    config: ModelFile, target: TargetFile, policy: Policy, folders: dict[str, Path]
) -> tuple[list[Finding], dict[str, Any]]:
    """Every finding about one target, and the figures that a table shows."""
    source = read_observed(folders["source"], config)
    candidate = read_observed(folders["observation"], config)
    laws = [law(name, broken) for name, broken in broken_laws(source, candidate, config.signature)]
    if overall(laws) is not Status.PASS:
        return laws, {}
    others: dict[Against, Observed] = {"source": source}
    if target.role == "edge" and "baseline" in folders:
        others["baseline"] = read_observed(folders["baseline"], config)
    scene = measure.Scene(config, target, candidate, others, columns_of(folders["suite"]), folders)
    findings = laws + [
        f for limit in policy.limits if target.precision in limit.precision for f in limited(limit, scene, policy)
    ]
    return findings, measure.summary(scene)


def law(name: str, broken: list[str]) -> Finding:
    """A deterministic law as a finding: the number of breaches is at most none."""
    measured = Measured.exactly(len(broken), 1)
    sentence = f"{name}: {'; '.join(broken[:3])}" if broken else f"{name}: holds"
    return Finding(name, "source", decide(measured, "at_most", 0), "at_most", 0, measured, sentence)


def limited(limit: Limit, scene: measure.Scene, policy: Policy) -> Iterator[Finding]:
    """One finding for each pair that the limit binds and that exists here."""
    if limit.metric == "latency_ratio" and policy.goal is not None and policy.goal.kind == "size":
        return
    for against in limit.pairs:
        if against != "float" and against not in scene.others:
            continue
        for name, measured in measure.measured(limit, against, scene):
            sense: Sense = "at_most" if limit.at_most is not None else "at_least"
            bound = -limit.bound if limit.margin is not None else limit.bound
            status = decide(measured, sense, bound)
            yield Finding(
                name, against, status, sense, bound, measured, said(name, against, measured, sense, bound, status)
            )


def said(name: str, against: str, measured: Measured, sense: Sense, limit: float, status: Status) -> str:
    """The finding as a sentence."""
    exact = measured.low == measured.high
    interval = "" if exact else f" [{measured.low:.4g}, {measured.high:.4g}], n = {measured.n:,}"
    needed = ""
    if status is Status.INCONCLUSIVE:
        needed = (
            (
                f"; about {measured.needed:,} rows at these rates would decide (fresh ones: extending this suite until it "
                "passes inflates the error)"
            )
            if measured.needed
            else "; no number of rows at these rates would decide"
        )
    return f"{name} against {against}: {measured.value:.4g}{interval}; {sense.replace('_', ' ')} {limit:g}: {status}{needed}"
