"""`python -m bench.groups`: how often a model at its margin passes where rows come in few, skewed or unequal groups.

Seeded suites of 20 to 500 groups whose true loss is exactly the margin, judged by the rule that was (BCa as soon as 20 groups
differ) and by the rule that is (`parity.statistics`). Writes `bench/groups.json`: by figure, setting and
number of groups, the share of suites that pass (at most 5 % should, 6 % is the law) and how often two-sided 95 % bounds hold
the truth (94 % is the law). Where either misses what it should be, `AGAIN` times as many fresh suites speak instead. Takes
about a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from bench.suites import FIGURES, SETTINGS, Figure, draw, truth
from parity.statistics import betting
from parity.statistics.bounds import LEAST_DISCORDANT, carriers, groups_speak, shares_added
from parity.statistics.resampling import RESAMPLES, SEED, Resampled, of_resamples

ROOT = Path(__file__).parents[1]
GROUPS = (20, 50, 100, 200, 500)
SUITES, PIECE = 600, 50
CONFIDENCE, TWO_SIDED = 0.95, 0.975
AGAIN = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: shares of suites that pass at the margin, and in which two-sided bounds hold the truth."""

    figure: str
    setting: str
    unequal: bool
    groups: int
    suites: int
    truth: float
    passed_before: float
    passed: float
    held_before: float
    held: float
    carriers: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.groups", description=__doc__)
    parser.add_argument("--suites", type=int, default=SUITES, help="of each setting (default %(default)s)")
    suites = parser.parse_args().suites
    rows = []
    for row in measured(suites):
        rows.append(row)
        print(*astuple(row), flush=True)
    (ROOT / "bench" / "groups.json").write_text(told(rows))


def told(rows: Sequence[Row]) -> str:
    """A line of JSON for each row, below the names of its columns."""
    names = [field.name for field in fields(Row)]
    lines = [json.dumps([round(v, 4) if isinstance(v, float) else v for v in astuple(row)]) for row in rows]
    return "[\n" + ",\n".join([json.dumps(names), *lines]) + "\n]\n"


def measured(suites: int) -> Iterator[Row]:
    """Every figure in every setting, at every number of groups."""
    for figure in FIGURES:
        for setting in SETTINGS:
            for unequal in (False, True):
                for groups in GROUPS:
                    first = judged(figure, setting, unequal, (suites, groups), 0)
                    missed = first.passed > 1 - CONFIDENCE or first.held < CONFIDENCE
                    yield judged(figure, setting, unequal, (AGAIN * suites, groups), 1) if missed else first


def judged(figure: Figure, setting: str, unequal: bool, shape: tuple[int, int], look: int) -> Row:
    """Both rules on the same suites."""
    suites, groups = shape
    true = truth(figure, setting, unequal)
    found = draw(figure, setting, unequal, shape, np.random.default_rng([SEED, groups, look]))
    weights = np.random.default_rng(SEED).multinomial(groups, np.full(groups, 1 / groups), RESAMPLES).astype(np.float32)
    before, now, carried = [], [], []
    for start in range(0, len(found.sums), PIECE):
        sums = found.sums[start : start + PIECE]
        drawn = figure.of(np.einsum("rg,sgk->rsk", weights, sums.astype(np.float32), optimize=True).astype(np.float64))
        whole = sums.sum(axis=1, keepdims=True)
        values, without = figure.of(whole[:, 0]), figure.of(whole - sums)
        for place, value in enumerate(values):
            sizes = found.sizes[start + place].astype(np.float64)
            one = Resampled(drawn[:, place], without[place], sizes)
            bets = by_bets(float(value), one, figure.worst, true)
            bca = by_bca(float(value), one, true) if np.ptp(without[place]) > 0 else bets
            before.append(bca if found.differing[start + place] >= LEAST_DISCORDANT else bets)
            now.append(bca if figure.resampled and groups_speak(one) else bets)
            carried.append(carriers(one.left_out))
    (passed_before, held_before), (passed, held) = np.mean(before, axis=0), np.mean(now, axis=0)
    shares = (float(passed_before), float(passed), float(held_before), float(held))
    return Row(figure.name, setting, unequal, groups, suites, true, *shares, float(np.median(carried)))


def by_bca(value: float, one: Resampled, true: float) -> tuple[bool, bool]:
    """Whether a suite passes at the margin, and whether its two-sided bounds hold the truth."""
    wide = of_resamples(value, one, TWO_SIDED)
    return of_resamples(value, one, CONFIDENCE).low >= true, wide.low <= true <= wide.high


def by_bets(value: float, one: Resampled, worst: float, true: float) -> tuple[bool, bool]:
    added, edge = shares_added(value, one, worst), (true - value) / worst
    gained, lost = np.maximum(added, 0), np.maximum(-added, 0)
    if not -1 < edge < 1:
        return False, True
    below = betting.proves_difference(gained, lost, one.sizes, TWO_SIDED, edge)
    above = betting.proves_difference(lost, gained, one.sizes, TWO_SIDED, -edge)
    return betting.proves_difference(gained, lost, one.sizes, CONFIDENCE, edge), not (below or above)


if __name__ == "__main__":
    main()
