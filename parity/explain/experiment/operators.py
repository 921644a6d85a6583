"""Modules that a candidate computes by other operators: the sound graph's put in, and whether the error goes with them.

In: a `Case`, `Change`s. Out: those of them that the error needs, and the candidate without them. The rule: other operators
are named where putting the sound ones in takes most of the error away, and each of those named has its share in that. What
only quantizes otherwise is listed as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from compile import percent
from compile.errors import ToolchainError
from parity.explain.experiment.case import Case, in_floors
from parity.explain.experiment.change import Change
from parity.explain.experiment.exchange import MOST_LEFT, Exchange, share_gone, suspected_weights
from parity.explain.experiment.structure import changes
from parity.explain.graph.graft import with_modules

if TYPE_CHECKING:
    import onnx

MOST_TRIED = 16
"""So many changed modules are tried one by one; of more, all or none."""
LISTED = 3
ITS_SHARE = 1e-3
"""The share of the error that a module's operators must be needed for."""


@dataclass(frozen=True, slots=True)
class Undone:
    """Changes that were put right, the candidate then (None: it cannot be run so), the share of the error that went."""

    changed: Sequence[Change]
    mended: onnx.ModelProto | None
    gone: float
    rounds: bool = False
    """Whether what is left is no more than rounding."""


def written_otherwise(case: Case, changed: Sequence[Change]) -> Exchange | None:
    """The changes that the error goes with; where there are none, what only quantizes otherwise."""
    able = [change for change in changed if change.kind != "quantization"]
    undone = _needed(case, able) if able else Undone((), None, 0.0)
    if undone.gone <= MOST_LEFT:  # what is gone may show in a module that has its place in one graph only
        every = [change for change in _all(case) if change.kind != "quantization"]
        undone = _needed(case, every) if len(every) > len(able) else undone
    if undone.gone > MOST_LEFT:
        return _mends(undone, "with the source's operators in their place")
    left = [change for change in changed if change not in able]
    return _said(left, None, "") if left else None


def put_between(case: Case, changed: Sequence[Change]) -> Exchange | None:
    """Modules that the source's graph has nothing of: taken out, which is to let those that read them read as they should."""
    others = {change.module for change in changed if not change.extra}
    extra = [change for change in changed if change.extra and not change.read_by & others]
    undone = _grafted(case, extra, "readers") if extra else Undone((), None, 0.0)
    return _mends(undone, "without these") if undone.gone > MOST_LEFT else None


def over_wrong_weights(case: Case, changed: Sequence[Change]) -> tuple[Exchange, Exchange] | None:
    """Other operators and wrong weights that mend the candidate only together, and then wholly."""
    for suspicion, sound in suspected_weights(case):
        assert suspicion.mended is not None
        written = written_otherwise(replace(case, found=suspicion.mended), changed)
        if written is None or written.mended is None:
            continue
        left = in_floors(case, case.answers_of(sound), case.answers_of(written.mended))
        if left <= case.scale.allowed:
            told = f"{suspicion.sentence}; with these put right too, nothing of the error is left"
            return written, replace(suspicion, sentence=told)
    return None


def _all(case: Case) -> list[Change]:
    assert case.found is not None
    return changes(case.sound_before("artifact as found"), case.found)


def _mends(undone: Undone, how: str) -> Exchange:
    return _said(undone.changed, undone.mended, f"; {how} {percent.whole(undone.gone)} of the error is gone")


def _said(changed: Sequence[Change], mended: onnx.ModelProto | None, after: str) -> Exchange:
    more = f"; and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    listed = "; ".join(change.sentence for change in changed[:LISTED])
    modules = list(dict.fromkeys(change.module for change in changed))
    return Exchange(changed[0].kind, f"{listed}{more}{after}", "build it again from the source", modules, mended)


def _needed(case: Case, changed: Sequence[Change]) -> Undone:
    """All changes put right, then without those that the error does not need."""
    best = _put_right(case, changed)
    if best.gone <= MOST_LEFT or len(changed) > MOST_TRIED:
        return best
    for change in sorted(changed, key=lambda one: -len(one.modules)):  # what shows in many modules proves the least
        fewer = [one for one in best.changed if one.module != change.module]
        attempt = _put_right(case, fewer) if fewer else best
        if attempt.gone >= best.gone - ITS_SHARE and attempt.rounds >= best.rounds:
            best = attempt
    return best


def _put_right(case: Case, changed: Sequence[Change]) -> Undone:
    """The candidate with the sound graph's operators in the changed modules: paired by place, else by the tensors' names."""
    attempt = _grafted(case, changed, "place")
    return attempt if attempt.gone > MOST_LEFT else max(attempt, _grafted(case, changed, "name"), key=_gone)


def _gone(one: Undone) -> float:
    return one.gone


def _grafted(case: Case, changed: Sequence[Change], way: Literal["place", "name", "readers"]) -> Undone:
    assert case.found is not None
    sound = case.sound_before("artifact as found")
    read_by = {module for change in changed for module in change.read_by} if way == "readers" else set()
    modules = list(dict.fromkeys([module for change in changed for module in change.modules] + sorted(read_by)))
    mended = with_modules(sound, case.found, modules, by_name=way == "name")
    if mended is None:
        return Undone(changed, None, 0.0)
    try:
        left = in_floors(case, case.answers_of(sound), case.answers_of(mended))
    except ToolchainError:  # what was put in does not fit the graph
        return Undone(changed, None, 0.0)
    return Undone(changed, mended, share_gone(case, sound, mended, None), left <= case.scale.allowed)
