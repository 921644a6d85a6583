"""The suggestion, tried before it is made: what to change, and what agreement and latency were before and after.

In: a diagnosis and the rungs that were climbed. Out: the suggestion, or None where nothing that was tried helps. The rule:
layers to keep in float are picked on the calibration data and judged on the suite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compile import build, percent
from compile.build import Made
from compile.config import Precision, load_model
from compile.errors import ToolchainError
from compile.project import GRAPH_FILE, Project
from compile.share import compiled_share
from parity import observe
from parity.explain.experiment.ladder import alike
from parity.observed import Observed
from parity.policy import Policy, load_policy

if TYPE_CHECKING:
    from parity.explain.climber import Climber


def suggest(climber: Climber, document: Mapping[str, Any], graph: Made, name: str) -> dict[str, Any] | None:
    """What to do about the cause, with the figures of having done it."""
    rungs = {rung["name"]: rung for rung in document["rungs"] if rung["agreement"]}
    broken = rungs.get(document["step"])
    if document["cause"] == "quantization" and document["step"] == "quantized graph simulated":
        return _kept_in_float(climber, graph, rungs)
    if broken is None or document["remedy"] is None:
        return None
    sound = _sound(document, rungs)
    after = None if sound is None else rungs[sound]["agreement"]["value"]
    before = broken["agreement"]["value"]
    text = f"{document['remedy']}: agreement {_percent(before)} → {_percent(after)}"
    if sound is not None and after is not None and after <= before:
        noise = [rungs[rung]["sqnr_db"] for rung in (document["step"], sound)]
        text += f"; what it mends shows in the outputs alone: SQNR {' → '.join(_decibels(db) for db in noise)}"
    return _suggestion(text, [], before, after, None, f"{broken['agreement']['n']:,} rows of the suite ({sound})")


def _sound(document: Mapping[str, Any], rungs: Mapping[str, Any]) -> str | None:
    """The rung that shows what the remedy gives: precision pinned, or the one before the break."""
    if document["cause"] == "runtime precision" and "runtime, precision pinned" in rungs:
        return "runtime, precision pinned"
    names = list(rungs)
    return names[names.index(document["step"]) - 1]


def _kept_in_float(climber: Climber, graph: Made, rungs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The layers that do most damage on the calibration data, really kept in float, rebuilt, and judged on the suite."""
    line = climber.line
    place = climber.folder / "ranking"
    place.mkdir()
    arguments = {
        "model": line.model,
        "float_graph": str(build.float_graph(line).folder / GRAPH_FILE),
        "graph": str(graph.folder / GRAPH_FILE),
        "calibration": str(build.data(line, "calibration").folder),
    }
    try:
        ranked, _ = line.child(place, climber.what, "parity.explain.damage:rank", arguments)
        keep = json.loads((ranked / "ranking.json").read_text())["keep"]
        return _rebuilt(climber, keep, rungs) if keep and "compiled artifact" in rungs else None
    except ToolchainError as error:
        text = f"nothing that was tried helps: {str(error).splitlines()[0]}"
        return _suggestion(text, [], None, None, None, "not judged")


def _rebuilt(climber: Climber, keep: list[str], rungs: Mapping[str, Any]) -> dict[str, Any]:
    """The artifact with these modules in float: agreement and latency, beside the artifact without."""
    graph = climber.quantized(keep, climber.folder / "kept")
    mended = climber.compiled("kept in float", graph / GRAPH_FILE, {}, precision=climber.target.precision)
    if mended.outputs is None:
        raise ToolchainError(f"kept in float, it cannot be run: {mended.why}")
    before = rungs["compiled artifact"]["agreement"]
    after = _agreement(climber, mended.outputs)
    ratio = _latency(climber)
    share = compiled_share(_layers(climber), _macs(graph))
    named = ", ".join(f"`{module}`" for module in keep)
    figures = f"agreement {_percent(before['value'])} → {_percent(after)}, latency {(ratio - 1) * 100:+.0f} %"
    policy = load_policy(climber.line.project, climber.line.config.policy)
    text = f"keep {named} in float: {figures}{still_missed(policy, climber.target.precision, after)}"
    if after <= before["value"]:
        text = f"none that helps: with {named} in float, {figures}"
    elif share < climber.target.quantized_share:
        text += (
            f" (then {percent.share(share)} of the work is integer: lower the target's `quantized_share` in a copy of its "
            "config)"
        )
    judged = f"{before['n']:,} rows of the suite; the layers were picked on calibration data"
    return _suggestion(text, keep, before["value"], after, ratio, judged)


def still_missed(policy: Policy, precision: Precision, agreement: float) -> str:
    """What is added where a remedy helps, and not as far as the policy asks; nothing where it does."""
    asked = [one.bound for one in policy.limits if one.metric == "agreement" and precision in one.precision]
    short = [bound for bound in asked if agreement < bound]
    return f", still below the {percent.share(max(short))} that the policy asks for" if short else ""


def _agreement(climber: Climber, outputs: Path) -> float:
    """The share of the suite's rows on which these outputs give the source's answer."""
    place = climber.folder / "agreement"
    place.mkdir()
    source = str(observe.source(climber.line).folder)
    arguments = {"model": climber.line.model, "source": source, "other": str(outputs.parent)}
    made, _ = climber.line.child(place, climber.what, "parity.explain.remedy:agreement", arguments)
    return float(json.loads((made / "agreement.json").read_text()))


def agreement(project: Project, made: Path, model: str, source: str, other: str) -> None:
    """The child's step: answers need the user's postprocess, which never runs in the command line's process."""
    config = load_model(project, model)
    same = alike(Observed(Path(source), config), Observed(Path(other), config), config)
    (made / "agreement.json").write_text(json.dumps(float(same.mean())))


def _latency(climber: Climber) -> float:
    """Time with these layers in float over time without, call by call in alternation."""
    place = climber.place("kept in float")
    timed = climber.work(
        place,
        "time",
        {},
        alone=True,
        artifact=place / "artifact",
        twin=climber.place("compiled artifact") / "artifact",
        precision=climber.target.precision,
    )
    pairs = zip(timed["seconds"]["artifact"], timed["seconds"]["float"], strict=True)
    return float(np.median([one / other for one, other in pairs]))


def _layers(climber: Climber) -> list[dict[str, Any]]:
    built = json.loads((climber.place("kept in float") / "built.json").read_text())
    return list(built["layers"])


def _macs(graph: Path) -> dict[str, int]:
    counted = json.loads((graph / "coverage.json").read_text())
    return {layer["name"]: layer["macs"] for layer in counted["layers"]}


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else percent.share(value)


def _suggestion(
    text: str, keep: list[str], before: float | None, after: float | None, ratio: float | None, judged: str
) -> dict[str, Any]:
    return {
        "text": text,
        "keep_float": keep,
        "agreement_before": before,
        "agreement_after": after,
        "latency_ratio": ratio,
        "judged_on": judged,
    }
