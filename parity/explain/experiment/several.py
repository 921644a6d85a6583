"""More than one defect: what remains once the first is undone, and two mistakes that explain the answers only together.

In: a `Case`, and what its single experiments found. Out: how much remains, or the second cause. The rule: a second cause
is named where undoing it too takes away most of what remained; what then still remains is said, not passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from compile.errors import ToolchainError
from parity.explain.experiment import exchange
from parity.explain.experiment.case import Case, in_floors
from parity.explain.experiment.ladder import WORTH
from parity.explain.graph.simulate import Batch
from parity.explain.mistake import postprocessing, preprocessing
from parity.explain.mistake.hypotheses import INDEPENDENT, Bench, Hypothesis, Trial, distance, tried
from parity.explain.mistake.screening import SCREENED_ROWS, halves_of_few

QUIET = 1e-6
"""Noise over signal (60 dB) below which what is left is quieter than eight bits ever are: beside a first error larger than the
answers themselves, a second cause that would be told alone is far less than `WORTH`."""
HALVED = 0.5
ABOUT = 400
"""How many pairs there are where inputs are pictures."""
TAKEN = 3
"""How many single mistakes are tried with every other one; how many of the pairs all sampled rows decide about."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What remains of an error once one cause is undone: the share of its energy, and whether that is worth a word."""

    share: float
    matters: bool
    audible: bool = False
    """Not worth a word beside the first, and yet no rounding: told where an experiment explains it."""


def rest(case: Case, sound: Sequence[Batch], found: Sequence[Batch], before: float, *, unfollowed: float = 0.0) -> Rest:
    """Where the candidate stands beside a sound side that has its first defect too, or without it; `before`: with it.

    `unfollowed`: the share of what varies in the candidate that the first defect does not reproduce.

    What the policy allows between two float compiles is nothing, and what quantizing the sound graph brings is little.
    """
    left = distance(case.between(sound, found), sound)
    share = max(left / before if before else 0.0, unfollowed)
    if (share <= WORTH and left <= QUIET) or in_floors(case, sound, found) <= case.scale.allowed:
        return Rest(share, matters=False)
    exact, fresh = case.answers_of(case.exact), case.answers_of(case.fresh)
    beyond = left > INDEPENDENT * distance(case.between(exact, fresh), exact)
    return Rest(share, matters=beyond and share > WORTH, audible=beyond and share <= WORTH)


def beneath(case: Case, mistake: Trial) -> exchange.Exchange | None:
    """Weights or ranges of the candidate that are wrong as well, once a mistake is done to the sound side too."""
    if case.found is None:
        return None
    truth = mistake.predict()
    return exchange.weights(case, truth) or exchange.ranges(case, truth)


def pairs(bench: Bench, singles: Sequence[Trial]) -> list[Trial]:
    """Two mistakes around the model at once, the best first: two with the inputs, or one there and one with an output.

    A few rows pick them, all sampled rows decide; both must be needed: alone neither leaves less than twice as much.
    """
    few = halves_of_few(bench, SCREENED_ROWS, ABOUT)
    picked = [one for one in tried(few, list(_both(few, singles)), "pairs of mistakes") if one.score >= HALVED]
    names = {_starts(one.name) for one in picked[:TAKEN]}
    least = min((one.left for one in singles), default=np.inf)
    found = tried(bench, [one for one in _both(bench, singles, names) if _starts(one.name) in names])
    return [one for one in found if one.left < HALVED * least]


def _starts(name: str) -> str:
    """A pair by its mistakes alone: what is fitted differs from rows to rows."""
    return name.translate(str.maketrans("", "", "0123456789.,+-[]"))


def _both(bench: Bench, singles: Sequence[Trial], of: Collection[str] | None = None) -> Iterator[Hypothesis]:
    """Every pair; those with an output's mistake are fitted to what the input's mistake makes of the sound answers.

    `of`: nothing is run for pairs of other names.
    """
    entering = [one for one in preprocessing.suspicions(bench) if one.inputs is not None]
    score = {one.name: one.score for one in singles}
    likely = sorted(entering, key=lambda one: -score.get(one.name, 0.0))[:TAKEN]
    for one, other in product(likely, entering):
        if one is not other and (other not in likely or likely.index(one) < likely.index(other)):
            yield _in_turn(bench, one, other)
    for one in entering:
        if bench.pace.over or (of is not None and not any(name.startswith(_starts(one.name)) for name in of)):
            continue
        try:
            bent = replace(bench, sound=one.predict())
        except ToolchainError:  # the sound graph takes no such input
            continue
        for other in postprocessing.suspicions(bent, {}):
            remedy = f"{one.remedy}, and {other.remedy}"
            yield Hypothesis(f"{one.name}, and {other.name}", remedy, other.predict)


def _in_turn(bench: Bench, one: Hypothesis, other: Hypothesis) -> Hypothesis:
    """One mistake with the inputs after another."""

    def predict() -> list[Batch]:
        assert one.inputs is not None
        assert other.inputs is not None
        return bench.answers_on(other.inputs(one.inputs(bench.batches)))

    return Hypothesis(f"{one.name}, and {other.name}", f"{one.remedy}, and {other.remedy}", predict)
