"""The facts of one model run, typed, frozen and versioned: `dossier.json` is these and nothing else.

Every page, table and figure of a dossier is a rendering of this document: no renderer computes a figure. Law:
`parse(write(d)) == d`, and the same facts give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError

from compile.errors import ConfigError
from parity.dossier import SCHEMA
from parity.dossier.evidence import Cause, SelfTest, Speed
from parity.dossier.fact import Fact
from parity.dossier.pair import Pair

Word = Literal["yes", "no", "not yet"]
ONLY_OF: Mapping[str, tuple[str, ...]] = {
    "task.threshold": ("binary_score", "detection"),
    "task.tolerance": ("regression", "none"),
}
"""The kinds of task that a number of the task speaks about."""


class Answer(Fact):
    """The answer to a question of the first screen, why, and what to do next where that is known."""

    word: Word
    sentence: str
    next: str | None = None


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

    @property
    def deciding(self) -> dict[str, str]:
        """Of those terms the ones that decide something of a task of this kind."""
        terms = self.judged_as or {}
        return {
            name: term for name, term in terms.items() if terms.get("task") in ONLY_OF.get(name, (terms.get("task"),))
        }


class FindingFact(Fact):
    """One limit met by one measurement. `used`: the share of what the limit allows that the worse bound takes up; `of`: the
    policy's name of the metric, `by` the columns that it names, `kind` and `bound` what the policy asks. Of errors (`of`) the
    sign of every figure is turned, as it is judged."""

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
    by: tuple[str, ...] = ()
    kind: str | None = None
    bound: float | None = None
    tells: bool | None = None


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
    next: str | None = None
    cause: Cause
    selftest: SelfTest

    def pair(self, against: str) -> Pair | None:
        return next((pair for pair in self.pairs if pair.against == against), None)


Direction = Literal["loosened", "tightened", "added", "removed", "changed", "reworded"]


class LimitChange(Fact):
    """A limit that was edited: what it said, what it says; None where there was or is none. `besides`: it is another term of the
    policy, and its texts begin with its name."""

    limit: str
    before: str | None
    after: str | None
    direction: Direction
    besides: bool = False


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

    `source_right`: the source's own share of right answers, then and now; `source_worse`: where that fell by more than an
    artifact may lose, a sentence that stands beside the answer, for parity with a worse source is no better.
    """

    since: str | None
    digest: str | None
    unread: str | None
    source: bool | None
    suite: bool | None
    suite_inputs: bool | None = None
    source_right: tuple[float | None, float | None] = (None, None)
    source_worse: str | None = None
    policy: tuple[LimitChange, ...]
    policy_since_judged: tuple[LimitChange, ...]
    judged_as: tuple[LimitChange, ...] = ()
    judged_as_since_judged: tuple[LimitChange, ...] = ()
    targets: tuple[TargetChange, ...]
    sentences: tuple[str, ...]


class Dossier(Fact):
    """All there is to say about one run of one model. `recipe`: how integer targets are quantized, key by key."""

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
    recipe: dict[str, str] = Field(default_factory=dict)
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
