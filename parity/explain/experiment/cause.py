"""From the rung that broke to the cause: every class is the outcome of an experiment, and what none explains is unexplained.

In: a `Case`, the standings, the rung that broke. Out: a `Cause`. The order: the source's weights put in, the fresh graph's
ranges put in, mistakes before and behind the model, narrower floats, other operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compile import percent
from compile.errors import ToolchainError
from parity.explain.experiment import exchange, operators, several
from parity.explain.experiment.case import Case
from parity.explain.experiment.change import Change
from parity.explain.experiment.edited import DRAWS, edited
from parity.explain.experiment.exported import exported
from parity.explain.experiment.ladder import Rung, Standing
from parity.explain.experiment.quantized import quantizers
from parity.explain.experiment.rebuilt import rebuilt
from parity.explain.experiment.stranger import another_network, integers_are_the_sources
from parity.explain.experiment.told import Cause, Kind, reproduced, shown, unknown
from parity.explain.experiment.trials import EXACT, PIN, enough_of, trials_of
from parity.explain.mistake import inside, postprocessing
from parity.explain.mistake.hypotheses import EMULATED, REPRODUCED, Bench, Trial, distance, tried

NARROW = frozenset({"bf16", "f16", "bfloat16", "float16", "fp16", "half"})

LISTED = 2
DRAWN = "what is drawn at random cannot be made again"
SEES = "the candidate sees"
"""How likenesses of inputs begin."""
NEARER = 0.5
"""What an operator inside must leave of what a likeness around the model leaves, to be told in its place."""


BY_RUNG: dict[str, tuple[Kind, str, str | None]] = {
    "exported graph": ("export", "the exported graph already answers otherwise than the source", None),
    "optimizer on": ("fusion", "ONNX Runtime's graph optimizer changes what the float graph answers", None),
    "runtime's defaults": ("runtime precision", "left to its defaults, the runtime computes in narrower floats", PIN),
    "quantized graph simulated": ("quantization", "the error is the one that quantizing to eight bits brings", None),
}
"""Rungs that differ from the one before by one thing alone: that thing is the cause."""


def find(
    case: Case, standings: Sequence[Standing], broken: Standing, effective: Sequence[str], changed: Sequence[Change]
) -> Cause:
    """The cause behind the last broken rung, and what remains without it. `effective`: float precisions that the runtime
    itself reports; `changed`: where the candidate's graph is another and gives other numbers."""
    rung = broken.rung
    if rung.name == "quantized graph simulated" and case.target.precision == "float16":
        return Cause("runtime precision", "the error is the one that half precision brings, which this target asks for")
    if rung.name == "exported graph" and case.source is not None and not broken.laws:
        return exported(case, standings[0], broken)
    if rung.name in BY_RUNG and not broken.laws:
        meant, told, remedy = BY_RUNG[rung.name]
        return Cause(meant, told + (exchange.saturated(case, case.fresh) if meant == "quantization" else ""), remedy)
    own = rung.name == "artifact as found" and case.found is not None
    edit = edited(case) if own else None
    if own and (cause := exchanged(case)) is not None and (edit is None or cause.kind == "runtime precision"):
        cause = _permuted(case, rung, cause) or _and_beneath(case, rung, cause, changed)
        return _beyond_its_constants(case, rung, cause) if case.stands_in and cause.second is None else cause
    if broken.laws:
        return shown(edit) if edit is not None else Cause("unexplained", f"{rung.name}: {'; '.join(broken.laws[:3])}")
    narrow = sorted(set(effective) & NARROW)
    if narrow and rung.name in ("runtime, precision pinned", "compiled artifact"):
        return Cause("runtime precision", f"the runtime itself reports that it computes in {', '.join(narrow)}", PIN)
    assert rung.outputs is not None
    bench = case.bench(case.sound_before(rung.name), case.answers_in(rung.outputs))
    trials = trials_of(case, bench, [standing.rung for standing in standings])
    return _searched(case, rung, bench, trials, changed if own else (), edit)


