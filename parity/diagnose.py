"""The child that explains: graphs and observations in, the causes out.

In: folders of the suite, the source's answers, graphs, artifacts, and of what the runtimes answered. Out: `explain.json`
and, for every rung that ran, `rungs/NAME/outputs/`. The rule: what is said follows from what was run here on the suite;
a rung that did not run says why.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compile.config import load_model, load_target
from compile.dataset import columns_of
from compile.errors import ToolchainError
from compile.project import GRAPH_FILE, Project
from compile.reference import walk
from parity import cause as causes
from parity import doubts
from parity.case import Case, sample, unprocessed
from parity.cause import Cause
from parity.ladder import ANSWERS, ORDER, Rung, RungName, Standing, alike, climb, culprit, nearest, scale_of, slug
from parity.observed import Observed
from parity.policy import load_policy
from parity.simulate import opened, output_names
from parity.structure import Change, changes
from parity.tensors import Diverging, compare, decibel
from parity.weights import ir_constants, ir_gaps

if TYPE_CHECKING:
    import onnx

SHOWN_FLIPS = 20
ROUNDING = 2.0**-40
"""Noise over signal of float32's own last place (2^-23 of a number, 2^-46 of its energy) after sums of 64 numbers."""


COARSEST = 1e-2
"""Noise over signal of four bits' rounding (about 20 dB): an operator further off than that computes something else."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything lies; None for what this target or this machine does not have."""

    suite: Path
    source: Path
    float_graph: Path
    graph: Path
    fresh: Path | None
    found: Path | None


def diagnose(
    project: Project,
    made: Path,
    model: str,
    target: str,
    places: dict[str, str | None],
    rungs: list[dict[str, Any]],
    effective: list[str],
    foreign: bool,
) -> None:
    """The step behind `explain/`. `rungs`: those that the front ran or skipped, in order; the graphs are run here."""
    import onnx

    config, target_file = load_model(project, model), load_target(project, target)
    at = Places(**{name: None if place is None else Path(place) for name, place in places.items()})  # type: ignore[arg-type]
    exact, fresh = onnx.load(at.float_graph / GRAPH_FILE), onnx.load(at.graph / GRAPH_FILE)
    ladder = [_kept(made, rung) for rung in _ladder(made, at, exact, fresh, config, rungs)]
    ladder = _linked(ladder, config, foreign=foreign)
    standings = climb(ladder, config, scale_of(at.source, load_policy(project, config.policy)))
    broken = culprit(standings)
    case = _case(project, config, target_file, at, standings, exact, fresh)
    found = Cause("none", "every rung answers as the source does, within the noise floor")
    layers: list[Diverging] = []
    diverging: list[Diverging] = []
    if broken is not None:
        layers, diverging = _layers(case, broken)
        changed = _changes(case, broken, layers, diverging)
        found = _by_bytes(at, case, broken) or causes.find(case, standings, broken, effective, changed)
    doubt = (
        doubts.about(config, case, at.source, columns_of(at.suite)) if found.kind in ("none", "quantization") else None
    )
    if doubt is not None:
        found = Cause("pre/post-processing", doubt.sentence, doubt.remedy, [*found.trials], [])
    if diverging and found.modules:
        chosen = [one for one in diverging if one.module in found.modules]
        diverging = chosen or diverging
    document = {
        "model": model,
        "target": target,
        "cause": found.kind,
        "explained": found.kind != "unexplained",
        "sentence": found.sentence,
        "step": "suite" if doubt is not None else None if broken is None else broken.rung.name,
        "rungs": [_rung(rung, {s.rung.name: s for s in standings}) for rung in ladder],
        "first": _tensor(diverging[0]) if diverging else None,
        "worst": _tensor(max(diverging, key=lambda one: one.own)) if diverging else None,
        "tensors": [_tensor(one) for one in layers],
        "flips": _flips(standings, broken, config, at) if broken is not None else [],
        "remedy": found.remedy,
        "modules": list(found.modules),
        "hypotheses": [{"name": t.name, "score": round(max(t.score, 0.0), 4)} for t in found.trials[:8]],
        "sample": {"batches": len(case.files), "of": len(list((at.suite / "batches").glob("*.npz")))},
    }
    np.save(made / ORDER, columns_of(at.suite)["row"])
    for standing in standings:
        np.save(_outputs(standing).parent / ANSWERS, Observed(_outputs(standing).parent, config).answers())
    (made / "explain.json").write_text(json.dumps(plain(document), indent=1, sort_keys=True, allow_nan=False))


