"""The behavioural difference in words that product and support can read: never more than five sentences.

The facts of a pair in, sentences out; pure. Where nothing differs they say what that proves and no more.
"""

from __future__ import annotations

import math

from compile import percent
from compile.config import TaskConfig, TaskKind
from parity.dossier import figures
from parity.dossier.pair import Pair
from parity.verdict import LEAST_GROUPS

VERBS: dict[TaskKind, str] = {
    "classification": "change class",
    "binary_score": "fall on the other side of the threshold",
    "regression": "move by more than the tolerance",
    "embedding": "get another nearest neighbour",
    "sequence": "are read differently",
    "detection": "get other objects",
    "none": "move by more than the tolerance",
}
ONE = {"change": "changes", "fall": "falls", "move": "moves", "get": "gets", "are": "is"}
NAMED_KINDS = 2
NO_INTERVAL = f"an interval takes {LEAST_GROUPS} groups at least"


def in_words(pair: Pair, task: TaskConfig, noun: str) -> tuple[str, ...]:
    """What a person needs to know about how two producers differ."""
    if not pair.differ:
        return _nothing(pair, noun)
    found = [_how_many(pair, task, noun), *_which(pair, task), *_how_sure(pair, task), *_by_labels(pair, noun)]
    return tuple(found[:5])


def _nothing(pair: Pair, noun: str) -> tuple[str, ...]:
    other = "the source" if pair.against == "source" else pair.other
    alike = f"All {pair.n:,} {noun}{_in_groups(pair)} are answered as by {other}."
    if pair.high >= 1:
        return alike, f"That proves nothing of other {noun}: {NO_INTERVAL}."
    return (
        alike,
        f"That proves that of {noun} like these at most {percent.at_most(pair.high)} would be answered differently, with "
        "95 % confidence; it says nothing about inputs unlike those of the suite.",
    )


def _how_many(pair: Pair, task: TaskConfig, noun: str) -> str:
    verb = VERBS[task.kind]
    if pair.differ == 1:
        first, _, rest = verb.partition(" ")
        verb = f"{ONE[first]} {rest}"
    if task.kind == "binary_score":
        verb += f" {task.threshold:g}"
    if task.kind in ("regression", "none"):
        verb += f" of {100 * task.tolerance:g} %"
    most = f", at most {percent.at_most(pair.high)} with 95 % confidence"
    if pair.high >= 1:
        most = "" if pair.share == 1 else ", without a bound"
    if pair.groups is not None and pair.groups < LEAST_GROUPS:
        most = f", {NO_INTERVAL}"
    return f"{pair.differ:,} of {pair.n:,} {noun}{_in_groups(pair)} {verb}: {percent.share(pair.share)}{most}."


def _in_groups(pair: Pair) -> str:
    """What the bound rests on where rows are not independent: a reader who counts rows would expect a narrower one."""
    return "" if pair.groups is None else f" in {pair.groups:,} groups"


def _which(pair: Pair, task: TaskConfig) -> list[str]:
    """The one or two most frequent kinds of difference, where there are kinds."""
    if task.kind == "binary_score":
        rise = sum(one.count for one in pair.confusion if one.reference.startswith("below"))
        return [
            f"{rise:,} {_verb(rise, 'rise')} to or above it, {pair.differ - rise:,} {_verb(pair.differ - rise, 'fall')} below it."
        ]
    if task.kind != "classification":
        return []
    kinds = pair.confusion
    if len(kinds) == 1 and pair.differ > 1:
        return [f"All are {_kind(kinds[0].reference, kinds[0].candidate)}."]
    if len(kinds) == 1:
        return [f"It is {_kind(kinds[0].reference, kinds[0].candidate)}."]
    some = [f"{one.count:,} {_kind(one.reference, one.candidate)}" for one in kinds[:NAMED_KINDS]]
    rest = pair.differ - sum(one.count for one in kinds[:NAMED_KINDS])
    more = f", and {rest:,} {'other' if rest == 1 else 'others'}" if rest else ""
    return [f"They are {', '.join(some)}{more}."]


def _verb(count: int, verb: str) -> str:
    return f"{verb}s" if count == 1 else verb


def _kind(reference: str, candidate: str) -> str:
    return f"“{_short(reference)}” turned “{_short(candidate)}”"


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def _how_sure(pair: Pair, task: TaskConfig) -> list[str]:
    if pair.sure is None:
        return []
    low, high = pair.sure
    side = "source" if pair.against == "source" else "cloud"
    if task.kind == "binary_score":
        return [f"The {side}'s scores of these lay from {figures.number(low)} to {figures.number(high)}."]
    who, most = "it" if pair.differ == 1 else "all of them", math.ceil(high * 100) / 100
    return [f"The {side}'s confidence in {who} was at most {most:.2f}."] if most < 1 else []


def _by_labels(pair: Pair, noun: str) -> list[str]:
    """Better or worse by the labels; what is neither was wrong before and is wrong now, or right both times: neighbours of one
    label, numbers on both sides of theirs. Numbers get better or worse without differing, and are counted of all rows."""
    if pair.lost is None or pair.gained is None:
        return ["The suite has no labels that say which answers are right."]
    neither = pair.differ - pair.lost - pair.gained if pair.both_wrong is None else pair.both_wrong
    rest = [(neither, "wrong"), (pair.both_right or 0, "right")]
    more = [f"{n:,} {'was' if n == 1 else 'were'} {how} before and after" for n, how in rest if n > 0]
    if pair.lost + pair.gained + neither + (pair.both_right or 0) == pair.differ:
        return [f"By the labels {', '.join([f'{pair.lost:,} got worse and {pair.gained:,} got better', *more])}."]
    moved = f"; of those that moved, {', '.join(more)}" if more else ""
    return [f"By the labels, of all {pair.n:,} {noun} {pair.lost:,} got worse and {pair.gained:,} got better{moved}."]
