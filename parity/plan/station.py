"""Before any run: what the suite's rows can decide, limit by limit, and what an equal model's chances are.

In: the prepared suite and the policy. Out: for every limit that rows decide, the most answers that may differ, the chance
that a model passes which flips a stated share of its answers and loses nothing, and the rows that make this chance 80 %.
Rows by enumeration (`exact`); slices and groups by enumeration and by seeded draws (`outlook`);
limits that resampling decides are judged on made-up suites (`rehearsal`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import build
from compile.config import TargetFile, TaskKind, load_target
from compile.dataset import columns_of
from compile.errors import ConfigError
from compile.line import Line
from compile.source import refuse_no_model
from parity.kinds import codes
from parity.labels import refuse_strange
from parity.limit import Against, Limit, Metric
from parity.plan import outlook
from parity.plan.exact import can_pass, chance, passes
from parity.plan.rehearsal import Rehearsals, Rehearsed
from parity.policy import Policy, load_policy, refuse_idle_limits
from parity.slices import cut_columns, slices_by_column
from parity.statistics import counted
from parity.verdict import LEAST_GROUPS

POWER = 0.8
PLANNED: tuple[Metric, ...] = ("agreement", "route_flips", "correct", "worst_slice")
EXACT: tuple[Metric, ...] = (
    "float_error",
    "sqnr_db",
    "cosine_minimum",
    "latency_ratio",
    "size_ratio",
    "quantized_share",
)
"""Limits that no number of rows makes surer."""
SURE_KINDS: tuple[TaskKind, ...] = ("classification", "binary_score", "sequence")


@dataclass(frozen=True, slots=True)
class Plan:
    """One limit on this suite. `most`: answers that may differ (gains and losses alike); None where it never passes.

    `chance`: that an equal model passes. `needed`: rows that make it `POWER`, or None where no number does. `smallest`: how many
    rows a kind must have to be a slice, where none of a column has.
    """

    metric: str
    against: Against
    kind: str
    bound: float
    most: int | None
    chance: float
    needed: int | None
    by: tuple[str, ...] = ()
    smallest: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a suite decides beside its rows: the sizes of its groups, and for each limit on slices those of each column's
    slices; of grouped suites in `grouped` the sizes of each slice's groups. `unsliced`: limits on a column without a kind that is
    large enough."""

    groups: NDArray[np.float64] | None = None
    slices: Mapping[Limit, Sequence[Sequence[int]]] = field(default_factory=dict)
    grouped: Mapping[Limit, Sequence[NDArray[np.float64]]] = field(default_factory=dict)
    unsliced: frozenset[Limit] = frozenset()


