"""The policy: limits written before the run, each with its reason. Read from `configs/policies/NAME.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from compile.config import ModelFile, Strict, names_of
from compile.errors import ConfigError, nearest
from compile.project import Project
from compile.yaml_file import load
from parity.limit import CONFIDENCE, NOT_SLICED, Limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

OF_SIZE = "goal size"
"""How a goal is spelled that frees int8 from the limit on its latency."""
A_COLUMN = " (an array with one entry for each row)"
EXEMPTS = ": int8 is exempt from the limit on latency_ratio"


class Goal(Strict):
    """What integer arithmetic is for. Speed unless said otherwise, and then with a reason."""

    kind: Literal["speed", "size"]
    why: str = Field(min_length=8)


class Payload(Strict):
    """A column of the suite with the size of each request, and the size from which the cloud takes it."""

    column: str
    below: float = Field(gt=0)


class Route(Strict):
    """The deployed rule: the edge keeps a request whose confidence is above, and whose payload is below; else it escalates."""

    confidence: float = Field(ge=0, allow_inf_nan=False)
    payload: Payload | None = None
    why: str = Field(min_length=8)


class Expected(Strict):
    """How many of the suite's rows the source itself answers as their labels say, at least: where it does not, labels, rows, inputs
    or weights are other ones, and nothing that is compared on them says what it seems to say."""

    at_least: float = Field(gt=0, lt=1)
    why: str = Field(min_length=8)


class Threshold(Strict):
    """When to roll back: a signal of production, and the value that is too low or too high."""

    signal: str = Field(min_length=3)
    below: float | None = None
    above: float | None = None
    over: str = Field(min_length=2)
    why: str = Field(min_length=8)

    @model_validator(mode="after")
    def _one_side(self) -> Threshold:
        if (self.below is None) == (self.above is None):
            raise ValueError("exactly one of `below` or `above`")
        return self


class Rollback(Strict):
    """Written down before going live: who decides, and at what."""

    owner: str = Field(min_length=2)
    thresholds: tuple[Threshold, ...] = Field(min_length=1)


class Policy(Strict):
    """`configs/policies/NAME.yaml`."""

    description: str = ""
    allow_deferred: tuple[str, ...] = ()
    goal: Goal | None = None
    source: Expected | None = None
    route: Route | None = None
    rollback: Rollback | None = None
    limits: tuple[Limit, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _speed_is_judged(self) -> Policy:
        bounds = [limit.bound for limit in self.limits if limit.metric == "latency_ratio" and "int8" in limit.precision]
        if not (bounds and min(bounds) <= 1) and (self.goal is None or self.goal.kind != "size"):
            raise ValueError(
                "no `latency_ratio` limit keeps int8 from being slower than float; add one of at most 1, or say "
                "`goal: {kind: size, why: …}`"
            )
        unrouted = [limit.metric for limit in self.limits if limit.is_a.routed and self.route is None]
        if unrouted:
            raise ValueError(f"{unrouted[0]} needs the deployed rule; add `route: {{confidence: …, why: …}}`")
        return self

    def allows_deferred(self, target: str) -> bool:
        return any(fnmatchcase(target, pattern) for pattern in self.allow_deferred)

    @property
    def spelled(self) -> dict[str, str]:
        """Every term of the policy by a name that stays when its value changes: what an edit is told by."""
        terms: dict[str, str] = {}
        for limit in self.limits:
            _put(terms, f"{limit.metric}, {', '.join(limit.precision)}", limit.spelled)
        return {**terms, **self.spelled_besides}

    @property
    def spelled_besides(self) -> dict[str, str]:
        """Every term that is no limit: what may wait, int8's goal, what is expected of the source, the route, when to roll back."""
        terms: dict[str, str] = {}
        if self.allow_deferred:
            terms["allow_deferred"] = f"may be deferred: {', '.join(self.allow_deferred)}"
        if self.goal is not None:
            terms["goal"] = f"goal {self.goal.kind}"
        if self.source is not None:
            terms["source"] = f"source right at least {self.source.at_least:g}"
        if self.route is not None:
            payload = self.route.payload
            below = f", {payload.column} below {payload.below:g}" if payload else ""
            terms["route"] = f"route: kept above {self.route.confidence:g}{below}"
        if self.rollback is not None:
            terms["rollback, owner"] = f"rollback, owner: {self.rollback.owner}"
            for one in self.rollback.thresholds:
                side = f"below {one.below:g}" if one.below is not None else f"above {one.above:g}"
                _put(terms, f"rollback, {one.signal}", f"rollback: {one.signal} {side} over {one.over}")
        return terms


