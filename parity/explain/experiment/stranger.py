"""Is it the source's network at all? What the candidate stores, beside what the source stores.

In: a `Case` with a candidate's graph. Out: whether its integers are the source's weights; that it is another network. The
rule: what is called quantization has the source's weights, rounded to so many bits and no further off.
"""

from __future__ import annotations

from compile import percent
from compile.errors import ToolchainError
from parity.explain.experiment.case import Case
from parity.explain.experiment.exchange import MOST_LEFT
from parity.explain.graph.gaps import ENOUGH_TO_TELL, gaps, like, paired
from parity.explain.graph.integers import has_integer_layers
from parity.explain.graph.weights import Key, Weight, weights_of

Weights = dict[Key, Weight]


def integers_are_the_sources(case: Case) -> bool:
    """Whether each tensor that the candidate stores in integers decodes to the source's, or to the fresh graph's, within
    half of its own step. True where it stores none; False where operators hide some."""
    assert case.found is not None
    if has_integer_layers(case.found):
        return False
    try:
        theirs = {key: weight for key, weight in weights_of(case.found).items() if weight.is_integer}
        return not theirs or any(_have(weights_of(sound), theirs) for sound in (case.exact, case.fresh))
    except ToolchainError:
        return False


def _have(ours: Weights, theirs: Weights) -> bool:
    return paired(ours, theirs).keys() == theirs.keys() and not gaps(ours, theirs)


def another_network(case: Case) -> str | None:
    """That most of the candidate's weights have no place in the source's graph: nothing could be exchanged."""
    assert case.found is not None
    try:
        ours, theirs = weights_of(case.exact), weights_of(case.found)
    except ToolchainError:
        return None
    shapes = {one.array.shape for one in ours.values()}
    strange = {k: one for k, one in theirs.items() if not {one.array.shape, one.array.T.shape} & shapes}
    return _told(strange, theirs, "have shapes that the source has none of") or _of_other_numbers(ours, theirs)


def _of_other_numbers(ours: Weights, theirs: Weights) -> str | None:
    """The same of shapes that the source has too; of integers alone: floats may have been folded, or smoothed."""
    integers = {k: one for k, one in theirs.items() if one.is_integer and one.array.size >= ENOUGH_TO_TELL}
    twins = paired(ours, integers)
    strange = {k: w for k, w in integers.items() if k not in twins or not like(ours[twins[k]], w, twins[k], k)}
    return _told(strange, theirs, "are stored in integers that decode to nothing like the source's")


def _told(strange: Weights, of: Weights, why: str) -> str | None:
    share = sum(one.array.size for one in strange.values()) / max(sum(one.array.size for one in of.values()), 1)
    if share <= MOST_LEFT:
        return None
    largest = max(strange.values(), key=lambda one: one.array.size)
    return (
        f"the artifact holds another network: {len(strange)} of its {len(of)} weight tensors, {percent.whole(share)} of its "
        f"numbers, {why} (`{largest.module}`: {'×'.join(map(str, largest.array.shape))})"
    )
