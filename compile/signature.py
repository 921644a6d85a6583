"""What a model takes and gives: names, dtypes, shapes with named axes, which outputs feed back as state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

DType = Literal["float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"]
DTYPES: tuple[str, ...] = get_args(DType)
BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. `shape` holds sizes and axis names, e.g. `("batch", 1, 28, "width")`."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]

    @property
    def batch_axis(self) -> int | None:
        """Where the axis named `batch` sits, or None for a tensor that has none."""
        return self.shape.index(BATCH) if BATCH in self.shape else None


@dataclass(frozen=True, slots=True)
class Axis:
    """The sizes a named axis may take at run time; `typical` is what latency is measured at."""

    least: int
    typical: int
    most: int


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs in the order of the model's arguments and results.

    `state` maps a state input to the output that feeds it at the next step; both are also listed in
    `inputs` and `outputs`. State starts at zeros at each new `group`.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    axes: Mapping[str, Axis]
    state: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """As plain JSON values: what a worker, which cannot import this, is given."""
        return asdict(self) | {"state": dict(self.state)}

    @property
    def data_inputs(self) -> tuple[Tensor, ...]:
        """The inputs that the data brings: all but the state."""
        return tuple(t for t in self.inputs if t.name not in self.state)

    @property
    def answers(self) -> tuple[Tensor, ...]:
        """The outputs that are judged: all but the state."""
        return tuple(t for t in self.outputs if t.name not in self.state.values())
