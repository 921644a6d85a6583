"""The child that explains: graphs and observations in, the causes out.

In: folders of the suite, the source's answers, graphs, artifacts, and of what the runtimes answered. Out: `explain.json`
and, for every rung that ran, `rungs/NAME/outputs/`. The rule: what is said follows from what was run here on the suite;
a rung that did not run says why.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compile.config import ModelFile, load_model, load_target
from compile.dataset import columns_of
from compile.project import GRAPH_FILE, Project
from compile.source import open_source
from parity.explain.experiment import cause as causes
from parity.explain.experiment import doubts
from parity.explain.experiment.case import Case, Recipe
from parity.explain.experiment.gathered import gathered
from parity.explain.experiment.inner import by_constants, changes_that_tell, layers_of_break, with_ir
from parity.explain.experiment.ladder import (
    ANSWERS,
    ORDER,
    Rung,
    Standing,
    adds,
    alike,
    climb,
    culprit,
    outputs_of,
    scale_of,
)
from parity.explain.experiment.rungs import Places, kept, ladder, linked
from parity.explain.experiment.told import Cause
from parity.explain.graph.tensors import Diverging, decibel
from parity.explain.mistake.pace import Pace
from parity.kinds import codes
from parity.observed import Observed
from parity.policy import load_policy

SHOWN_FLIPS = 20


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found out: the cause, all inner tensors, and those that the cause is about."""

    cause: Cause
    tensors: Sequence[Diverging] = ()
    diverging: Sequence[Diverging] = ()
    step: str | None = None


def diagnose(
    project: Project,
    made: Path,
    model: str,
    target: str,
    places: dict[str, str | None],
    rungs: list[dict[str, Any]],
    effective: list[str],
    foreign: bool,
    recipe: Recipe,
    minutes: float,
) -> None:
    """The step behind `explain/`. `rungs`: those that the front ran or skipped, in order; the graphs are run here."""
    import onnx

    config = load_model(project, model)
    at = Places(**{name: None if place is None else Path(place) for name, place in places.items()})  # type: ignore[arg-type]
    exact, fresh = onnx.load(at.float_graph / GRAPH_FILE), onnx.load(at.graph / GRAPH_FILE)
    climbed = linked([kept(made, r) for r in ladder(made, at, exact, fresh, config, rungs)], config, foreign=foreign)
    columns = columns_of(at.suite)
    groups = codes(columns["group"][columns["row"]]) if "group" in columns else None
    scale = scale_of(at.source, load_policy(project, config.policy))
    standings = climb(climbed, config, scale, groups)
    pace = _pace(climbed, next(iter(standings)).n, minutes)
    case = gathered(project, config, load_target(project, target), at, standings, (exact, fresh), scale, pace)
    case = replace(case, recipe=recipe, source=lambda: open_source(project, config.source, at.fetched))
    found = _unanswered(climbed) or _diagnosis(config, at, case, standings, effective)
    document = {
        "model": model,
        "target": target,
        **_finding(found),
        "rungs": [_rung(rung, {s.rung.name: s for s in standings}) for rung in climbed],
        "searched": pace.told(),
        "flips": _flips(standings, config, at),
        "sample": {"batches": len(case.files), "of": len(list((at.suite / "batches").glob("*.npz")))},
    }
    np.save(made / ORDER, columns_of(at.suite)["row"])
    for standing in standings:
        if not standing.laws:
            np.save(outputs_of(standing).parent / ANSWERS, Observed(outputs_of(standing).parent, config).answers())
    (made / "explain.json").write_text(json.dumps(plain(document), indent=1, sort_keys=True, allow_nan=False))


def _pace(climbed: Sequence[Rung], rows: int, minutes: float) -> Pace:
    """How dear a row is, as the exported graph took; the time of all experiments together starts now."""
    took = next((rung.seconds for rung in climbed if rung.name == "exported graph"), 0.0)
    return Pace(took / max(rows, 1), 60 * minutes, started=time.monotonic())


def _unanswered(climbed: Sequence[Rung]) -> Diagnosis | None:
    """That what is to be explained gave no answers at all: then no rung before it is the answer."""
    asked = [rung for rung in climbed if rung.name in ("artifact as found", "observation as found")]
    if not asked or any(rung.outputs is not None for rung in asked):
        return None
    why = str(asked[0].why).rstrip(".")
    return Diagnosis(Cause("unexplained", f"the artifact could not be run here: {why}"), step=asked[0].name)


def _diagnosis(
    config: ModelFile, at: Places, case: Case, standings: Sequence[Standing], effective: Sequence[str]
) -> Diagnosis:
    """The cause behind the rung that brings most of the error, and behind what breaks after it; where that is quantization
    alone, or nothing, perhaps the suite's."""
    broken = culprit(standings)
    found = Diagnosis(Cause("none", _sound(standings)))
    if broken is not None:
        found = _broken(at, case, standings, broken, effective)
        further = culprit(standings[standings.index(broken) + 1 :])
        if found.cause.second is None and further is not None and adds(further, broken):
            second = _broken(at, case, standings, further, effective).cause
            told = f"at “{further.rung.name}”: {second.sentence}"
            found = replace(found, cause=replace(found.cause, second=replace(second, sentence=told)))
    if found.cause.kind in ("none", "quantization"):
        doubt = doubts.about(config, case, at.source, columns_of(at.suite))
        if doubt is not None:
            cause = Cause("pre/post-processing", doubt.sentence, doubt.remedy)
            return replace(found, cause=cause, step="suite")
    return found


