"""What all trials of one self-test share, and how one is had: the oracle's word beside the gate's, each on rows of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compile.config import ModelFile
from parity.limit import Against, Limit
from parity.policy import Expected, Route
from parity.selftest.gate import PIECES, Caught, Gate, caught_by_tolerances
from parity.selftest.oracle import Pair, Truth, truth
from parity.selftest.plant import Planted
from parity.selftest.tally import Trial
from parity.selftest.witness import Draw, Outputs, Witness, draw, suite_units

ALWAYS = "by definition"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials share."""

    config: ModelFile
    limits: Sequence[Limit]
    witness: Witness
    most_units: int
    floors: Mapping[str, float]
    gate: Gate
    route: Route | None = None
    expected: Expected | None = None

    @property
    def answer(self) -> str:
        return self.config.task.output or self.config.signature.answers[0].name

    def draw(self, seed: int) -> Draw:
        return draw(self.witness, self.most_units, seed)

    def tried(self, one: Planted, outputs: Outputs, number: int, pieces: int = PIECES) -> Trial:
        """Oracle and gate on one candidate's outputs, each on its own rows."""
        drawn = self.draw(number)
        told = self.truth(outputs, drawn)
        suite = {name: array[drawn.suite] for name, array in outputs.items()}
        caught = self.gate.caught_by(self.witness, drawn.suite, suite, pieces)
        reference = {name: array[drawn.suite] for name, array in self.witness.source.items()}
        return trial_of(one, told, caught, caught_by_tolerances(reference, suite))

    def truth(self, outputs: Outputs, drawn: Draw) -> Truth:
        """The oracle's word on a candidate's outputs, from the pool that belongs to a drawn suite."""
        sides: dict[Against, Outputs] = {"source": self.witness.source}
        if self.witness.baseline is not None:
            sides["baseline"] = self.witness.baseline
        pool = drawn.pool
        columns = {name: values[pool] for name, values in self.witness.columns.items()}
        units = suite_units(self.witness, self.most_units)
        pairs: Mapping[Against, Pair] = {
            against: Pair(
                self.config,
                {name: array[pool] for name, array in side.items()},
                {name: array[pool] for name, array in outputs.items()},
                columns,
                np.unique(self.witness.unit[pool], return_inverse=True)[1],
                units,
                self.route,
                self.floors,
            )
            for against, side in sides.items()
        }
        return truth(pairs, self.limits, self.expected)


def trial_of(one: Planted, told: Truth, caught: Caught | None, tolerances: Mapping[str, bool]) -> Trial:
    return Trial(
        one.kind,
        one.place,
        one.size,
        one.seed,
        told.verdict,
        told.holds_by,
        told.worst,
        told.agreement,
        None if caught is None else caught.by,
        None if caught is None else caught.what,
        tolerances,
    )
