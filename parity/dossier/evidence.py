"""What else speaks about a target, as facts: its speed, the cause of what differs, and the trial of the judge itself."""

from __future__ import annotations

from parity.dossier.fact import Fact


class Speed(Fact):
    """Latency of one call. `ratio`: artifact over its float twin, call by call in alternation."""

    calls: int
    p50_s: float
    p95_s: float
    p99_s: float
    float_p50_s: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None


class Rung(Fact):
    name: str
    status: str
    why: str
    differ: int | None
    n: int | None
    sqnr_db: float | None


class Tensor(Fact):
    module: str
    op: str
    sqnr_db: float | None
    local_sqnr_db: float | None


class SecondCause(Fact):
    """What remains once the cause is undone."""

    cause: str
    sentence: str
    remedy: str | None = None


class Cause(Fact):
    """What `lockstep explain` found, or in `missing` why there is nothing."""

    missing: str | None
    cause: str | None = None
    explained: bool | None = None
    sentence: str | None = None
    second: SecondCause | None = None
    rungs: tuple[Rung, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    first: Tensor | None = None
    worst: Tensor | None = None
    suggestion: str | None = None
    reproduce: str | None = None

    @property
    def tried(self) -> str | None:
        """What to try, or what was tried in vain."""
        if self.suggestion is None:
            return None
        vain = self.suggestion.removeprefix("none that helps: ")
        return f"To try: {vain}." if vain == self.suggestion else f"Tried in vain: {vain}."

    @property
    def told(self) -> str:
        """The sentence, and the one about what remains, as one text."""
        if self.second is None:
            return _ended(self.sentence)
        more = f"A second cause remains: {self.second.cause}: {_ended(self.second.sentence)}"
        return f"{_ended(self.sentence)} {more}"


def _ended(sentence: str | None) -> str:
    """A sentence with its full stop; nothing stays nothing."""
    return f"{sentence.rstrip('.')}." if sentence else ""


class Planted(Fact):
    """One kind of planted fault at one size: how many, how many of them had to be caught, how many were, and how many that
    had to be were not."""

    kind: str
    size: float
    planted: int
    must_catch: int
    caught: int
    missed: int


class Tolerance(Fact):
    """What a fixed tolerance would have done: of so many faults that had to be caught, and of so many healthy ones."""

    tolerance: str
    caught: int
    must_catch: int
    false_alarms: int
    benign: int


class SelfTest(Fact):
    """What `lockstep selftest` found, or in `missing` why there is nothing."""

    missing: str | None
    planted: int | None = None
    must_catch: int | None = None
    caught: int | None = None
    benign: int | None = None
    false_alarms: int | None = None
    kinds: tuple[Planted, ...] = ()
    fixed: tuple[Tolerance, ...] = ()

    @property
    def sizes(self) -> list[float]:
        return sorted({one.size for one in self.kinds})

    @property
    def by_kind(self) -> dict[str, dict[float, Planted]]:
        """The curve of power of each kind: what was caught, size by size."""
        found: dict[str, dict[float, Planted]] = {}
        for one in self.kinds:
            found.setdefault(one.kind, {})[one.size] = one
        return found