ALONE = Shape()


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of one target. `all_limits`: at least this is the chance that an equal model passes all of them; `copy`: whether
    one that moves nothing at all does, which of few rows is not always proven.

    `groups`: how many groups the rows are, where they are grouped; `copies`: rows more that repeat these, which nobody counts.
    `rehearsed`: limits that resampling decides; `unforeseen`: those of them whose answers cannot be made up.
    """

    target: str
    rows: int
    groups: int | None
    rehearsed: Sequence[Rehearsed]
    unforeseen: Sequence[str]
    flips: float
    plans: Sequence[Plan]
    all_limits: float
    copy: bool
    copies: int = 0


def plan(line: Line, flips: float) -> list[Planned]:
    """The plan of every target of a model; prepares the suite, runs nothing else."""
    policy = load_policy(line.project, line.config.policy)
    refuse_no_model(line.project, line.model, line.config.source)
    whole = columns_of(build.data(line, "suite").folder)
    columns = _counted(whole)
    refuse_idle_limits(policy, line.config, columns)
    refuse_strange(line.config, columns.get("labels"))
    shape, rows = shape_of(columns, policy, line.config.task.kind), len(columns["row"])
    known: dict[Limit, Plan] = {}
    rehearsals = Rehearsals(line.config, columns, policy.route, flips)
    found = []
    for use in line.config.uses:
        target = load_target(line.project, use.name)
        if not any(target.precision in limit.precision for limit in policy.limits):
            raise ConfigError(
                f"policy {line.config.policy}: no limit binds {use.name}, which is {target.precision}: nothing would be judged of it"
            )
        limits = limits_of(line, policy, target, labels="labels" in columns)
        planned_ones = [(limit, against) for limit, against in limits if limit.metric in PLANNED]
        others = _sides([(limit, against) for limit, against in limits if limit.metric not in PLANNED])
        tried = [(limit, rehearsals.of(limit, sides, target)) for limit, sides in others.items()]
        one = planned(
            use.name, planned_ones, rows, flips, shape, [told for _, told in tried if told is not None], known
        )
        unforeseen = [limit.metric for limit, told in tried if told is None]
        found.append(replace(one, unforeseen=unforeseen, copies=len(whole["row"]) - rows))
    return found


def _counted(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """In observed order, without the rows that repeat others: the judge does not count them."""
    order = columns["row"]
    kept = order[~columns["copy"][order]] if "copy" in columns else order
    told = {name: values[kept] for name, values in columns.items() if name not in ("copy", "original")}
    return told | {"row": np.arange(len(kept))}


def _sides(limits: Sequence[tuple[Limit, Against]]) -> dict[Limit, list[Against]]:
    sides: dict[Limit, list[Against]] = {}
    for limit, against in limits:
        sides.setdefault(limit, []).append(against)
    return sides


def shape_of(columns: Mapping[str, NDArray[Any]], policy: Policy, kind: TaskKind) -> Shape:
    """Groups and slices of a suite as the judge will cut it; the reference's confidence, not known yet, in tenths."""
    rows = len(columns["row"])
    groups = codes(columns["group"][columns["row"]]) if "group" in columns else None
    sizes = None if groups is None else np.bincount(groups).astype(np.float64)
    limits = [limit for limit in policy.limits if limit.metric == "worst_slice"]
    if not limits:
        return Shape(sizes)
    unsure = None if kind not in SURE_KINDS else np.linspace(0, 1, rows)
    cut = cut_columns({name: values[columns["row"]] for name, values in columns.items() if name != "row"}, unsure)

    found = {
        limit: slices_by_column(cut, [name for name in limit.by if name in cut], limit.smallest, groups)
        for limit in limits
    }
    unsliced = frozenset(limit for limit in limits if any(part.every for column in found[limit] for part in column))
    if groups is None:
        by_rows = {limit: [[part.size for part in column] for column in found[limit]] for limit in limits}
        return Shape(None, by_rows, unsliced=unsliced)
    by_groups = {limit: [_sizes(groups[part.rows]) for column in found[limit] for part in column] for limit in limits}
    return Shape(sizes, {}, by_groups, unsliced)


