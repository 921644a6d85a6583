"""A cause as it is told: its class, its sentence, what to do, and what remains without it.

In: a trial that holds, or an exchange that mended the candidate. Out: a `Cause`. The rule: what remains and is not explained
makes the whole unexplained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from compile import percent
from parity.explain.experiment.exchange import Exchange
from parity.explain.mistake.hypotheses import Trial

if TYPE_CHECKING:
    import onnx

Kind = Literal[
    "none",
    "export",
    "runtime precision",
    "quantization",
    "fusion",
    "pre/post-processing",
    "stale or wrong weights",
    "unexplained",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """A class, the sentence that says it, what to do, how the trials went, and the modules it is about."""

    kind: Kind
    sentence: str
    remedy: str | None = None
    trials: Sequence[Trial] = ()
    modules: Sequence[str] = ()
    mended: onnx.ModelProto | None = None
    """The candidate's graph without this defect, where it could be undone."""
    second: Cause | None = None
    """What remains when this one is undone."""
    share: float = 1.0
    """How much of the error it reproduces, where that is all that shows it."""

    @property
    def explained(self) -> bool:
        return self.kind != "unexplained" and (self.second is None or self.second.explained)


def reproduced(
    kind: Kind, best: Trial, trials: Sequence[Trial], second: Cause | None = None, *, of: str = "the error"
) -> Cause:
    """What was done to the sound side and answers as the candidate does."""
    sentence = f"{best.name}; done to the source's graph, this reproduces {percent.share(best.score, 1)} of {of}"
    return Cause(kind, sentence, best.remedy, trials, second=second, share=best.score)


def unknown(share: float) -> Cause:
    """What remains, where nothing explains it."""
    return Cause("unexplained", f"no experiment explains the {percent.share(share, 1)} of the error that are left")


def shown(found: Exchange) -> Cause:
    """What was put right in the candidate."""
    return Cause(found.kind, found.sentence, found.remedy, modules=found.modules, mended=found.mended)
