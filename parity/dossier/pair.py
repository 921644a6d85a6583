"""One target beside one side, as facts: how many answers differ, of which kinds, where, and the inputs that show it."""

from __future__ import annotations

from typing import Literal

from parity.dossier.fact import Fact


class Cell(Fact):
    """One feature of a row: its value, and how many standard deviations it lies from the suite's mean."""

    name: str
    value: float
    z: float | None


class Shown(Fact):
    """One input as a person can take it in: exactly one of the kinds is filled."""

    kind: Literal["picture", "wave", "table", "text", "ids", "numbers"]
    name: str
    note: str = ""
    picture: str = ""
    size: tuple[int, int] = (0, 0)
    wave: tuple[tuple[float, float], ...] = ()
    marked: tuple[float, float] = (0.0, 1.0)
    cells: tuple[Cell, ...] = ()
    text: str = ""


class Flip(Fact):
    """A row that is answered differently. `right`: whether reference and candidate are right by the label."""

    row: int
    id: str
    label: str | None
    reference: str
    candidate: str
    reference_sure: float | None
    candidate_sure: float | None
    drift: float
    right: tuple[bool, bool] | None
    inputs: tuple[Shown, ...] = ()


class Confusion(Fact):
    reference: str
    candidate: str
    count: int


class SliceFact(Fact):
    name: str
    n: int
    differ: int
    value: float
    low: float
    high: float


class Series(Fact):
    name: str
    counts: tuple[int, ...]


class Shift(Fact):
    """How confidence, score or error is spread over the rows, and how far it moved."""

    name: str
    edges: tuple[float, ...]
    series: tuple[Series, ...]
    flips: tuple[int, ...]
    mark: float | None
    median: float
    p99: float
    largest: float


class Pair(Fact):
    """One target beside one side: the source, or the cloud baseline `other`."""

    against: Literal["source", "baseline"]
    other: str
    n: int
    differ: int
    share: float
    low: float
    high: float
    agree: float
    agree_low: float
    groups: int | None
    lost: int | None
    gained: int | None
    both_right: int | None = None
    both_wrong: int | None = None
    sure: tuple[float, float] | None
    sure_name: str
    confusion: tuple[Confusion, ...]
    slices: tuple[SliceFact, ...]
    slices_total: int
    shift: Shift | None
    flips: tuple[Flip, ...]
    rule: str
    sentences: tuple[str, ...] = ()