def plain(value: Any) -> Any:
    """The same as JSON can say it: what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ladder(
    made: Path,
    at: Places,
    exact: onnx.ModelProto,
    fresh: onnx.ModelProto,
    config: Any,
    others: Sequence[Mapping[str, Any]],
) -> list[Rung]:
    """All rungs in their order: the source, the graphs that are run here, what the front ran."""
    given = {rung["name"]: rung for rung in others}

    def front(name: RungName) -> list[Rung]:
        one = given.get(name)
        if one is None:
            return []
        outputs = None if one["outputs"] is None else Path(one["outputs"])
        return [Rung(name, outputs, one["why"], leads=one["leads"], rule=one["rule"])]

    derived = at.graph != at.float_graph
    simulated: Rung = (
        _graph_rung(made, "quantized graph simulated", fresh, at, config)
        if derived
        else Rung("quantized graph simulated", None, "this target computes in float32", leads=False)
    )
    return [
        Rung("source", at.source / "outputs"),
        _graph_rung(made, "exported graph", exact, at, config),
        _graph_rung(made, "optimizer on", exact, at, config, optimized=True),
        *front("runtime, precision pinned"),
        *front("runtime's defaults"),
        simulated,
        *front("compiled artifact"),
        *front("artifact as found"),
        *front("observation as found"),
    ]


def _graph_rung(
    made: Path, name: RungName, model: onnx.ModelProto, at: Places, config: Any, *, optimized: bool = False
) -> Rung:
    """A graph run on the whole suite by ONNX Runtime."""
    outputs = made / "rungs" / slug(name) / "outputs"
    outputs.mkdir(parents=True)
    wanted = {t.name for t in config.signature.answers}
    try:
        infer = opened(model, output_names(config.signature), optimized=optimized)
        for path, _, found in walk(infer, at.suite, config.signature):
            np.savez(outputs / path.name, **{k: v for k, v in found.items() if k in wanted})  # type: ignore[arg-type]
    except ToolchainError as error:
        return Rung(name, None, str(error).splitlines()[0])
    return Rung(name, outputs)


def _kept(made: Path, rung: Rung) -> Rung:
    """The rung with its outputs beside the report, where the command that reproduces it finds them."""
    place = made / "rungs" / slug(rung.name) / "outputs"
    if rung.outputs is not None and rung.outputs != place:
        shutil.copytree(rung.outputs, place)
        return replace(rung, outputs=place)
    return rung


def _linked(ladder: Sequence[Rung], config: Any, *, foreign: bool) -> list[Rung]:
    """Every rung beside the one before it on the artifact's way; an artifact from elsewhere beside the nearest one."""
    linked: list[Rung] = []
    way: list[Rung] = []
    for rung in ladder:
        after = way[-1].name if way else None
        if rung.name == "artifact as found" and foreign and rung.outputs is not None:
            floats = [r for r in way if r.name in ("runtime, precision pinned", "optimizer on", "exported graph")][-1:]
            after = nearest(rung.outputs, [*floats, *(r for r in way if r.name == "compiled artifact")], config)
        linked.append(replace(rung, after=after))
        if rung.outputs is not None and rung.leads:
            way.append(linked[-1])
    return linked


def _case(
    project: Project,
    config: Any,
    target: Any,
    at: Places,
    standings: Sequence[Standing],
    exact: onnx.ModelProto,
    fresh: onnx.ModelProto,
) -> Case:
    import onnx

    last = standings[-1]
    source = Observed(at.source, config)
    same = None if last.laws else alike(source, Observed(_outputs(last).parent, config), config)
    batches = sorted((at.suite / "batches").glob("*.npz"))
    name = config.signature.answers[0].name
    axis = config.signature.answers[0].batch_axis or 0
    rows = [batch[name].shape[axis] for batch in source.batches()]
    files = sample(batches, rows, same, stateful=bool(config.signature.state))
    own = None if at.found is None else next(iter(sorted(at.found.glob("*.onnx"))), None)
    far = any(s.rung.name == "artifact as found" and s.rung.after != "compiled artifact" for s in standings)
    raw = unprocessed(project, config, [path.name for path in files])
    return Case(config, target, exact, fresh, None if own is None else onnx.load(own), files, raw, far)


