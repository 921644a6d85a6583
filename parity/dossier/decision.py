"""The two answers of the first screen: may this be shipped, and may the edge stand in for the cloud.

Facts in, an answer with its reason out; pure. It decides nothing that the verdicts did not: shipping is what the exit code
says, and standing in asks in addition for a cloud side that was seen and, where answers differ, for a cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from compile import percent
from compile.errors import PASSED, TOOLCHAIN, UNDECIDED
from parity.dossier import figures
from parity.dossier.document import Answer, FindingFact, Target
from parity.dossier.judged import brief_reason, deciding, reason
from parity.exit_code import ORDER, of_status

ROLL_OUT = (
    "`lockstep artifacts {model}` publishes a version of it, `lockstep promote {model} VERSION staging` names it for fleets, and "
    "a device takes it by `lockstep pull` and tries it by `lockstep verify --run`."
)


def exit_code(targets: Sequence[Target]) -> int:
    """The code of the run: the first of 2, 3, 1, 4, 0 that a required target gives."""
    codes = {code_of(target) for target in targets if target.required} | {PASSED}
    return next(code for code in ORDER if code in codes)


def code_of(target: Target) -> int:
    return of_status(target.status, target.deferral_allowed)


def ship(targets: Sequence[Target], model: str) -> Answer:
    """May this be shipped?"""
    code = exit_code(targets)
    stopping = [target for target in targets if target.required and code_of(target) == code]
    if code == PASSED:
        return _fit(targets, model)
    first, more = stopping[0], len(stopping) - 1
    also = f" ({more} more: {', '.join(t.name for t in stopping[1:])})" if more else ""
    others = [target for target in targets if target.required and code_of(target) not in (PASSED, code)]
    beside = "".join(f"; besides, {t.name} {_verb(t)}: {brief_reason(t).removesuffix('.')}" for t in others)
    step = next((target.next for target in (*stopping, *others) if target.next), None)
    if code == UNDECIDED:
        return Answer(word="not yet", sentence=f"{first.name} {_verb(first)}{also}: {reason(first)}", next=step)
    return Answer(word="no", sentence=f"{first.name} {_verb(first)}{also}: {_then(reason(first), beside)}", next=step)


def _then(text: str, beside: str) -> str:
    return f"{text.removesuffix('.')}{beside}." if beside else text


def _verb(target: Target) -> str:
    return {TOOLCHAIN: "could not be built or run", UNDECIDED: "is undecided"}.get(code_of(target), "fails")


def _fit(targets: Sequence[Target], model: str) -> Answer:
    going = [target for target in targets if code_of(target) == PASSED]
    if not going:
        return Answer(word="no", sentence="No target is fit, so there is nothing to ship.")
    waiting = [target.name for target in going if target.status == "DEFERRED"]
    passed = len(going) - len(waiting)
    parts = [f"{passed} of {len(targets)} targets {'passes' if passed == 1 else 'pass'} every limit"]
    nearest = closest(going)
    if nearest is not None:
        target, found = nearest
        said = figures.said(found, (figures.opposite(found.against, target.baseline_used),))
        taken = figures.taken(found.used or 0.0)
        parts.append(f"Closest to its limit: {target.name}, whose {said}; {taken} of the allowance is used")
    if waiting:
        more = f" and {len(waiting) - 1} more go" if len(waiting) > 1 else " goes"
        parts.append(f"{waiting[0]}{more} out unjudged, as the policy allows")
    out = [target.name for target in targets if target not in going]
    if out:
        parts.append(f"{', '.join(out)} {'is' if len(out) == 1 else 'are'} left out, as the config allows")
    return Answer(word="yes", sentence=". ".join(parts) + ".", next=ROLL_OUT.format(model=model))


def closest(targets: Sequence[Target]) -> tuple[Target, FindingFact] | None:
    """The finding that takes up most of what its limit allows."""
    found = [(target, one) for target in targets for one in target.findings if one.used is not None]
    return max(found, key=lambda pair: pair[1].used or 0.0, default=None)


def stand_in(target: Target, cloud: Target | None = None) -> Answer:
    """May this edge target stand in for the cloud, which has to be right itself?"""
    if target.status != "PASS":
        word = "not yet" if code_of(target) == UNDECIDED or target.status == "DEFERRED" else "no"
        why = brief_reason(target)
        sentence = why if deciding(target) is None else why[:1].upper() + why[1:]  # an error may begin with a name
        return Answer(word=word if word == "no" else "not yet", sentence=sentence)  # type: ignore[arg-type]
    if target.baseline_used is None:
        return Answer(
            word="not yet", sentence="No cloud target is named as its baseline: only the source was compared."
        )
    if cloud is not None and cloud.status != "PASS":
        word = "not yet" if code_of(cloud) == UNDECIDED else "no"
        said = f"It passes beside {cloud.name}, but that one does not pass itself: {brief_reason(cloud)}"
        return Answer(word=word, sentence=said)  # type: ignore[arg-type]
    pairs = [pair for pair in target.pairs if pair.differ]
    cause = target.cause
    if pairs and cause.missing is not None:
        rows = f"{pairs[0].differ:,} of {pairs[0].n:,} answers differ"
        return Answer(word="not yet", sentence=f"Within every limit, but {rows} and nobody knows why. {cause.missing}")
    if pairs and cause.explained is False:
        return Answer(word="no", sentence=f"Within every limit, but nobody can say why answers differ: {cause.told}")
    passed_over = (
        f" {target.baseline_wanted} was wanted and not seen here."
        if target.baseline_wanted not in (None, target.baseline_used)
        else ""
    )
    known = f" The cause is known: {cause.told}" if pairs and cause.sentence else ""
    return Answer(word="yes", sentence=f"{_alike(target)}{passed_over}{known}")


def _alike(target: Target) -> str:
    pair = target.pair("baseline")
    if pair is None:
        return f"Every limit against {target.baseline_used} holds."
    same = f"{pair.n - pair.differ:,} of {pair.n:,}" if pair.differ else f"All {pair.n:,}"
    most = percent.at_most(pair.high)
    return f"{same} answers are those of {pair.other} (at most {most} differ, 95 % confidence)."
