"""The facts of one model run, typed, frozen and versioned: `dossier.json` is these and nothing else.

Every page, table and figure of a dossier is a rendering of this document: no renderer computes a figure. Law:
`parse(write(d)) == d`, and the same facts give the same bytes.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compile.errors import ConfigError
from parity.dossier import SCHEMA

Word = Literal["yes", "no", "not yet"]


class Fact(BaseModel):
    """Part of the document. Infinity and NaN are written as words, for JSON has neither."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Answer(Fact):
    """The answer to a question of the first screen, and the one sentence that says why."""

    word: Word
    sentence: str


class LimitFact(Fact):
    """One limit of the policy, as written."""

    metric: str
    kind: str
    bound: float
    against: tuple[str, ...]
    precision: tuple[str, ...]
    of: str
    by: tuple[str, ...]
    smallest: int
    confidence: float
    why: str


class PolicyFact(Fact):
    """What decides. `judged_as`: the terms that are not the policy's, such as the task; None where nobody wrote them."""

    name: str
    digest: str
    allow_deferred: tuple[str, ...]
    goal: str | None
    besides: dict[str, str]
    limits: tuple[LimitFact, ...]
    judged_as: dict[str, str] | None = None


class FindingFact(Fact):
    """One limit met by one measurement. `used`: the share of what the limit allows that the worse bound takes up; `of`: the
    policy's name of the metric."""

    metric: str
    unit: str
    against: str
    status: str
    sense: Literal["at_least", "at_most"]
    limit: float
    value: float
    low: float
    high: float
    n: int
    groups: int | None
    needed: int | None
    confidence: float | None
    why: str | None
    used: float | None
    sentence: str
    of: str | None = None


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
    sure: tuple[float, float] | None
    sure_name: str
    confusion: tuple[Confusion, ...]
    slices: tuple[SliceFact, ...]
    slices_total: int
    shift: Shift | None
    flips: tuple[Flip, ...]
    rule: str
    sentences: tuple[str, ...] = ()


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


class Target(Fact):
    """One target of the run. `pairs` is empty where nothing could be compared; `why` then says why."""

    name: str
    page: str
    role: Literal["cloud", "edge"]
    hardware: str
    toolchain: str
    precision: str
    required: bool
    optional_because: str | None
    deferral_allowed: bool
    status: str
    why: str | None
    observed: str | None
    baseline_wanted: str | None
    baseline_used: str | None
    baseline_why: str | None
    artifact: str | None
    size_bytes: int | None
    float_size_bytes: int | None
    quantized_share: float | None
    right: tuple[float, float] | None
    speed: Speed | None
    findings: tuple[FindingFact, ...]
    pairs: tuple[Pair, ...]
    stand_in: Answer | None
    cause: Cause
    selftest: SelfTest

    def pair(self, against: str) -> Pair | None:
        return next((pair for pair in self.pairs if pair.against == against), None)


Direction = Literal["loosened", "tightened", "added", "removed", "changed", "reworded"]


class LimitChange(Fact):
    """A limit that was edited: what it said, what it says; None where there was or is none."""

    limit: str
    before: str | None
    after: str | None
    direction: Direction


class TargetChange(Fact):
    """One target then and now; None where it was, or is, not there."""

    name: str
    artifact: Literal["same", "other", "added", "removed", "unknown"]
    status: tuple[str | None, str | None]
    differ: tuple[int | None, int | None]
    rows: tuple[int | None, int | None]
    size_bytes: tuple[int | None, int | None]
    p50_s: tuple[float | None, float | None]
    no_longer_judged: tuple[str, ...] = ()
    judged_too: tuple[str, ...] = ()


class Change(Fact):
    """What changed since the last release; `since` is None where there is none, and `unread` says what kept it unread.

    `source_right`: the source's own share of right answers, then and now.
    """

    since: str | None
    digest: str | None
    unread: str | None
    source: bool | None
    suite: bool | None
    suite_inputs: bool | None = None
    source_right: tuple[float | None, float | None] = (None, None)
    policy: tuple[LimitChange, ...]
    policy_since_judged: tuple[LimitChange, ...]
    judged_as: tuple[LimitChange, ...] = ()
    judged_as_since_judged: tuple[LimitChange, ...] = ()
    targets: tuple[TargetChange, ...]
    sentences: tuple[str, ...]


class Dossier(Fact):
    """All there is to say about one run of one model."""

    schema_: Literal["lockstep.dossier/1"] = Field(default=SCHEMA, alias="schema")
    model: str
    description: str
    kind: str
    noun: str
    rows: int | None
    source_digest: str
    suite_digest: str | None
    suite_inputs_digest: str | None = None
    suite_columns: tuple[str, ...] = ()
    release_digest: str | None
    policy: PolicyFact
    judged_before: PolicyFact | None
    exit_code: int
    ship: Answer
    targets: tuple[Target, ...]
    change: Change
    caveats: tuple[str, ...]

    def target(self, name: str) -> Target | None:
        return next((target for target in self.targets if target.name == name), None)


def write(dossier: Dossier) -> str:
    """The document as JSON with sorted keys; the same facts give the same text."""
    plain = json.loads(dossier.model_dump_json(by_alias=True))
    return json.dumps(plain, indent=1, sort_keys=True, allow_nan=False) + "\n"


def parse(text: str) -> Dossier:
    """The document in this text; ConfigError where it is of another schema."""
    try:
        return Dossier.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"no dossier of schema {SCHEMA}: {error.errors()[0]['msg']}") from error
