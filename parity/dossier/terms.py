"""What decides besides the policy: as text, and what of it is another than it was.

In: the configs of a model and its targets, or the facts of two runs. Out: terms by names that stay when a value changes, and
the differences; pure. The rule: whatever may turn a "no" into a "yes" without an edit of the policy is a term.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compile.config import ModelFile, TargetFile, TargetUse
from parity.dossier.document import Direction, LimitChange, PolicyFact, Target

SUITE = "suite"
SHOWN = 12
"""Digits of a suite's digest."""
Missing = tuple[tuple[str, ...], tuple[str, ...]]


def judged_as(config: ModelFile, targets: Mapping[str, TargetFile], suite: str | None = None) -> dict[str, str]:
    """The task, the baseline, what prepares inputs, the suite, and what is asked of each target; no term where nothing is said."""
    task = config.task.model_dump(mode="json", exclude_none=True)
    terms = {"task" if name == "kind" else f"task.{name}": _text(value) for name, value in task.items()}
    if config.baseline:
        terms["baseline"] = ", ".join(config.baseline)
    if config.preprocess is not None:
        terms["preprocess"] = config.preprocess
    if suite is not None:
        terms[SUITE] = suite
    return terms | {target_term(use.name): _asked(use, targets[use.name]) for use in config.uses}


def suite_term(rows: int, digest: str) -> str:
    """A suite by the beginning of its digest, and the rows that count: another one after a verdict is a second try."""
    return f"{digest[:SHOWN]} ({rows:,} rows)"


def with_suite(terms: Mapping[str, str], rows: int | None, digest: str | None) -> dict[str, str]:
    """Terms of a dossier that says its suite apart, as older ones do."""
    return dict(terms) if rows is None or digest is None else {SUITE: suite_term(rows, digest), **terms}


def unchanged(was: Mapping[str, str], now: Mapping[str, str], suite: str | None) -> bool:
    """Whether these terms are the same, and the suite too, by its digest, where both sides say it."""
    tried = was.get(SUITE)
    other = tried is not None and suite is not None and not tried.startswith(suite[:SHOWN])
    return not other and {name: term for name, term in was.items() if name != SUITE} == now


def target_term(name: str) -> str:
    """The name of the term that says what is asked of a target."""
    return f"target {name}"


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else repr(value)


def _asked(use: TargetUse, target: TargetFile) -> str:
    """Whether a release needs it, what it is judged beside, and which limits and which share of integers bind it."""
    needed = "required" if use.required else f"not required ({use.why})"
    share = f", at least {target.quantized_share!r} of it integer" if target.precision == "int8" else ""
    return f"{needed}, {target.role}, {target.precision}{share}"


def terms_changed(old: PolicyFact, new: PolicyFact) -> tuple[LimitChange, ...]:
    """Terms besides the policy that were edited; nothing where one side does not say them, as no run says its suite that judged
    no target."""
    if old.judged_as is None or new.judged_as is None:
        return ()
    found = edits(old.judged_as, new.judged_as)
    return tuple(one for one in found if one.limit != SUITE or None not in (one.before, one.after))


def edits(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[LimitChange]:
    """The terms that are another, old and new; which way an edit works nobody can say in general."""
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        direction: Direction = "added" if before is None else "removed" if after is None else "changed"
        if before != after:
            yield LimitChange(limit=name, before=before, after=after, direction=direction)


def limits_missing(was: Target | None, now: Target | None) -> Missing:
    """The limits that were judged then and are not now, and the other way; where nothing was judged, its status says so."""
    before, after = _judged(was), _judged(now)
    if was is None or now is None or before is None or after is None:
        return (), ()
    if was.status != now.status and not (before and after):
        return (), ()
    return tuple(one for one in before if one not in after), tuple(one for one in after if one not in before)


def _judged(target: Target | None) -> tuple[str, ...] | None:
    """Each limit of the policy that was met with a finding, and the side; None of a run that did not write which."""
    if target is None:
        return ()
    found = [one for one in target.findings if one.unit != "breaches"]
    if any(one.of is None for one in found):
        return None
    return tuple(dict.fromkeys(f"{str(one.of).replace('_', ' ')} against {one.against}" for one in found))
