"""How many rows an experiment may take: all that it wants on a fast network, fewer where each row is dear; and when to stop.

In: what a row takes, and how long all experiments together may. Out: rows, and what was left out. The rule: a fast network
loses nothing; what was left out for lack of time is told, with how many there were.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

PASS = 1 / 60
"""The share of the time that one run over the whole sample may take."""
FAMILY = 1 / 6
"""The same for a family of hypotheses on few rows, or for a fit."""
DECIDING = 1 / 12
"""The same for all rows to decide about what a few rows did not rule out."""
LEAST_DECIDED = 2


@dataclass(slots=True)
class Pace:
    """Seconds a row, seconds for all experiments since `clock` said `started`; without them, nothing is ever too slow."""

    row_s: float = 0.0
    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic
    started: float = field(default=-math.inf)
    left_out: Counter[str] = field(default_factory=Counter)
    fewest: int | None = None
    """On how few rows a family was tried, where that is fewer than it wanted."""

    def rows(self, wanted: int, runs: int, share: float = FAMILY) -> int:
        """So many rows in each of so many runs; one at least."""
        if not self.row_s or math.isinf(self.seconds):
            return wanted
        return max(1, min(wanted, int(self.seconds * share / (self.row_s * max(runs, 1)))))

    def runs(self, wanted: int, rows: int, share: float = DECIDING) -> int:
        """How many runs of so many rows, of those wanted."""
        if not self.row_s or math.isinf(self.seconds):
            return wanted
        return max(min(wanted, LEAST_DECIDED), min(wanted, int(self.seconds * share / (self.row_s * max(rows, 1)))))

    @property
    def over(self) -> bool:
        return self.clock() - self.started > self.seconds

    def told(self) -> str | None:
        """What was done on fewer rows and what was not tried at all, for a reader; None where nothing was."""
        few = [] if self.fewest is None else [f"hypotheses were ruled out by {self.fewest} rows"]
        out = ", ".join(f"{count} {what}" for what, count in self.left_out.items())
        some = [*few, *([f"not tried for lack of time (`--minutes`): {out}"] if out else [])]
        return f"a row takes {self.row_s:.2g} s: {'; '.join(some)}" if some else None