def _sound(standings: Sequence[Standing]) -> str:
    """What is said where there is nothing to explain."""
    others = [one.rung.name for one in standings if one.broke and one.rung.leads]
    if not others:
        return "every rung answers as the source does, within the noise floor"
    return f"what was found answers as the source does, within the noise floor; what the line makes does not, from “{others[0]}” on"


def _broken(
    at: Places, case: Case, standings: Sequence[Standing], broken: Standing, effective: Sequence[str]
) -> Diagnosis:
    """The cause behind one rung that broke, with the tensors that show it."""
    before = next((one for one in standings if one.rung.name == broken.rung.after), None)
    case = with_ir(at, case, broken, before)
    tensors, diverging = layers_of_break(case, broken)
    changed = changes_that_tell(case, broken, tensors, diverging)
    cause = by_constants(at, case, broken) or causes.find(case, standings, broken, effective, changed)
    second = () if cause.second is None else cause.second.modules
    named = [one for one in diverging if one.module in {*cause.modules, *second}]
    around = cause.kind == "pre/post-processing"  # the layers compute what they should, of other inputs
    return Diagnosis(cause, tensors, named if around else named or diverging, broken.rung.name)


def _finding(found: Diagnosis) -> dict[str, Any]:
    """The cause and the tensors as JSON values."""
    cause, diverging = found.cause, found.diverging
    return {
        "cause": cause.kind,
        "explained": cause.explained,
        "sentence": cause.sentence,
        "second": _second(cause),
        "step": found.step,
        "first": _tensor(diverging[0]) if diverging else None,
        "worst": _tensor(max(diverging, key=lambda one: one.own)) if diverging else None,
        "tensors": [_tensor(one) for one in found.tensors],
        "remedy": cause.remedy,
        "modules": list(cause.modules),
        "hypotheses": [{"name": t.name, "score": round(max(t.score, 0.0), 4)} for t in cause.trials[:8]],
    }


def _second(cause: Cause) -> dict[str, Any] | None:
    """What remains once the cause is undone, if anything does."""
    if cause.second is None:
        return None
    return {"cause": cause.second.kind, "sentence": cause.second.sentence, "remedy": cause.second.remedy}


def plain(value: Any) -> Any:
    """The same as JSON can say it: what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rung(rung: Rung, standings: Mapping[str, Standing]) -> dict[str, Any]:
    standing = standings.get(rung.name)
    bounds = None if standing is None else standing.agreement
    agreement = None
    if standing is not None and bounds is not None:
        agreement = {**asdict(bounds), "disagree": standing.disagree, "n": standing.n}
    return {
        "name": rung.name,
        "status": "skipped" if standing is None else "ran",
        "why": rung.why if standing is None or not standing.laws else "; ".join(standing.laws[:3]),
        "agreement": agreement,
        "sqnr_db": None if standing is None or math.isinf(standing.noise) else standing.sqnr_db,
        "exact": standing is not None and standing.noise == 0,
        "broke": bool(standing is not None and standing.broke),
        "leads": rung.leads,
    }


def _tensor(one: Diverging) -> dict[str, Any]:
    local = None if one.local is None else decibel(one.local)
    return {"module": one.module, "op": one.op, "sqnr_db": decibel(one.noise), "local_sqnr_db": local}


def _flips(standings: Sequence[Standing], config: ModelFile, at: Places) -> list[dict[str, Any]]:
    """Rows that the broken rung answers otherwise than the source, first those that the rung before still had right."""
    broken = culprit(standings)
    if broken is None or broken.laws:
        return []
    source = Observed(at.source, config)
    ours, theirs = source.answers(), Observed(outputs_of(broken).parent, config).answers()
    wrong = ~alike(source, Observed(outputs_of(broken).parent, config), config)
    before = next((s for s in standings if s.rung.name == broken.rung.after), None)
    new = wrong
    if before is not None and not before.laws:
        new = wrong & alike(source, Observed(outputs_of(before).parent, config), config)
    rows = np.flatnonzero(new if new.any() else wrong)[:SHOWN_FLIPS]
    columns = columns_of(at.suite)
    order = columns["row"]
    ids = columns.get("id")
    return [
        {
            "row": int(order[i]),
            "id": None if ids is None else ids[order[i]].item(),
            "source": shown(ours[i]),
            "candidate": shown(theirs[i]),
        }
        for i in rows
    ]


def shown(answer: Any) -> Any:
    """An answer as JSON: a number, or a short list of numbers."""
    array = np.asarray(answer)
    return array.item() if array.size == 1 else array.ravel()[:8].tolist()
