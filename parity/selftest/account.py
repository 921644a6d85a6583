"""A self-test as a person reads it: both figures first, then each kind of defect with its power by size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from compile.errors import FAILED, PASSED

WIDTH = 34
SEEDS = 5
"""So many seeds of one kind are named."""


def code(found: Mapping[str, Any]) -> int:
    """1 where a defect was missed that had to be caught, or where a healthy artifact was refused."""
    return FAILED if found["caught"] < found["must_catch"] or found["false_alarms"] else PASSED


def printed(found: Mapping[str, Any]) -> str:
    suite = found["suite"]
    how = ", ".join(f"{count} by {name}" for name, count in found["caught_by"].items() if count)
    shown = [
        f"{found['model']} on {found['target']}: {found['caught']:,} of {found['must_catch']:,} defects that had to be caught "
        f"were ({how}); {found['false_alarms']:,} false alarms in {found['benign']:,} healthy ones; {found['grey']:,} in the "
        f"grey zone. Suites of {suite['units']:,} drawn from {suite['pool']:,}.",
        "",
        f"{'':{WIDTH}} caught at size " + "".join(f"{size:>12g}" for size in _sizes(found)),
        *(_line(kind, rows, _sizes(found)) for kind, rows in _by_kind(found).items()),
        "",
        "what fixed tolerances would do with the same defects:",
        *(_tolerance(name, one) for name, one in found["fixed_tolerances"].items()),
    ]
    missed = [row for row in found["rows"] if row["oracle"] == "must catch" and row["caught_by"] is None]
    healthy = [row for row in found["rows"] if row["oracle"] == "harmless" or row["place"] == "benign"]
    alarms = [row for row in healthy if row["caught_by"] is not None]
    return "\n".join(
        [*shown, *_told_apart("MISSED", missed), *_told_apart("FALSE ALARM", alarms), *_small(suite, alarms)]
    )


def _small(suite: Mapping[str, int], alarms: list[Mapping[str, Any]]) -> list[str]:
    """That suites smaller than the model's own decide less than it does."""
    whole = suite.get("whole", suite["units"])
    if suite["units"] == whole or not any(row["caught_by"] == "undecided" for row in alarms):
        return []
    return [
        f"{suite['units']:,} rows or groups decide less than the {whole:,} of the suite itself: a `pool` of {5 * whole:,} lets "
        "suites be as large, and what is undecided so may then be decided"
    ]


def _told_apart(name: str, rows: list[Mapping[str, Any]]) -> Iterator[str]:
    """What went wrong, one line for each kind and reason; the seeds, to plant it again."""
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row in rows:
        alike[row["kind"], row["size"], row["worst"], row["caught_by"], row["caught_at"]].append(row["seed"])
    for (kind, size, worst, caught_by, caught_at), seeds in alike.items():
        shown = ", ".join(str(seed) for seed in seeds[:SEEDS]) + (", …" if len(seeds) > SEEDS else "")
        gate = "passed" if caught_by is None else f"{caught_by}, {caught_at}"
        yield f"{name}: {kind}, size {size:g}, {len(seeds):,} times (seeds {shown}): the gate says {gate}; nearest: {worst}"


def _sizes(found: Mapping[str, Any]) -> list[float]:
    return sorted({row["size"] for row in found["rows"] if row["size"]})


def _by_kind(found: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in found["rows"]:
        kinds[f"{row['kind']}"].append(row)
    return dict(kinds)


def _line(kind: str, rows: list[Mapping[str, Any]], sizes: list[float]) -> str:
    """How many of a kind were caught, size by size: the curve of power. In brackets how many of them had to be."""
    if rows[0]["place"] == "benign":
        return f"{kind:{WIDTH}} healthy: {sum(r['caught_by'] is not None for r in rows)} of {len(rows)} refused"
    cells = []
    for size in sizes:
        here = [row for row in rows if row["size"] == size]
        must = sum(row["oracle"] == "must catch" for row in here)
        caught = sum(row["caught_by"] is not None for row in here)
        cells.append(f"{caught}/{len(here)} ({must})" if here else "")
    return f"{kind:{WIDTH}}                " + "".join(f"{cell:>12}" for cell in cells)


def _tolerance(name: str, one: Mapping[str, Any]) -> str:
    return f"  {name}: catches {one['caught']:,} of {one['of']:,}, refuses {one['false_alarms']:,} of {one['benign']:,} healthy ones"
