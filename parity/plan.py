"""Before any run: what the suite's rows can decide, limit by limit, and what an equal model's chances are.

In: the prepared suite and the policy. Out: for every limit that rows decide, the most answers that may differ, the chance
that a model passes which flips a stated share of its answers and loses nothing, and the rows that make this chance 80 %.
All by enumeration of the exact distributions (binomial; binomial gains among the flips), nothing simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from scipy.stats import binom, norm

from compile import build
from compile.config import load_target
from compile.dataset import columns_of
from compile.line import Line
from parity import statistics
from parity.limit import Against, Limit
from parity.policy import Policy, load_policy

POWER = 0.8
RIGHT = 0.8
"""The share of unflipped rows that both sides get right: what a relative margin is worth depends on it."""
NEGLIGIBLE = 1e-10


@dataclass(frozen=True, slots=True)
class Plan:
    """One limit on this suite. `most`: answers that may differ (gains and losses alike); None where it never passes.

    `chance`: that an equal model passes. `needed`: rows that make it `POWER`, or None where no number does.
    """

    metric: str
    against: Against
    bound: float
    most: int | None
    chance: float
    needed: int | None


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of one target. `all_limits`: at least this is the chance that an equal model passes all of them."""

    target: str
    rows: int
    flips: float
    plans: Sequence[Plan]
    all_limits: float


def plan(line: Line, flips: float) -> list[Planned]:
    """The plan of every target of a model; prepares the suite, runs nothing else."""
    policy = load_policy(line.project, line.config.policy)
    columns = columns_of(build.data(line, "suite").folder)
    return [
        planned(use.name, limits_of(line, policy, use.name, labels="labels" in columns), len(columns["row"]), flips)
        for use in line.config.uses
    ]


def limits_of(line: Line, policy: Policy, target: str, *, labels: bool) -> list[tuple[Limit, Against]]:
    """The limits that rows decide for one target, with each side they bind."""
    config = load_target(line.project, target)
    sides = {"source", "baseline"} if config.role == "edge" and line.config.baseline else {"source"}
    metrics = {"agreement", "correct"} if labels else {"agreement"}
    return [
        (limit, against)
        for limit in policy.limits
        if limit.metric in metrics and config.precision in limit.precision
        for against in limit.pairs
        if against in sides
    ]


def planned(target: str, limits: Sequence[tuple[Limit, Against]], rows: int, flips: float) -> Planned:
    """What `rows` decide. The joint chance is bounded from below: of each pair's limits all must hold on the same flips."""
    plans = [_planned(limit, against, rows, flips) for limit, against in limits]
    misses = 0.0
    for side in {against for _, against in limits}:
        tests = [passes(limit) for limit, against in limits if against == side]
        misses += 1 - chance(lambda d, g, n, tests=tests: all(test(d, g, n) for test in tests), rows, flips)  # type: ignore[misc]
    return Planned(target, rows, flips, plans, max(0.0, 1 - misses))


def _planned(limit: Limit, against: Against, rows: int, flips: float) -> Plan:
    passed = passes(limit)
    needed = statistics.rows_needed(1, lambda n: chance(passed, n, flips) >= POWER) if can_pass(limit, flips) else None
    most = next((d - 1 for d in range(rows + 1) if not passed(d, d // 2, rows)), rows) if passed(0, 0, rows) else None
    return Plan(limit.metric, against, limit.bound, most, chance(passed, rows, flips), needed)


def can_pass(limit: Limit, flips: float) -> bool:
    """Whether enough rows would ever pass a model that flips so many answers."""
    return limit.metric != "agreement" or flips < 1 - limit.bound


Passed = Callable[[int, int, int], bool]
"""Of n rows d differ, g of them gained: does the limit pass?"""


def passes(limit: Limit) -> Passed:
    """The decision of one limit as a function of counts; the same bounds as the judge's."""
    if limit.metric == "agreement":
        return cache(lambda d, g, n: statistics.share(n - d, n, limit.confidence).low >= limit.bound)
    z = float(norm.ppf(limit.confidence))
    if limit.kind == "relative_margin":
        return cache(lambda d, g, n: statistics.ratio_score(round(RIGHT * (n - d)), g, d - g, limit.threshold) >= z)
    return cache(lambda d, g, n: statistics.tango_score(g, d - g, n, -limit.bound) >= z)


def chance(passed: Passed, rows: int, flips: float) -> float:
    """The probability of passing where each row flips with probability `flips` and as many flips gain as lose."""
    total = 0.0
    for d in range(rows + 1):
        weight = float(binom.pmf(d, rows, flips))
        if weight < NEGLIGIBLE:
            if d > rows * flips:
                break
            continue
        total += weight * float(binom.sf(fewest_gains(passed, d, rows) - 1, d, 0.5))
    return min(total, 1.0)


def fewest_gains(passed: Passed, d: int, rows: int) -> int:
    """The fewest gains among `d` flips that pass; d + 1 where none do. More gains never hurt."""
    low, high = 0, d + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passed(d, middle, rows) else (middle + 1, high)
    return low


def lines(found: Sequence[Planned]) -> list[str]:
    """The plan for a person; targets that the same limits bind are said together."""
    alike: dict[tuple[Plan, ...], list[Planned]] = {}
    for one in found:
        alike.setdefault(tuple(one.plans), []).append(one)
    shown = [f"{found[0].rows:,} rows, for a model that flips {found[0].flips:.2%} of its answers and loses nothing"]
    for plans, members in alike.items():
        shown += ["", ", ".join(one.target for one in members)]
        shown += [f"  {_sentence(plan, members[0].rows)}" for plan in plans] or ["  no limit here is decided by rows"]
        if plans:
            shown.append(
                f"  all of these together: passes with a chance of at least {min(members[0].all_limits, 0.999):.1%}"
            )
    return shown


def _sentence(plan: Plan, rows: int) -> str:
    bound = "at least" if plan.metric == "agreement" else "margin"
    alike = "as many gained as lost, " if plan.metric == "correct" else ""
    limit = f"up to {plan.most:,} of {rows:,} may differ" if plan.most is not None else "no result can pass"
    need = "no number of rows makes it 80 %" if plan.needed is None else f"80 % needs {plan.needed:,} rows"
    start = f"{plan.metric} against {plan.against}, {bound} {plan.bound:g}:"
    return f"{start} {alike}{limit}; passes with a chance of {_share(plan.chance)}; {need}"


def _share(chance: float) -> str:
    return "over 99.9 %" if chance > 0.999 else f"{chance:.1%}"
