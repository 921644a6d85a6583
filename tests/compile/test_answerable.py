"""What the source itself raises is told as a mistake in the data, with its place; what the machine lacks is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compile.answerable import answering
from compile.dataset import names_of
from compile.errors import ConfigError, ToolchainError
from compile.kept import Batch
from compile.signature import Axis, Signature, Tensor

SIGNATURE = Signature(
    inputs=(Tensor("ids", "int64", ("batch", 2)),),
    outputs=(Tensor("y", "float32", ("batch",)),),
    axes={"batch": Axis(1, 1, 64)},
)
NAMES = np.array(list("abcde"))
BATCHES = [{"ids": np.array([[1, 2], [3, 4]])}, {"ids": np.array([[5, 6], [7, 99], [9, 0]])}]


def raising(error: Exception) -> ConfigError | Exception:
    """What comes of a source that raises on the second batch."""

    def infer(feeds: Batch) -> Batch:
        if feeds["ids"].max() > 50:
            raise error
        return feeds

    run = answering(infer, SIGNATURE, lambda: NAMES, "suite")
    run(BATCHES[0])
    with pytest.raises(Exception) as raised:  # noqa: PT011  # which one is what the tests ask
        run(BATCHES[1])
    return raised.value


def test_the_batch_its_rows_its_ranges_and_the_first_line_are_told() -> None:
    found = raising(IndexError("index out of range in self\nmore"))
    assert isinstance(found, ConfigError)
    assert str(found) == (
        "suite batch 1 (rows `c` to `e`): the source model itself raised IndexError: index out of range in self. "
        "The batch holds `ids` from 0 to 99; expected rows that the source can answer"
    )


@pytest.mark.parametrize(
    "error", [ToolchainError("two outputs"), MemoryError(), RuntimeError("can't allocate memory: 9 GB")]
)
def test_what_is_not_the_datas_fault_stays_what_it_is(error: Exception) -> None:
    assert raising(error) is error


def test_rows_are_called_by_their_id_their_number_or_of_inputs_alone_their_place(tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    for number, batch in enumerate(BATCHES):
        np.savez(tmp_path / "batches" / f"{number:05d}.npz", **batch)  # type: ignore[arg-type]
    assert names_of(tmp_path, SIGNATURE).tolist() == [0, 1, 2, 3, 4]
    np.savez(tmp_path / "columns.npz", row=np.array([1, 0, 2, 4, 3]))
    assert names_of(tmp_path, SIGNATURE).tolist() == [1, 0, 2, 4, 3]
    np.savez(tmp_path / "columns.npz", row=np.array([1, 0, 2, 4, 3]), id=NAMES)
    assert names_of(tmp_path, SIGNATURE).tolist() == list("baced")
