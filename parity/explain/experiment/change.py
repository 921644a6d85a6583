"""One thing that a candidate's graph has otherwise than the sound one, as it is suspected, put right and told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Found = Literal["export", "fusion", "runtime precision", "quantization"]
LONGEST = 40


@dataclass(frozen=True, slots=True)
class Change:
    """One module that the candidate computes by other operators or with other attributes."""

    module: str
    kind: Found
    sentence: str
    shows_in: frozenset[str] = frozenset()
    """Where a module that is gone shows instead: in those that read what it gave."""
    read_by: frozenset[str] = frozenset()
    """Who reads a module that ends in another operator: no tensor of the source's stands beside what it gives, so that only
    they can show it."""
    extra: bool = False
    """Whether the sound graph has no such module at all."""

    @property
    def modules(self) -> frozenset[str]:
        return self.shows_in | {self.module}


def shortened(value: object) -> str:
    """A value as a reader can take it in."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
