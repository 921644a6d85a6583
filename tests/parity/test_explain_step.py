"""Which rung is the step, where more than one breaks: the last, or an earlier one that brings more of the error."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from parity.explain.experiment.ladder import Rung, RungName, Standing, adds, culprit
from parity.statistics.counted import Interval


def stands(
    name: RungName, step: float, *, broke: bool = True, leads: bool = True, equal: Interval | None = None
) -> Standing:
    return Standing(Rung(name, Path(), leads=leads), equal, 0, 64, step, step, 0.0, (), broke)


@pytest.mark.parametrize(
    ("steps", "culprits"),
    [
        ({"exported graph": 2.2, "quantized graph simulated": 1e-4}, "exported graph"),
        ({"exported graph": 1e-12, "quantized graph simulated": 1e-4}, "quantized graph simulated"),
        ({"quantized graph simulated": 1e-2, "artifact as found": 1e-3}, "artifact as found"),
        ({"exported graph": 0.1, "quantized graph simulated": 1e-2, "artifact as found": 0.5}, "artifact as found"),
        ({"exported graph": 0.1, "quantized graph simulated": 1e-2, "artifact as found": 0.02}, "exported graph"),
        ({"exported graph": math.inf, "quantized graph simulated": math.inf}, "exported graph"),
    ],
)
def test_the_step_is_the_rung_that_brings_most_of_what_was_not_asked_for(
    steps: dict[RungName, float], culprits: RungName
) -> None:
    found = culprit([stands("source", 0.0, broke=False), *(stands(name, step) for name, step in steps.items())])
    assert found is not None
    assert found.rung.name == culprits


def test_a_rung_beside_the_way_or_within_its_floor_is_no_step() -> None:
    beside = [stands("exported graph", 1e-12, broke=False), stands("runtime's defaults", 0.1, leads=False)]
    assert culprit(beside) is None


@pytest.mark.parametrize(
    ("step", "equal", "told"),
    [
        (1e-2, Interval(1.0, 0.99, 1.0), True),
        (1e-4, Interval(1.0, 0.99, 1.0), False),
        (1e-4, Interval(0.96, 0.95, 0.97), True),
    ],
)
def test_what_breaks_behind_the_step_is_told_where_it_is_loud_or_fewer_answers_are_equal(
    step: float, equal: Interval, told: bool
) -> None:
    broken = stands("exported graph", 1.0, equal=Interval(1.0, 0.99, 1.0))
    assert adds(stands("quantized graph simulated", step, equal=equal), broken) is told


def test_what_was_found_and_answers_as_the_source_does_has_no_step() -> None:
    """A sound file beside a line whose own export is broken: the file is what was asked about."""
    broken = [stands("exported graph", 1.0), stands("artifact as found", 1.0)]
    assert culprit(broken) is not None
    assert culprit([broken[0], replace(broken[1], as_source=True)]) is None
    assert culprit([replace(broken[0], as_source=True), broken[1]]) is not None
