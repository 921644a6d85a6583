"""Trials of the law that the same rows get the same answers: those that were asked a second time, or alone.

In: what the healthy artifact answered over all rows, in batches of two sizes. Out: trials, planted and benign.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from parity.selftest import answer_defects
from parity.selftest.bench import Bench, trial_of
from parity.selftest.gate import PIECES, Asked
from parity.selftest.plant import SIZES, Planted
from parity.selftest.tally import Trial
from parity.selftest.witness import Outputs


def in_other_batches(bench: Bench, healthy: Outputs, outputs: Outputs, draws: int) -> Iterator[Trial]:
    """What the healthy artifact answers in other batches, as what it answers to rows alone."""
    for seed in range(draws):
        one, drawn = Planted("benign", "asked in other batches", 0.0, seed), bench.draw(seed)
        suite, other = ({n: array[drawn.suite] for n, array in side.items()} for side in (healthy, outputs))
        caught = bench.gate.caught_by(bench.witness, drawn.suite, suite, PIECES, {"again": other, "alone": other})
        yield trial_of(one, bench.truth(outputs, drawn), caught, {})


def otherwise(bench: Bench, healthy: Outputs, seeds: int) -> Iterator[Trial]:
    """Answers that are sound in the suite's batches and noisy when rows are asked a second time, or alone, as a device asks. The
    oracle is told those; what it finds harmless breaks a law all the same, and is counted neither way."""
    ways: tuple[Asked, ...] = ("again", "alone")
    for way in ways:
        for size in SIZES:
            for seed in range(seeds):
                one, drawn = Planted("answers", f"other answers, asked {way}", size, seed), bench.draw(seed)
                other = answer_defects.noisy_outputs(healthy, bench.answer, bench.config.task, size, one.random())
                told = bench.truth(other, drawn)
                told = told if told.verdict == "must catch" else replace(told, verdict="grey zone")
                suite, noisy = ({n: array[drawn.suite] for n, array in side.items()} for side in (healthy, other))
                asked = {**dict.fromkeys(ways, suite), way: noisy}
                caught = bench.gate.caught_by(bench.witness, drawn.suite, suite, PIECES, asked)
                yield trial_of(one, told, caught, {})
