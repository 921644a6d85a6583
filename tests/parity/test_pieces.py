"""Outputs as they are read and walked: the same numbers as numpy reads, the same rows in fewer pieces."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compile.signature import Tensor
from parity.kinds import distinct, kinds_of
from parity.pieces import PIECE, Pair, merged, read

ARRAYS: dict[str, np.ndarray] = {
    "floats": np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32),
    "by column": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "flags": np.array([True, False]),
    "words": np.array(["a", "ünï"]),
    "one number": np.float16(2.5),
    "nothing": np.zeros((0, 7), np.int64),
    "big-endian": np.arange(4, dtype=">i4"),
}


def test_files_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **ARRAYS)
        found = read(str(tmp_path / "a.npz"))
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[name], array)
            found[name][...] = found[name]  # the user's code may write into what it is given


def test_a_byte_that_changed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, y=ARRAYS["floats"])
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["floats"].tobytes()) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match=r"a\.npz.*y\.npy"):
        read(str(path))


def test_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", y=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read(str(tmp_path / "a.npz"))


def tensor(*shape: str | int) -> Tensor:
    return Tensor(name="y", dtype="float32", shape=shape)


def pairs(sizes: list[tuple[int, ...]]) -> list[Pair]:
    random = np.random.default_rng(0)
    return [tuple({"y": random.random(size, np.float32)} for _ in range(2)) for size in sizes]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("shape", "sizes", "pieces"),
    [
        (("batch", 3), [(4, 3)] * 5 + [(2, 3)], 1),
        (("batch", "length"), [(4, 3), (4, 3), (4, 5), (4, 3)], 3),
        (("length", "batch"), [(3, 4), (3, 2), (5, 4)], 2),
        ((3,), [(3,)] * 4, 4),
        (("batch", PIECE), [(1, PIECE)] * 3, 3),
    ],
)
def test_pieces_hold_the_same_rows(shape: tuple[str | int, ...], sizes: list[tuple[int, ...]], pieces: int) -> None:
    whole, declared = pairs(sizes), tensor(*shape)
    found = list(merged(whole, [declared]))
    assert len(found) == pieces
    for side in (0, 1):
        axis = declared.batch_axis or 0
        told, kept = ([np.moveaxis(p[side]["y"], axis, 0) for p in these] for these in (whole, found))
        assert [row.tolist() for array in told for row in array] == [row.tolist() for array in kept for row in array]


def test_a_piece_is_handed_on_before_another_batch_is_read() -> None:
    """What is wide is never held twice."""
    read_so_far = 0

    def batches() -> Any:
        nonlocal read_so_far
        for pair in pairs([(1, PIECE // 4)] * 3):
            read_so_far += 1
            yield pair

    for number, _ in enumerate(merged(batches(), [tensor("batch", PIECE // 4)]), 1):
        assert read_so_far == number


@given(st.sampled_from([np.int8, np.uint64, np.int64]).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(0, 30))))
def test_whole_numbers_are_told_apart_as_numpy_does(values: np.ndarray) -> None:
    for these in (values, values % 2 == 0, values.astype(str)):
        found, place = distinct(these)
        wanted, inverse = np.unique(these, return_inverse=True)
        assert found.dtype == wanted.dtype
        assert (found.tolist(), place.tolist()) == (wanted.tolist(), inverse.tolist())


def test_rows_that_all_differ_are_kinds_of_their_own() -> None:
    table = np.random.default_rng(0).random((20_000, 2))
    for these in (table, np.round(table)):
        kinds, kind = kinds_of(these)
        np.testing.assert_array_equal(kinds[kind], these)
    assert len(kinds) == 4
