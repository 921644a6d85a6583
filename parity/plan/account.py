"""A plan as a person reads it: targets that the same limits bind are said together."""

from __future__ import annotations

from collections.abc import Sequence

from compile import percent
from parity.plan.rehearsal import Rehearsed
from parity.plan.station import Plan, Planned
from parity.verdict import LEAST_GROUPS


def lines(found: Sequence[Planned]) -> list[str]:
    alike: dict[tuple[object, ...], list[Planned]] = {}
    for one in found:
        alike.setdefault((*one.plans, *one.rehearsed), []).append(one)
    rows = f"{found[0].rows:,} rows" + (f" in {found[0].groups:,} groups" if found[0].groups is not None else "")
    rows += f" (and {found[0].copies:,} repeated, which are not counted)" if found[0].copies else ""
    shown = [f"{rows}, for a model that flips {percent.share(found[0].flips)} of its answers and loses nothing"]
    if found[0].groups is not None and found[0].groups < LEAST_GROUPS:
        shown.append(
            f"below {LEAST_GROUPS} groups there is no interval, so that no limit which needs one can pass: bring more groups"
        )
    for members in alike.values():
        first = members[0]
        shown += ["", ", ".join(one.target for one in members)]
        shown += [f"  {_sentence(plan, first)}" for plan in first.plans]
        shown += [f"  {_of_rehearsal(one)}" for one in first.rehearsed]
        if not first.plans and not first.rehearsed:
            shown.append("  no limit here is decided by rows")
        if first.unforeseen:
            shown.append(f"  not foreseen here: {', '.join(first.unforeseen)}")
        if first.plans or first.rehearsed:
            chance = f"passes with a chance of at least {percent.share(min(first.all_limits, 0.999), 1)}"
            copy = "" if first.copy else "; one that moves nothing at all stays undecided"
            shown.append(f"  all of these together: {chance} (misses of limits and sides added up){copy}")
    return shown


def _sentence(plan: Plan, suite: Planned) -> str:
    alike = "as many gained as lost, " if plan.metric == "correct" and plan.most is not None else ""
    where = "of its smallest slice" if plan.metric == "worst_slice" else f"of {suite.rows:,}"
    limit = (
        f"up to {plan.most:,} {where} may differ"
        if plan.most is not None
        else "on so few rows not even a copy is shown to hold it"
    )
    if suite.groups is not None:
        few = "even with nothing changed, so few groups do not prove it"
        limit = few if plan.most is None else "how much may differ depends on how many groups it is spread over"
    need = "no number of rows makes it 80 %"
    if plan.needed is not None:
        groups = "" if suite.groups is None else f" ({round(suite.groups * plan.needed / suite.rows):,} groups)"
        need = f"80 % needs {plan.needed:,} rows{groups}"
    by = f" by {', '.join(plan.by)}" if plan.by else ""
    start = f"{plan.metric}{by} against {plan.against}, {plan.kind.replace('_', ' ')} {plan.bound:g}:"
    if plan.smallest is not None:
        groups = "" if suite.groups is None else f" in {LEAST_GROUPS} groups"
        return f"{start} no kind has the {plan.smallest:,} rows{groups} of a slice, so that nothing can pass"
    return f"{start} {alike}{limit}; passes with a chance of {_share(plan.chance)}; {need}"


def _of_rehearsal(one: Rehearsed) -> str:
    start = f"{one.metric} against {' and '.join(one.against)}, {one.kind.replace('_', ' ')} {one.bound:g}:"
    how = (
        "scores that move by rounding alone pass" if one.chance else "not even scores that move by rounding alone pass"
    )
    if not one.rounded:
        how = f"passes with a chance of at least {percent.share(min(one.chance, 0.999), 1)} (on made-up suites)"
    need = "" if one.rounded else "; no number of rows that was tried makes it 80 %"
    if one.needed is not None:
        need = f"; 80 % needs {one.needed // 2:,} to {one.needed:,} rows"
    alike = "" if one.copy else "; a copy that moves nothing at all is not proven by so few rows"
    return f"{start} {how}{need}{alike}"


def _share(chance: float) -> str:
    return "over 99.9 %" if chance > 0.999 else percent.share(chance, 1)