def _outputs(standing: Standing) -> Path:
    assert standing.rung.outputs is not None
    return standing.rung.outputs


def _layers(case: Case, broken: Standing) -> tuple[list[Diverging], list[Diverging]]:
    """Inner tensors of the graph that broke, and those of them that do more than a sound graph's do."""
    own = broken.rung.name == "artifact as found" and case.found is not None
    candidate = case.found if own else case.fresh
    assert candidate is not None
    if broken.rung.name not in ("artifact as found", "quantized graph simulated", "compiled artifact"):
        return [], []
    feeds = case.feeds()
    try:
        layers = compare(case.exact, candidate, feeds)
        sound = {one.tensor: one for one in compare(case.exact, case.fresh, feeds)} if own else {}
    except ToolchainError:
        return [], []
    if sound:
        beyond = [
            one for one in layers if one.own > 2 * (sound[one.tensor].own if one.tensor in sound else 0) + ROUNDING
        ]
        return layers, beyond
    share = layers[-1].noise / len(layers) if layers else 0.0
    return layers, [one for one in layers if one.own > max(share, ROUNDING)]


def _changes(case: Case, broken: Standing, layers: Sequence[Diverging], diverging: Sequence[Diverging]) -> list[Change]:
    """Where the candidate's graph is another and gives other numbers; far other ones are another function, no rounding.

    Where no tensor can be compared (integers throughout), integer operators stand for themselves, if the answers are near.
    """
    if case.found is None:
        return []
    found = changes(case.exact if case.foreign else case.fresh, case.found)
    if not layers:
        return [change for change in found if change.kind == "quantization" and broken.noise < COARSEST]
    own: dict[str, float] = {}
    for one in diverging:
        own[one.module] = max(own.get(one.module, 0.0), one.own)
    found = [change for change in found if change.module in own]
    return [replace(c, kind="export") if c.kind == "fusion" and own[c.module] > COARSEST else c for c in found]


def _by_bytes(at: Places, case: Case, broken: Standing) -> Cause | None:
    """For artifacts that no graph tells about: the constants of OpenVINO's IR beside those of the fresh one."""
    if broken.rung.name != "artifact as found" or case.found is not None or at.found is None or at.fresh is None:
        return None
    if not list(at.found.glob("*.xml")) or not list(at.fresh.glob("*.xml")):
        return None
    other = ir_gaps(ir_constants(at.fresh), ir_constants(at.found), _owners(case.fresh))
    weights = [gap for gap, many in other if many]
    if weights:
        from parity.exchange import said

        sentence = f"{said(weights, len(other))}; the artifact built afresh from the source answers as it should"
        modules = list(dict.fromkeys(gap.module for gap in weights))
        return Cause("stale or wrong weights", sentence, "build it again from the source's weights", modules=modules)
    ranges = [gap for gap, many in other if not many]
    if ranges:
        named = ", ".join(dict.fromkeys(f"`{gap.module}`" for gap in ranges[:4]))
        sentence = f"{len(ranges)} constants of quantizers are not those that the calibration data gives ({named})"
        return Cause("quantization", sentence, "calibrate again and rebuild", modules=[g.module for g in ranges])
    return None


def _owners(model: onnx.ModelProto) -> dict[str, str]:
    """For each stored tensor the module of the operator that it reaches."""
    from parity.points import QUANTIZING, named_modules, readers

    reading, names = readers(model), named_modules(model)

    def owner(name: str) -> str | None:
        for node in reading.get(name, []):
            if node.op_type not in QUANTIZING:
                return names[node.output[0]]
            if (found := owner(node.output[0])) is not None:
                return found
        return None

    return {tensor.name: owner(tensor.name) or tensor.name for tensor in model.graph.initializer}


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


def _flips(standings: Sequence[Standing], broken: Standing, config: Any, at: Places) -> list[dict[str, Any]]:
    """Rows that the broken rung answers otherwise than the source, first those that the rung before still had right."""
    if broken.laws:
        return []
    source = Observed(at.source, config)
    ours, theirs = source.answers(), Observed(_outputs(broken).parent, config).answers()
    wrong = ~alike(source, Observed(_outputs(broken).parent, config), config)
    before = next((s for s in standings if s.rung.name == broken.rung.after), None)
    new = wrong
    if before is not None and not before.laws:
        new = wrong & alike(source, Observed(_outputs(before).parent, config), config)
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
