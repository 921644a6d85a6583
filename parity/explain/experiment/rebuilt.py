"""The artifact beside a rebuild: numbers within the source's rounding, and yet not those that the line gives.

In: a `Case` with a candidate's graph. Out: whose numbers are others, and how much of the error goes with the rebuild's in
their place. The rule: they were changed only if one recipe made both: the rebuild is bit for bit what was recorded, or, where
nothing was, nine tenths of every tensor, or half of all tensors, are the rebuild's own. Otherwise another recipe has rounded
the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from compile import percent
from parity.explain.experiment.case import Case
from parity.explain.experiment.exchange import MOST_LEFT, SHOWN, Exchange, share_gone
from parity.explain.experiment.stranger import integers_are_the_sources
from parity.explain.graph.gaps import facing
from parity.explain.graph.weights import Key, Weight, weights_of, with_arrays

KEPT = 0.9
"""Share of each tensor that another recipe would not leave as it is: any other scale or rounding moves far more."""


@dataclass(frozen=True, slots=True)
class Other:
    """One of the candidate's tensors, the rebuild's in its place, and how many of its numbers differ."""

    weight: Weight
    rebuilt: Weight
    count: int

    @property
    def kept(self) -> float:
        return 1 - self.count / self.weight.array.size


def rebuilt(case: Case) -> Exchange | None:
    """The rebuild's numbers in the candidate, wherever they are others."""
    assert case.found is not None
    sound = case.sound_before("artifact as found")
    theirs = weights_of(case.found)
    other = _others(weights_of(sound), theirs)
    if not other:
        return None
    mended = with_arrays(case.found, {key: one.rebuilt.array for key, one in other.items()})
    gone = share_gone(case, sound, mended, None)
    if gone <= MOST_LEFT:
        return None
    modules = list(dict.fromkeys(one.weight.module for one in other.values()))
    put = f"with the rebuild's in their place {percent.whole(gone)} of the error is gone"
    if _changed(case, other, theirs) or not any(one.weight.is_integer for one in other.values()):
        told, remedy = f"{_counted(other)} {_proof(case)}", "build it again from the source"
        return Exchange("stale or wrong weights", f"{told}; {put}", remedy, modules, mended)
    if not integers_are_the_sources(case):
        return None
    told = f"{len(other)} of the artifact's {len(theirs)} weight tensors are the source's, rounded by another recipe"
    return Exchange("quantization", f"{told}; {put}", "build it again", modules, mended)


def _others(ours: Mapping[Key, Weight], theirs: Mapping[Key, Weight]) -> dict[Key, Other]:
    found = {}
    for key, weight in theirs.items():
        own = facing(ours[key], weight, key, key) if key in ours else weight
        if own.array.shape == weight.array.shape and (count := int(np.count_nonzero(own.array != weight.array))):
            found[key] = Other(weight, own, count)
    return found


def _changed(case: Case, other: Mapping[Key, Other], theirs: Mapping[Key, Weight]) -> bool:
    """Whether one recipe made both: another would round most tensors otherwise, and most numbers of each."""
    if case.recipe == "unknown":
        rounded = [key for key, weight in theirs.items() if weight.is_integer]
        few = 2 * sum(key in other for key in rounded) <= len(rounded)
        return few or all(one.kept >= KEPT for one in other.values())
    return case.recipe == "same"


def _counted(other: Mapping[Key, Other]) -> str:
    """`1 of the 1,152 numbers of `second`, and …`."""
    told = [
        f"{one.count:,} of the {one.weight.array.size:,} numbers of `{one.weight.module}`" for one in other.values()
    ]
    more = f" and of {len(told) - SHOWN} more tensors" if len(told) > SHOWN else ""
    return f"{', '.join(told[:SHOWN])}{more}"


def _proof(case: Case) -> str:
    if case.recipe == "same":
        return "were changed after the artifact was built: a rebuild is bit for bit what was recorded, and has others"
    return "are not those that a build from the source gives"
