"""Observations in, verdict out: reads what was observed, measures, and lets `verdict.decide` speak.

The order: integrity and schema, finiteness, constant outputs; float error against the floor; SQNR per output;
agreement of decisions; the task's own metric; speed. A law broken early ends the judging: later numbers would mean
nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from compile.config import ModelFile, TargetFile, load_model, load_target
from compile.dataset import columns_of, names_of
from compile.errors import LockstepError
from compile.project import Project
from parity import measure, others
from parity.labels import refuse_one_answer, refuse_strange, refuse_unexpected
from parity.laws import Walk
from parity.limit import INTEGER_ONLY, Against, Limit
from parity.observed import Observed, read_observed
from parity.policy import Policy, edits, load_policy, refuse_idle_limits
from parity.route import refuse_idle
from parity.slices import KINDS_TOO_SMALL
from parity.steady import unsteady
from parity.summary import summary
from parity.verdict import Finding, Measured, Sense, Status, decide, overall

TELLS_NOTHING = " (answers of other rows would keep it too)"


def judge(
    project: Project,
    made: Path,
    model: str,
    target: str,
    places: dict[str, str | None],
    digests: dict[str, str],
    baseline: dict[str, str | None],
    deferred: str | None,
    before: dict[str, Any] | None,
) -> None:
    """The step behind a verdict. `places`: folders of suite, source, observation, baseline, timing, build, float;
    `before`: what the verdict that lay there said of its policy."""
    config, target_file = load_model(project, model), load_target(project, target)
    terms = load_policy(project, config.policy).spelled
    document: dict[str, Any] = {"model": model, "target": target, "digests": digests, "baseline": baseline}
    document["policy"] = {"name": config.policy, "terms": terms, "edited": edited(before, terms)}
    if deferred is not None:
        document |= {"status": Status.DEFERRED, "why": deferred, "findings": [], "summary": {}}
    else:
        folders = {name: Path(place) for name, place in places.items() if place is not None}
        findings, summary = examine(config, target_file, load_policy(project, config.policy), folders)
        document |= {
            "status": overall(findings),
            "observed": _observed_on(folders["observation"]),
            "why": None,
            "summary": summary,
            "findings": [asdict(finding) for finding in findings],
        }
    (made / "verdict.json").write_text(json.dumps(_plain(document), indent=1, sort_keys=True, allow_nan=False))


def edited(before: dict[str, Any] | None, terms: Mapping[str, str]) -> list[str]:
    """Limits that were changed after a verdict existed, old -> new; said until they are changed again."""
    if before is None:
        return []
    return edits(before["terms"], terms) or list(before["edited"])


def _observed_on(folder: Path) -> str:
    """Where the judged answers were given: `here`, or the machine that an observation was carried from."""
    document = json.loads((folder / "observation.json").read_text())
    return f"carried here from {document['fingerprint']['cpu']}" if "digests" in document else "here"


def _plain(value: Any) -> Any:
    """The same as JSON can say it: infinity and NaN, which JSON does not have, as the words `inf` and `nan`."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def examine(
    config: ModelFile, target: TargetFile, policy: Policy, folders: dict[str, Path]
) -> tuple[list[Finding], dict[str, Any]]:
    """Every finding about one target, and the figures that a table shows.

    A broken law says more than an error that it led to, in measuring or in the user's code, and is told instead.
    """
    source, candidate = read_observed(folders["source"], config), read_observed(folders["observation"], config)
    walk = Walk(source, candidate, partial(names_of, folders["suite"], config.signature))
    try:
        scene = _scene(config, target, policy, walk, folders)
    except LockstepError:
        laws = laws_of(walk)
        if overall(laws) is Status.PASS:
            raise
        return laws, {}
    limits = [limit for limit in policy.limits if target.precision in limit.precision]
    met = [finding for limit in limits for finding in limited(limit, scene, policy)]
    unbound = [] if met else [f"no limit of the policy gives a measurement for {target.precision}"]
    if met and not any(finding.tells is not False and finding.of not in INTEGER_ONLY for finding in met):
        unbound = [
            f"an artifact that gave every row the answer of another one would keep every limit that binds {target.precision}, so "
            "that none can fail: add one that it would miss"
        ]
    return [*laws_of(walk), *steadiness(walk, folders), law("limits", unbound), *met], summary(scene)


def _scene(
    config: ModelFile, target: TargetFile, policy: Policy, walk: Walk, folders: Mapping[str, Path]
) -> measure.Scene:
    """What limits are measured on; the columns themselves are let go once each side has taken what it needs."""
    columns = columns_of(folders["suite"])
    refuse_idle_limits(policy, config, columns)
    refuse_strange(config, columns.get("labels"))
    found = measure.scene(config, target, policy, walk, baseline_of(config, target, folders), columns, folders)
    refuse_one_answer(found.rows["source"])
    if policy.route is not None and any(limit.is_a.routed for limit in policy.limits):
        refuse_idle(found.rows["source"], policy.route)
    if policy.source is not None and (right := found.right("source")) is not None:
        refuse_unexpected(right[0], policy.source.at_least)
    return found


def baseline_of(config: ModelFile, target: TargetFile, folders: Mapping[str, Path]) -> Observed | None:
    """What an edge target is compared with besides the source, where it could be observed."""
    return read_observed(folders["baseline"], config) if target.role == "edge" and "baseline" in folders else None


