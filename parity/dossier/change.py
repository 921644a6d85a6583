"""What changed since the last release, and which limits were edited since the last verdict.

Two dossiers in, the differences out; pure. The rule: a limit that was edited is always named, old and new, whichever way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from compile import percent
from parity.dossier import figures
from parity.dossier.document import Change, Direction, Dossier, LimitChange, LimitFact, PolicyFact, Target, TargetChange
from parity.dossier.terms import SUITE, edits, limits_missing, target_term, terms_changed, with_suite
from parity.policy import OF_SIZE

Key = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], str]
LAST_VERDICT = "the last verdict"
CLEAR_DROP = 0.02
"""The share of right answers whose loss is told where no margin says how much may be lost."""


@dataclass(frozen=True, slots=True)
class Before:
    """The last release: its name and its facts, or why they could not be read; nothing at all for a first release."""

    version: str | None = None
    facts: Dossier | None = None
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """What is compared with it."""

    source_digest: str
    suite_digest: str | None
    suite_inputs_digest: str | None
    suite_columns: tuple[str, ...]
    policy: PolicyFact
    judged_before: PolicyFact | None
    targets: tuple[Target, ...]
    recipe: Mapping[str, str] = field(default_factory=dict)


def changed(before: Before, now: Now) -> Change:
    """Every difference that a release engineer asks for."""
    seen = now.judged_before
    judged = () if seen is None else limits_changed(seen, now.policy)
    old = before.facts
    released = () if old is None else terms_changed(_with_suite(old), now.policy)
    asked = () if seen is None else terms_changed(seen, now.policy)
    asked = tuple(
        one for one in asked if one.limit != SUITE or one not in released
    )  # what a release says of a suite is more
    if old is None:
        unread = before.unread
        first = f"{before.version} is there, but {unread}" if unread else "No other release was published before."
        return Change(
            since=before.version, digest=None, unread=unread, source=None, suite=None, policy=(), targets=(),
            policy_since_judged=judged, judged_as_since_judged=asked,
            sentences=(first, *_edited(_dated((), judged, "")), *_otherwise(_dated((), asked, ""))),
        )  # fmt: skip
    since = str(before.version)
    limits, targets = limits_changed(old.policy, now.policy), _targets(old, now.targets)
    named = {SUITE, *(target_term(one.name) for one in targets if one.artifact in ("added", "removed"))}
    terms = tuple(one for one in released if one.limit not in named)
    source = old.source_digest != now.source_digest
    suite = _other(old.suite_digest, now.suite_digest)
    inputs = suite and _other(old.suite_inputs_digest, now.suite_inputs_digest) is not False
    right = _source_right(old.targets), _source_right(now.targets)
    return Change(
        since=before.version,
        digest=old.release_digest,
        unread=None,
        source=source,
        suite=suite,
        suite_inputs=inputs,
        source_right=right,
        source_worse=_worse(right, now.policy, since, another=bool(suite)),
        policy=limits,
        policy_since_judged=judged,
        judged_as=terms,
        judged_as_since_judged=asked,
        targets=targets,
        sentences=(
            *_inputs(source, suite, inputs),
            *(_columns(old.suite_columns, now.suite_columns) if suite else ()),
            *_moved(right),
            *_otherwise(_dated(terms, asked, since)),
            *_edited(_dated(limits, judged, since)),
            *_quantized(old.recipe, now.recipe, since),
            *_built(targets),
            *_outcomes(targets),
        ),
    )


def _with_suite(old: Dossier) -> PolicyFact:
    said = None if old.policy.judged_as is None else with_suite(old.policy.judged_as, old.rows, old.suite_digest)
    return old.policy.model_copy(update={"judged_as": said})


def _other(was: str | None, now: str | None) -> bool | None:
    """Whether these digests differ; None where one is missing."""
    return None if was is None or now is None else was != now


def _source_right(targets: Sequence[Target]) -> float | None:
    """The share of rows that the source itself answers as the labels say: the same figure beside every target."""
    return next((target.right[0] for target in targets if target.right is not None), None)


def _inputs(source: bool, suite: bool | None, inputs: bool | None) -> list[str]:
    if suite and inputs:
        both = "The source model and the suite are others: figures then and now are of other rows."
        one = "The suite is another one: figures then and now are of other rows. The source model is the same."
        return [both if source else one]
    model = f"The source model is {'another one' if source else 'the same'}"
    if suite is None:
        return [f"{model}; the suite cannot be compared: then or now, no target was judged."]
    if suite:
        return [f"{model}.", "The suite's inputs are the same, its labels or columns are others."]
    return [f"{model}; the suite is the same." if source else "The source model and the suite are the same."]


def _columns(was: Sequence[str], now: Sequence[str]) -> list[str]:
    lost, more = [one for one in was if one not in now], [one for one in now if one not in was]
    found = [f"The suite no longer has {', '.join(lost)}."] if lost else []
    return [*found, f"The suite has {', '.join(more)} besides."] if more else found


def _moved(right: tuple[float | None, float | None]) -> list[str]:
    before, after = (percent.share(one) for one in right)
    if None in right or before == after:
        return []
    return [f"The source itself was right on {before} of the rows, now on {after}."]


def _worse(right: tuple[float | None, float | None], policy: PolicyFact, since: str, *, another: bool) -> str | None:
    """That the source itself lost more right answers than the policy lets an artifact lose."""
    before, after = right
    if before is None or after is None:
        return None
    margins = [
        one.bound * (before if one.kind == "relative_margin" else 1) for one in policy.limits if one.metric == "correct"
    ]
    if before - after <= min(margins, default=CLEAR_DROP):
        return None
    suite = ", by another suite" if another else ""
    return (
        f"Mind that the source itself got worse since {since}{suite}: it was right on {percent.share(before)} of the rows and "
        f"is on {percent.share(after)}. Parity with it says nothing of that."
    )


def _dated(
    released: Sequence[LimitChange], judged: Sequence[LimitChange], since: str
) -> Iterator[tuple[str, LimitChange]]:
    """Each edit once, with what it was made after: the last release, the last verdict, or both."""
    for one in released:
        yield f"{since} and since {LAST_VERDICT}" if one in judged else since, one
    yield from ((LAST_VERDICT, one) for one in judged if one not in released)


def _otherwise(terms: Iterable[tuple[str, LimitChange]]) -> list[str]:
    """Edits of what decides besides the policy; which way they work nobody can say in general."""
    return [
        f"Judged otherwise since {since}: {one.limit}: {one.before or 'none'} → {one.after or 'none'}."
        for since, one in terms
    ]


def _edited(limits: Iterable[tuple[str, LimitChange]]) -> list[str]:
    return [
        f"{'Policy' if one.besides else 'Limit'} {one.direction} since {since}: {'' if one.besides else f'{one.limit}: '}"
        f"{one.before or 'none'} → {one.after or 'none'}."
        for since, one in limits
    ]


def _quantized(was: Mapping[str, str], now: Mapping[str, str], since: str) -> list[str]:
    """What the config quantizes otherwise; nothing where the last dossier does not say how it did."""
    other = [f"{name} {was[name]} → {now[name]}" for name in now if name in was and was[name] != now[name]]
    return [f"Quantized otherwise since {since}: {', '.join(other)}."] if other else []


def _built(targets: Sequence[TargetChange]) -> list[str]:
    """Which artifacts are other bytes than those released, and which of them nobody judged here."""
    other = [
        f"{one.name}{' (not judged here)' if one.status[1] == 'DEFERRED' else ''}"
        for one in targets
        if one.artifact == "other"
    ]
    return [f"Other artifacts: {', '.join(other)}."] if other else []


def _outcomes(targets: Sequence[TargetChange]) -> list[str]:
    found = []
    for one in targets:
        if one.artifact in ("added", "removed"):
            found.append(f"{one.name} is {'new' if one.artifact == 'added' else 'no longer a target'}.")
        elif one.status[0] != one.status[1]:
            found.append(f"{one.name}: {one.status[0]} → {one.status[1]}.")
        if None not in one.differ and one.differ[0] != one.differ[1]:
            found.append(
                f"{one.name}: answers that differ from the source: {one.differ[0]:,} of {one.rows[0]:,} → "
                f"{one.differ[1]:,} of {one.rows[1]:,}."
            )
        if one.no_longer_judged:
            found.append(f"{one.name}: no longer judged: {', '.join(one.no_longer_judged)}.")
        if one.judged_too:
            found.append(f"{one.name}: judged now and not then: {', '.join(one.judged_too)}.")
    return found or ["Every target has the status it had, and as many answers that differ."]


def limits_changed(old: PolicyFact, new: PolicyFact) -> tuple[LimitChange, ...]:
    """Limits matched by metric, sides, precisions and columns; what has no match was added or removed."""
    was, now = _keyed(old), _keyed(new)
    found = [_limit(key, was.get(key), now.get(key)) for key in dict.fromkeys((*was, *now))]
    return (*(one for one in found if one is not None), *_besides(old, new))


def _besides(old: PolicyFact, new: PolicyFact) -> Iterator[LimitChange]:
    """Terms that are no limit: what may wait, what int8 is for, the route, when to roll back. Of what may wait fewer patterns
    are tighter and more are looser; others in their place are neither."""
    was, now = set(old.allow_deferred), set(new.allow_deferred)
    for one in edits(old.besides, new.besides):
        waits: Direction = "tightened" if now < was else "loosened" if now > was else "changed"
        if one.limit == "goal":
            yield _exemption(one)
        else:
            direction = waits if one.limit == "allow_deferred" else one.direction
            yield one.model_copy(update={"direction": direction, "besides": True})


def _exemption(goal: LimitChange) -> LimitChange:
    """A goal of size frees int8 from the limit on its latency; any other goal is what holds where none is named."""
    then, now = goal.before == OF_SIZE, goal.after == OF_SIZE
    if then == now:
        return goal.model_copy(update={"direction": "reworded"})
    before, after = ("exempt (`goal: size`)" if exempt else "judged" for exempt in (then, now))
    direction: Direction = "loosened" if now else "tightened"
    return LimitChange(limit="latency_ratio of int8", before=before, after=after, direction=direction)


def _keyed(policy: PolicyFact) -> dict[tuple[Key, int], LimitFact]:
    """Two limits of the same key are told apart by their order."""
    found: dict[tuple[Key, int], LimitFact] = {}
    for one in policy.limits:
        of = "" if one.metric == "worst_slice" else one.of
        key: Key = (one.metric, one.against, one.precision, one.by, of)
        found[key, sum(1 for k, _ in found if k == key)] = one
    return found


def _limit(key: tuple[Key, int], was: LimitFact | None, now: LimitFact | None) -> LimitChange | None:
    (metric, against, precision, by, of), _ = key
    name = f"{metric}{of}{' by ' + ', '.join(by) if by else ''} against {', '.join(against)} ({', '.join(precision)})"
    before, after = _bounds(was, now)
    if was is None or now is None:
        return LimitChange(limit=name, before=before, after=after, direction="added" if was is None else "removed")
    if was.smallest != now.smallest:
        before, after = (f"{text}, slices from {one.smallest} rows" for text, one in ((before, was), (after, now)))
    if before != after:
        looser = _loosened(was, now)
        return LimitChange(limit=name, before=before, after=after, direction="loosened" if looser else "tightened")
    if was.why != now.why:
        return LimitChange(limit=name, before=f"“{was.why}”", after=f"“{now.why}”", direction="reworded")
    return None


def _bounds(was: LimitFact | None, now: LimitFact | None) -> tuple[str | None, str | None]:
    """Both bounds as text; the confidence only where it was edited."""
    both = [None if one is None else figures.policy_limit(one) for one in (was, now)]
    if was is not None and now is not None and was.confidence == now.confidence:
        both = [None if text is None else text.partition(",")[0] for text in both]
    return both[0], both[1]


def _loosened(was: LimitFact, now: LimitFact) -> bool:
    """Whether more is allowed than before; another kind of bound counts as loosened, for nobody can say it is not."""
    if was.kind != now.kind or was.confidence > now.confidence or was.smallest < now.smallest:
        return True
    return now.bound < was.bound if was.kind == "at_least" else now.bound > was.bound


def _targets(old: Dossier, targets: Sequence[Target]) -> tuple[TargetChange, ...]:
    names = dict.fromkeys((*(t.name for t in targets), *(t.name for t in old.targets)))
    here = {target.name: target for target in targets}
    return tuple(_target(name, old.target(name), here.get(name)) for name in names)


def _target(name: str, was: Target | None, now: Target | None) -> TargetChange:
    one, other = (None if t is None else t.pair("source") for t in (was, now))
    if was is None or now is None:
        artifact = "added" if was is None else "removed"
    elif was.artifact is None or now.artifact is None:
        artifact = "unknown"
    else:
        artifact = "same" if was.artifact == now.artifact else "other"
    lost, more = limits_missing(was, now)
    return TargetChange(
        name=name,
        artifact=artifact,  # type: ignore[arg-type]
        status=(None if was is None else was.status, None if now is None else now.status),
        differ=(None if one is None else one.differ, None if other is None else other.differ),
        rows=(None if one is None else one.n, None if other is None else other.n),
        size_bytes=(None if was is None else was.size_bytes, None if now is None else now.size_bytes),
        p50_s=tuple(None if t is None or t.speed is None else t.speed.p50_s for t in (was, now)),  # type: ignore[arg-type]
        no_longer_judged=lost,
        judged_too=more,
    )
