"""A candidate that was built as the line builds it and changed afterwards: single numbers that no build gives.

In: a `Case` with a candidate's graph; or the constants of two IRs. Out: whose numbers were changed, and how many, or None. The
rule: it speaks only where the other tensors are, number for number, those of the sound graph, integers as integers; then no
other recipe and no other machine explains what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from parity.explain.case import Case
from parity.explain.exchange import MOST_LEFT, SHOWN, Exchange, share_gone
from parity.explain.gaps import ENOUGH_TO_TELL, facing, paired
from parity.explain.weights import Array, Key, Weight, weights_of, with_arrays

if TYPE_CHECKING:
    import onnx

K = TypeVar("K")
UNTOUCHED = 0.5
"""The share of the tensors that must be equal, number for number."""


def altered(case: Case) -> Exchange | None:
    """Numbers of the candidate's weights that are not those of the fresh graph, nor of the float graph where it is that."""
    assert case.found is not None
    theirs = weights_of(case.found)
    for sound in (case.fresh, case.exact):
        found = _beside(case, sound, theirs)
        if found is not None:
            return found
    return None


def _beside(case: Case, sound: onnx.ModelProto, theirs: Mapping[Key, Weight]) -> Exchange | None:
    assert case.found is not None
    ours = weights_of(sound)
    twins = {key: facing(ours[twin], theirs[key], twin, key) for key, twin in paired(ours, theirs).items()}
    changed = touched({key: one.array for key, one in twins.items()}, {key: theirs[key].array for key in twins})
    if not changed or any(twins[key].is_integer != theirs[key].is_integer for key in changed):
        return None
    mended = with_arrays(case.found, {key: twins[key].array for key in changed})
    gone = share_gone(case, sound, mended, None)
    if gone <= MOST_LEFT:
        return None
    counts = {key: (theirs[key].module, count, theirs[key].array.size) for key, count in changed.items()}
    told = f"{said(counts)}; with the built ones in their place {gone:.0%} of the error is gone"
    modules = list(dict.fromkeys(theirs[key].module for key in changed))
    return Exchange("stale or wrong weights", told, "build it again from the source's weights", modules, mended)


def touched(ours: Mapping[K, Array], theirs: Mapping[K, Array]) -> dict[K, int]:
    """How many numbers differ in the tensors that have such; none where too many tensors are others for that to be a change
    made afterwards."""
    counts = {key: int((ours[key] != theirs[key]).sum()) for key in theirs if ours[key].shape == theirs[key].shape}
    large = [key for key in theirs if theirs[key].size >= ENOUGH_TO_TELL]
    same = [key for key in large if counts.get(key) == 0]
    changed = {key: count for key, count in counts.items() if count}
    return changed if len(same) > UNTOUCHED * len(large) and len(counts) == len(theirs) else {}


def said(counts: Mapping[K, tuple[str, int, int]]) -> str:
    """Whose numbers differ, and how many. `counts`: module, how many differ, of how many."""
    told = [f"{count:,} of {size:,} in `{module}`" for module, count, size in counts.values()]
    more = f" and in {len(told) - SHOWN} more tensors" if len(told) > SHOWN else ""
    return f"numbers that no build from the source gives: {', '.join(told[:SHOWN])}{more}; all others are as built"