def _searched(
    case: Case,
    rung: Rung,
    bench: Bench,
    trials: Sequence[Trial],
    changed: Sequence[Change],
    edit: exchange.Exchange | None,
) -> Cause:
    """Mistakes around the model, operators, mistakes inside it. `changed`: of the candidate's own graph; `edit`: all that it has
    otherwise than the line's, where that is known."""
    exact = bool(trials) and trials[0].holds and trials[0].score >= EXACT
    inner = edit is None or edit.kind == "export"
    written = by_structure(case, rung, changed, trials) if changed and inner and not exact else None
    if written is not None and written.mended is not None:
        written = _and_beneath(case, rung, written, changed)
        if written.second is None:  # nothing is left, and no likeness explains more than all
            return written
    mistaken = _mistaken(case, rung, bench, trials, changed) if edit is None or exact else None
    if mistaken is not None and mistaken.share >= EXACT:
        return mistaken
    if edit is not None:
        found = replace(shown(_as_seen(edit, trials)), trials=trials)
        return replace(found, second=Cause("unexplained", DRAWN)) if DRAWS in found.sentence else found
    if mistaken is None:
        written = written or by_structure(case, rung, changed, trials)
        if written.explained:
            return written
        if changed and (both := operators.over_wrong_weights(case, changed)) is not None:
            return replace(shown(both[0]), second=shown(both[1]), trials=trials)
        if changed and (between := operators.put_between(case, changed)) is not None:
            return _and_beneath(case, rung, replace(shown(between), trials=trials), changed)
    within = inside.suspicions(bench, max(REPRODUCED, enough_of(case, bench)))
    if within and within[0].holds and (mistaken is None or 1 - within[0].score < NEARER * (1 - mistaken.share)):
        return _and_more(case, rung, bench, within[0], [*within, *trials])
    return mistaken or written or by_structure(case, rung, changed, trials)


def _as_seen(edit: exchange.Exchange, trials: Sequence[Trial]) -> exchange.Exchange:
    """Operators before or behind the model, in the words of the likeness of that side which holds."""
    best = trials[0] if trials and trials[0].holds else None
    if best is None or edit.kind != best.kind or edit.before != best.name.startswith(SEES):
        return edit
    share = percent.share(best.score, 1)
    told = f"{best.name}; done to the source's graph, this reproduces {share} of the error; it is in the file: {edit.sentence}"
    return replace(edit, sentence=told)


def _permuted(case: Case, rung: Rung, cause: Cause) -> Cause | None:
    """That one layer's wrong weights are the source's with the classes in another order: then the labels are the mistake."""
    if cause.kind != "stale or wrong weights" or len(cause.modules) != 1 or case.found is None:
        return None
    bench = case.bench(case.sound_before(rung.name), case.answers_of(case.found))
    trials = tried(bench, [one for tensor in bench.outputs for one in postprocessing.permuted(bench, tensor)])
    if not trials or trials[0].score < EXACT:
        return None
    found = reproduced("pre/post-processing", trials[0], trials)
    told = f"{found.sentence}; it is in the file: `{cause.modules[0]}` holds them so"
    return replace(found, sentence=told, modules=cause.modules)


def _mistaken(case: Case, rung: Rung, bench: Bench, trials: Sequence[Trial], changed: Sequence[Change]) -> Cause | None:
    """Mistakes around the model: one, one over wrong weights, or two at once."""
    best = trials[0] if trials else None
    if best is not None and best.holds and not (changed and best.score < REPRODUCED and best.enough == EMULATED):
        if best.kind == "runtime precision":
            return reproduced(best.kind, best, trials)
        return _and_more(case, rung, bench, best, trials)
    own = rung.name == "artifact as found" and case.found is not None
    if (
        own and another_network(case) is not None
    ):  # two mistakes at once around another network are not worth the search
        return None
    over = _over_wrong_weights(case, bench) if own else None
    if over is not None:
        return over
    both = several.pairs(bench, trials)
    return reproduced("pre/post-processing", both[0], trials) if both and both[0].holds else None


def _and_more(case: Case, rung: Rung, bench: Bench, best: Trial, trials: Sequence[Trial]) -> Cause:
    """A mistake around the model or inside, and what remains where the sound side makes it too."""
    second = None
    before, unfollowed = distance(bench, bench.sound), 1 - best.score
    left = several.rest(case, best.predict(), bench.found, before, unfollowed=unfollowed)
    if left.matters:
        own = rung.name == "artifact as found"
        under = several.beneath(case, best) if own else None
        second = shown(under) if under is not None else unknown(left.share)
    return reproduced(best.kind, best, trials, second)


