"""One candidate tried: what it was, which limits it met or missed and by how much, how fast it is beside float.

In: findings. Out: a `Trial`, and which of several is the best. The rule: passing is never traded for speed; among those that
miss, the nearest is kept, with the limit that it missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from compile.recipe import Recipe
from parity.limit import INTEGER_ONLY, KINDS, MARGINS
from parity.verdict import Finding, Measured, Sense, Status


@dataclass(frozen=True, slots=True)
class Met:
    """One limit that a candidate met or missed. `room`: how far its deciding bound is on the good side, in units of what the
    limit allows (1: as good as can be, 0: at the limit, below 0: missed; -inf: a law is broken)."""

    of: str
    sentence: str
    passed: bool
    room: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate's recipe and what came of it. `failed`: why it could not be built or run; `ratio`: time over float's, as
    value, low and high, where it was timed; `share`: of the work that is integer; `graph`: the digest of its graph."""

    number: int
    recipe: Recipe
    took_s: float
    failed: str | None = None
    met: tuple[Met, ...] = ()
    ratio: tuple[float, float, float] | None = None
    share: float = 0.0
    graph: str = ""

    @property
    def passes(self) -> bool:
        return self.failed is None and bool(self.met) and all(one.passed for one in self.met)

    @property
    def good_enough(self) -> bool:
        """Whether its answers meet every limit, though it may take too much time or room."""
        return self.failed is None and bool(self.met) and all(one.passed or one.of in INTEGER_ONLY for one in self.met)

    @property
    def worst(self) -> Met | None:
        """The limit that is missed by most, or that is met with least room."""
        return min(self.met, key=lambda one: (one.passed, one.room), default=None)

    @property
    def reason(self) -> str | None:
        """Why it does not pass; None where it does."""
        if self.passes:
            return None
        return self.failed or (self.worst.sentence if self.worst is not None else "nothing was measured of it")


def met(finding: Finding) -> Met:
    """A finding as it is remembered of a candidate."""
    passed = finding.status is Status.PASS
    return Met(finding.of or finding.metric, finding.sentence, passed, _room(finding))


def _room(finding: Finding) -> float:
    if finding.of not in KINDS:  # a law: it holds or it does not
        return math.inf if finding.status is Status.PASS else -math.inf
    bound, perfect = deciding(finding.measured, finding.sense), _perfect(finding)
    allowed = abs(perfect - finding.limit) if math.isfinite(perfect) else abs(finding.limit)
    beyond = bound - finding.limit if finding.sense == "at_least" else finding.limit - bound
    return (
        beyond / (allowed or 1.0) if math.isfinite(bound) else -math.inf if beyond < 0 or math.isnan(bound) else beyond
    )


def deciding(measured: Measured, sense: Sense) -> float:
    """The bound that must be on the good side of the limit."""
    return measured.low if sense == "at_least" else measured.high


def _perfect(finding: Finding) -> float:
    """What a candidate equal to its source measures: no difference, or the good end of what the metric can be."""
    kind = KINDS[finding.of]  # type: ignore[index]  # asked before
    if kind.bounds[0] in MARGINS:
        return 1.0 if finding.metric == "correct, relative" else 0.0
    return kind.span[1] if finding.sense == "at_least" else kind.span[0]


def best(trials: Iterable[Trial]) -> Trial | None:
    """The fastest that passes; where none does, the one whose worst limit is missed by least."""
    return min(trials, key=_rank, default=None)


def _rank(trial: Trial) -> tuple[bool, float]:
    if trial.passes:
        return False, trial.ratio[0] if trial.ratio is not None else math.inf
    return True, math.inf if trial.failed or trial.worst is None else -trial.worst.room


def gave(trial: Trial) -> str:
    """What came of a trial, in a sentence."""
    if trial.passes:
        return "passes" if trial.ratio is None else f"passes, {trial.ratio[0]:.2f} × float's time"
    return f"misses: {str(trial.reason).partition('; about ')[0]}"


def described(recipe: Recipe, base: Recipe | None = None) -> str:
    """A recipe in a few words: all of it, or what it changes of another."""
    parts = [
        f"{field.name} {_value(getattr(recipe, field.name))}"
        for field in fields(Recipe)
        if field.name != "keep_float" and (base is None or getattr(base, field.name) != getattr(recipe, field.name))
    ]
    kept = [name for name in recipe.keep_float if base is None or name not in base.keep_float]
    if kept:
        parts.append(f"float: {', '.join(kept[:3])}{f' and {len(kept) - 3} more' if len(kept) > 3 else ''}")
    return "; ".join(parts) or "as configured"


def _value(value: Any) -> str:
    return {True: "on", False: "off", None: "off"}[value] if value is None or isinstance(value, bool) else str(value)