def _put(terms: dict[str, str], name: str, value: str) -> None:
    """Under its name, or where that is taken under the name with a number."""
    number = sum(known == name or known.startswith(f"{name} #") for known in terms)
    terms[f"{name} #{number + 1}" if number else name] = value


def edits(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed between two policies' `spelled`: `old -> new`, one line a term."""
    names: Iterable[str] = dict.fromkeys((*was, *now))
    told = [(was.get(n, "nothing"), now.get(n, "nothing")) for n in names if was.get(n) != now.get(n)]
    return [f"{before} -> {after}{EXEMPTS if after == OF_SIZE else ''}" for before, after in told]


def load_policy(project: Project, name: str) -> Policy:
    path = project.configs / "policies" / f"{name}.yaml"
    if not path.is_file():
        known = names_of(project, "policies")
        raise ConfigError(f"{path}: no such policy; here: {', '.join(known) or 'none'}{nearest(name, known)}")
    return load(path, Policy)


def refuse_idle_limits(policy: Policy, config: ModelFile, columns: Mapping[str, NDArray[Any]]) -> None:
    """ConfigError where a limit names what this model or its suite does not have: it would be met by not being measured."""
    for limit in policy.limits:
        why = _idle(limit, config, columns)
        if why is not None:
            raise ConfigError(f"policy {config.policy}: {limit.metric}{why}")
    if policy.source is not None and (config.task.kind == "none" or "labels" not in columns):
        raise ConfigError(
            f"policy {config.policy}: source: right answers need labels and a `task.kind` other than `none`; give the model a "
            "policy without `source`"
        )
    known = [name for name in columns if name not in NOT_SLICED]
    if policy.route is not None and policy.route.payload is None:
        _refuse_route_that_keeps_all(policy.route.confidence, config)
    payload = policy.route.payload if policy.route is not None else None
    if payload is not None and payload.column not in columns:
        raise ConfigError(
            f"policy {config.policy}: route: payload: the suite has no column `{payload.column}`{A_COLUMN}; it has "
            f"{', '.join(known)}{nearest(payload.column, known)}"
        )
    if payload is not None and columns[payload.column].dtype.kind not in "biuf":
        raise ConfigError(
            f"policy {config.policy}: route: payload: `{payload.column}` holds {columns[payload.column].dtype}; expected numbers"
        )


def _refuse_route_that_keeps_all(confidence: float, config: ModelFile) -> None:
    """ConfigError where nothing is ever less sure than the rule asks: the larger of two shares is half, of K the K-th part."""
    of_scores = config.task.kind == "binary_score" and config.task.threshold < 1
    least = 0.5 if of_scores else 1 / config.classes if config.classes else 0.0
    if confidence < least:
        raise ConfigError(
            f"policy {config.policy}: route: every answer is surer than {confidence:g}, so that the rule keeps all and no limit on "
            f"it can bite; confidence is {least:.4g} at least"
        )


def _idle(limit: Limit, config: ModelFile, columns: Mapping[str, NDArray[Any]]) -> str | None:
    """Why a limit could never bite on this model."""
    tasks, task = limit.is_a.tasks, config.task
    if tasks is not None and task.kind not in tasks:
        return (
            f" is a metric of {', '.join(tasks)}; this model's task is {task.kind}: give the model a policy of its own"
        )
    if limit.is_a.labels and "labels" not in columns:
        return " needs labels; the suite has none"
    if limit.metric == "auc" and len(set(columns["labels"].ravel().tolist())) < 2:
        return " needs rows of both kinds; the labels of the suite are all alike"
    if limit.metric == "correct" and task.kind == "none" and "labels" in columns:
        return ": the suite has labels, but `task: {kind: none}` gives them no meaning; name the kind, or leave the labels out"
    known = [*(name for name in columns if name not in NOT_SLICED), CONFIDENCE]
    strange = next((name for name in limit.by if name not in known), None)
    if strange is not None:
        return (
            f": by: the suite has no column `{strange}`{A_COLUMN}; it has {', '.join(known)}{nearest(strange, known)}"
        )
    probability = task.kind != "binary_score" or task.threshold < 1
    if limit.metric == "confidence_drift" and probability and limit.bound >= 1:
        return f": at most {limit.bound:g} can never bite; a probability moves by at most 1"
    return None