def _over_wrong_weights(case: Case, bench: Bench) -> Cause | None:
    """A mistake around the model that shows only once the candidate has the source's weights."""
    for suspicion, sound in exchange.suspected_weights(case):
        assert suspicion.mended is not None
        try:
            mended = case.bench(sound, case.answers_of(suspicion.mended))
        except ToolchainError:
            continue
        trials = trials_of(replace(case, found=suspicion.mended), mended, [])
        under = (
            several.beneath(case, trials[0])
            if trials and trials[0].holds and trials[0].kind != "runtime precision"
            else None
        )
        if under is not None:
            told = "the error that the artifact has with the source's weights"
            return reproduced("pre/post-processing", trials[0], trials, shown(under), of=told)
    return None


def _and_beneath(case: Case, rung: Rung, cause: Cause, changed: Sequence[Change]) -> Cause:
    """What was put right in the candidate's graph, and what is still wrong with it then."""
    if cause.mended is None:
        return cause
    assert case.found is not None
    sound, mended = case.sound_before(rung.name), case.answers_of(cause.mended)
    bench = case.bench(sound, mended)
    before = distance(case.between(bench.sound, case.answers_of(case.found)), bench.sound)
    left = several.rest(case, bench.sound, mended, before)
    if not (left.matters or left.audible):
        return cause
    after = replace(case, found=cause.mended)
    if (further := exchanged(after)) is not None:
        return replace(cause, second=further)
    if not left.matters:
        return cause
    trials = trials_of(after, bench, [])
    second = _mistaken(after, rung, bench, trials, changed) or by_structure(after, rung, changed, trials)
    return replace(cause, second=second if second.explained else unknown(left.share))


def _beyond_its_constants(case: Case, rung: Rung, cause: Cause) -> Cause:
    """What the candidate answers otherwise than the graph that stands for it, and so computes otherwise too."""
    assert case.found is not None
    assert rung.outputs is not None
    bench, sound = case.bench(case.found, case.answers_in(rung.outputs)), case.answers_of(case.sound_before(rung.name))
    left = several.rest(case, bench.sound, bench.found, distance(bench, sound))
    if not left.matters:
        return cause
    trials = trials_of(case, bench, [])
    holds = [*trials[:1], *inside.suspicions(bench, max(REPRODUCED, enough_of(case, bench)))[:1]]
    best = max((one for one in holds if one.holds), key=lambda one: one.score, default=None)
    of = "what is left of the error"
    return replace(cause, second=unknown(left.share) if best is None else reproduced(best.kind, best, trials, of=of))


def exchanged(case: Case) -> Cause | None:
    """The weights or the ranges, where putting the right ones into the candidate's own graph mends it."""
    assert case.found is not None
    try:
        found = (
            exchange.narrow(case)
            or exchange.weights(case)
            or exchange.ranges(case)
            or quantizers(case)
            or rebuilt(case)
        )
    except ToolchainError:  # the candidate's graph cannot be run here: other experiments must speak
        return None
    return None if found is None else shown(found)


def by_structure(case: Case, rung: Rung, changed: Sequence[Change], trials: Sequence[Trial]) -> Cause:
    """Operators that the candidate's graph has otherwise; unexplained where there are none."""
    own = rung.name == "artifact as found" and case.found is not None
    if own and (stranger := another_network(case)) is not None:
        return Cause("stale or wrong weights", stranger, "build it from the source", trials)
    if own and not integers_are_the_sources(case):
        changed = [change for change in changed if change.kind != "quantization"]
    if changed and own and (written := operators.written_otherwise(case, changed)) is not None:
        return replace(shown(written), trials=trials)
    if rung.name == "compiled artifact" and case.target.toolchain == "onnxruntime":
        told = "the graph answers well without ONNX Runtime's optimizer: the operators that it fuses round otherwise"
        return Cause("fusion", told, None, trials)
    best = (
        f"; the best of {len(trials)} hypotheses explains {percent.whole(max(trials[0].score, 0))} of the error"
        if trials
        else ""
    )
    listed = "; ".join(change.sentence for change in changed[:LISTED])
    untried = f"; written otherwise, which could not be shown to explain it: {listed}" if own and changed else ""
    return Cause("unexplained", f"no experiment explains {rung.name}{best}{untried}", None, trials)
