"""Latency ratios with intervals, from interleaved rounds.

Contestants (a name and a call without arguments) come in; seconds per call of every round go out. The rule: no two
numbers are compared that were not taken in the same round, and the order changes from round to round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
WARMUP_S = 0.5
ROUND_S = 0.04
"""Long enough that the clock's grain is nothing, short enough that a disturbance spoils one round, not the run."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its two-sided 95 % interval; all three equal where it is exact."""

    value: float
    low: float
    high: float


def interleaved(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Seconds per call of each contestant in each round."""
    calls = {name: calls_in_a_round(call) for name, call in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    random = np.random.default_rng(seed)
    gc.disable()
    try:
        for _ in range(rounds):
            for name in random.permutation(list(contestants)):
                seconds[name].append(timed(contestants[name], calls[name]))
    finally:
        gc.enable()
    return {name: np.array(values) for name, values in seconds.items()}


def calls_in_a_round(call: Callable[[], object]) -> int:
    """Warm a contestant up and find how many of its calls fill a round."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < WARMUP_S:
        call()
        done += 1
    return max(1, round(ROUND_S * done / elapsed))


def timed(call: Callable[[], object], count: int) -> float:
    """The median seconds of so many calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def paired_ratio(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """The geometric mean of the rounds' ratios, with Student's interval on their logarithms."""
    logs = mean_of(np.log(ours / theirs))
    return Estimate(float(np.exp(logs.value)), float(np.exp(logs.low)), float(np.exp(logs.high)))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """The mean of the samples' differences, with Student's interval."""
    return mean_of(ours - theirs)


def mean_of(values: np.ndarray) -> Estimate:
    """A mean with Student's interval."""
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)) if len(values) > 1 else 0.0
    return Estimate(mean, mean - half, mean + half)


def typical(seconds: np.ndarray) -> float:
    """The median round."""
    return float(np.median(seconds))