def _sizes(groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many rows of each group there are, of those that have any."""
    return np.unique(groups, return_counts=True)[1].astype(np.float64)


def limits_of(line: Line, policy: Policy, config: TargetFile, *, labels: bool) -> list[tuple[Limit, Against]]:
    """The limits that rows decide for one target, with each side they bind."""
    sides = {"source", "baseline"} if config.role == "edge" and line.config.baseline else {"source"}
    return [
        (limit, against)
        for limit in policy.limits
        if limit.metric not in EXACT
        and (labels or not (limit.metric == "correct" or limit.is_a.labels))
        and (limit.metric != "correct" or line.config.task.kind != "none")
        and config.precision in limit.precision
        for against in limit.pairs
        if against in sides
    ]


def planned(
    target: str,
    limits: Sequence[tuple[Limit, Against]],
    rows: int,
    flips: float,
    shape: Shape = ALONE,
    rehearsed: Sequence[Rehearsed] = (),
    known: dict[Limit, Plan] | None = None,
) -> Planned:
    """What `rows` decide. The joint chance is bounded from below: of each pair's limits all must hold on the same flips.

    `known`: limits that were planned on this suite before; filled here.
    """
    known = {} if known is None else known
    for limit, against in limits:
        known[limit] = known.get(limit) or _planned(limit, against, rows, flips, shape)
    plans = [replace(known[limit], against=against) for limit, against in limits]
    groups = None if shape.groups is None else len(shape.groups)
    if groups is not None:
        misses = sum((1 - plan.chance for plan in plans), 0.0)
    else:
        misses = sum((1 - plan.chance for plan in plans if plan.metric == "worst_slice"), 0.0)
        for side in {against for _, against in limits}:
            tests = [passes(limit) for limit, against in limits if against == side and limit.metric != "worst_slice"]
            misses += 1 - chance(lambda d, g, n, tests=tests: all(t(d, g, n) for t in tests), rows, flips)  # type: ignore[misc]
    misses += sum((len(one.against) * (1 - one.chance) for one in rehearsed), 0.0)
    copy = all(plan.most is not None for plan in plans) and all(one.copy for one in rehearsed)
    return Planned(target, rows, groups, rehearsed, (), flips, plans, max(0.0, 1 - misses), copy)


def _planned(limit: Limit, against: Against, rows: int, flips: float, shape: Shape) -> Plan:
    if limit in shape.unsliced:
        return Plan(limit.metric, against, limit.kind, limit.bound, None, 0.0, None, limit.by, smallest=limit.smallest)
    if limit.metric == "worst_slice" and shape.groups is not None:
        return _of_grouped_slices(limit, against, rows, flips, shape.grouped[limit])
    if limit.metric == "worst_slice":
        return _of_slices(limit, against, rows, flips, shape)
    if shape.groups is not None:
        return _of_groups(limit, against, rows, flips, shape.groups)
    passed = passes(limit)
    needed = counted.rows_needed(1, lambda n: chance(passed, n, flips) >= POWER) if can_pass(limit, flips) else None
    most = next((d - 1 for d in range(rows + 1) if not passed(d, d // 2, rows)), rows) if passed(0, 0, rows) else None
    return Plan(limit.metric, against, limit.kind, limit.bound, most, chance(passed, rows, flips), needed)


def _of_groups(limit: Limit, against: Against, rows: int, flips: float, sizes: NDArray[np.float64]) -> Plan:
    """In groups: whether nothing may differ at all, and the chances by draws."""
    count = len(sizes)
    most = 0 if outlook.of_groups(limit, sizes, 0.0) == 1 else None
    needed = None
    if can_pass(limit, flips):
        needed = counted.rows_needed(LEAST_GROUPS, lambda n: outlook.of_groups(limit, sizes, flips, n / count) >= POWER)
    found = outlook.of_groups(limit, sizes, flips)
    return Plan(
        limit.metric,
        against,
        limit.kind,
        limit.bound,
        most,
        found,
        None if needed is None else round(rows * needed / count),
    )


def _of_slices(limit: Limit, against: Against, rows: int, flips: float, shape: Shape) -> Plan:
    """Every slice has to pass: the smallest one says how many answers may differ."""
    columns = shape.slices[limit]

    def at(n: int) -> float:
        grown = [[max(1, size * n // rows) for size in sizes] for sizes in columns]
        return outlook.of_slices(limit, grown, flips)

    smallest = min((size for sizes in columns for size in sizes), default=rows)
    needed = counted.rows_needed(1, lambda n: at(n) >= POWER) if flips < 1 - limit.bound else None
    return Plan(
        limit.metric,
        against,
        limit.kind,
        limit.bound,
        outlook.most_of_slice(limit, smallest),
        at(rows),
        needed,
        limit.by,
    )


def _of_grouped_slices(
    limit: Limit, against: Against, rows: int, flips: float, parts: Sequence[NDArray[np.float64]]
) -> Plan:
    """Every slice has to pass by its own groups."""

    def at(hundredths: int) -> float:
        return outlook.of_grouped_slices(limit, parts, flips, hundredths / 100)

    most = 0 if outlook.of_grouped_slices(limit, parts, 0.0) == 1 else None
    needed = counted.rows_needed(1, lambda n: at(n) >= POWER) if flips < 1 - limit.bound else None
    more = None if needed is None else round(rows * needed / 100)
    return Plan(limit.metric, against, limit.kind, limit.bound, most, at(100), more, limit.by)