def laws_of(walk: Walk) -> list[Finding]:
    """The laws as findings."""
    return [law(name, broken) for name, broken in walk.laws()]


def steadiness(walk: Walk, folders: Mapping[str, Path]) -> list[Finding]:
    """The law that the same rows get the same answers, of an observation that asked some again."""
    if not (folders["observation"] / "outputs" / "again").is_dir():
        return []
    floors = json.loads((folders["source"] / "floor.json").read_text())["outputs"]
    return [law("steady", unsteady(walk.source, walk.candidate, floors))]


def law(name: str, broken: list[str]) -> Finding:
    """A deterministic law as a finding: the number of breaches is at most none."""
    measured = Measured.exactly(len(broken), 1)
    sentence = f"{name}: {'; '.join(broken[:3])}" if broken else f"{name}: holds"
    return Finding(name, "source", decide(measured, "at_most", 0), "at_most", 0, measured, sentence)


def limited(limit: Limit, scene: measure.Scene, policy: Policy) -> Iterator[Finding]:
    """One finding for each pair that the limit binds and that exists here."""
    if limit.metric == "latency_ratio" and policy.goal is not None and policy.goal.kind == "size":
        return
    tells = others.tell(limit, scene.rows["source"], policy.route)
    for against in limit.pairs:
        if against == "baseline" and "baseline" not in scene.rows:
            if scene.target.role == "edge" and scene.config.baseline:
                yield unseen(limit, scene.config)
            continue
        for name, measured in measure.measured(limit, against, scene):
            sense, bound = limit.sense, limit.threshold
            status = decide(measured, sense, bound)
            sentence = said(name, against, measured, sense, bound, status) + contrasted(limit)
            sentence += looked_up(limit, against, scene)
            sentence += TELLS_NOTHING if tells is False else ""
            yield Finding(name, against, status, sense, bound, measured, sentence, *behind(limit), tells)


def behind(limit: Limit) -> tuple[str, str, float, tuple[str, ...], str, float]:
    """What a finding keeps of its limit."""
    return limit.metric, limit.why, limit.confidence, limit.by, limit.kind, limit.bound


def contrasted(limit: Limit) -> str:
    """What the figure is where it is neither a value nor the plain gain of the candidate."""
    if limit.kind == "relative_margin":
        return f" (relative margin {limit.bound:g})"
    return " (the reference's less the candidate's)" if limit.is_a.errors else ""


def looked_up(limit: Limit, against: Against, scene: measure.Scene) -> str:
    """Among how many rows neighbours were looked up, where a suite is too large to look among all of it."""
    rows = scene.rows.get(against)
    if rows is None or rows.gallery is None or limit.metric not in measure.OF_NEIGHBOURS:
        return ""
    return f" (neighbours among {rows.gallery:,} rows, drawn by a fixed seed)"


def unseen(limit: Limit, config: ModelFile) -> Finding:
    """The finding where a baseline is named and none could be observed: open, for what was not measured has not passed."""
    anything = Measured(math.nan, -math.inf, math.inf, 0)
    sentence = (
        f"{limit.metric} against baseline: INCONCLUSIVE, none of {', '.join(config.baseline)} can be observed here; name "
        "one that can next in `baseline`, or bring an observation (`lockstep bundle`)"
    )
    return Finding(
        limit.metric,
        "baseline",
        Status.INCONCLUSIVE,
        limit.sense,
        limit.threshold,
        anything,
        sentence,
        *behind(limit),
    )


def said(name: str, against: str, measured: Measured, sense: Sense, limit: float, status: Status) -> str:
    """The finding as a sentence."""
    exact = measured.low == measured.high
    rows = f"n = {measured.n:,}" + (f" in {measured.groups:,} groups" if measured.groups is not None else "")
    span = f"[{measured.low:.4g}, {measured.high:.4g}]" if measured.high - measured.low < math.inf else "(no interval)"
    interval = "" if exact else f" {span}, {rows}"
    needed = f"; {what_would_decide(measured, against, sense, limit)}" if status is Status.INCONCLUSIVE else ""
    return f"{name} against {against}: {measured.value + 0.0:.4g}{interval}; {sense.replace('_', ' ')} {limit:g}: {status}{needed}"


def what_would_decide(measured: Measured, against: str, sense: Sense, limit: float) -> str:
    """What to do about a measurement that does not decide, and which way that would decide."""
    if against == "float":
        return "measure again on a quiet machine: remove this target's `timing` folder under `out/`"
    if measured.method == KINDS_TOO_SMALL:
        return f"an interval is {KINDS_TOO_SMALL}; bring more rows of each, or name others in `by`, or lower `smallest`"
    if measured.method.startswith("not supported"):
        return f"an interval is {measured.method}; rows of one group are not independent, so bring more groups"
    if not measured.needed:
        return "no number of rows at these rates would decide"
    more = f"{measured.needed:,} rows{' of that slice' if measured.parts else ''}"
    if measured.groups is not None:
        more = f"{math.ceil(measured.groups * measured.needed / measured.n):,} groups ({more})"
    holds = measured.value >= limit if sense == "at_least" else measured.value <= limit
    return f"about {more} at these rates would show that it {'holds' if holds else 'is missed'}"
