"""The step that plants: graphs with a defect, inputs with a defect, and the batches that every planted artifact answers.

In: the dialect's graph, the suite's batches and the pool's. Out: `batches/` (both, one after the other), `graphs/NNNN.onnx`, and
`planted.json`: the kind, size and seed of each defect of a graph or of inputs. Inputs are planted when they are needed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from compile.config import load_model
from compile.dataset import columns_of
from compile.project import Project
from parity.selftest import graph_defects, input_defects
from parity.selftest.witness import refuse_too_few

SIZES = (0.01, 0.05, 0.2, 1.0)
STATE_RESET = "state reset"
OFFSET = 1 << 20
"""What is added to the stream numbers of the pool, so that none of its streams goes on with another's state."""


@dataclass(frozen=True, slots=True)
class Planted:
    """One defect. `place`: graph, inputs, answers or integrity; `number`: which file or folder holds it, -1 for none."""

    place: str
    kind: str
    size: float
    seed: int
    number: int = -1

    def random(self) -> np.random.Generator:
        """Numbers of its own: the same defect is planted the same way again."""
        return np.random.default_rng([zlib.crc32(self.kind.encode()), round(self.size * 1000), self.seed])


def plant(project: Project, made: Path, model: str, graph: str, parts: list[str], seeds: int) -> None:
    """`parts`: the folders whose `batches` are answered; `seeds`: how many defects of each kind and size."""
    config = load_model(project, model)
    refuse_too_few([columns_of(Path(part)) for part in parts])
    merge(made / "batches", [Path(part) / "batches" for part in parts])
    planted = [*_graphs(made / "graphs", Path(graph), seeds)]
    floats = any(t.dtype.startswith("float") for t in config.signature.data_inputs)
    planted += _inputs(max(1, seeds // 2) if floats else 0, streaming=bool(config.signature.state))
    (made / "planted.json").write_text(json.dumps([asdict(one) for one in planted], indent=1))


def merge(folder: Path, parts: list[Path]) -> None:
    """All batches in one folder, in order; the streams of each part stay its own."""
    folder.mkdir(parents=True)
    number = 0
    for place, part in enumerate(parts):
        for path in sorted(part.glob("*.npz")):
            with np.load(path, allow_pickle=False) as batch:
                arrays = {name: batch[name] for name in batch.files}
            if "stream" in arrays:
                arrays["stream"] = arrays["stream"] + place * OFFSET
            np.savez(folder / f"{number:05d}.npz", **arrays)
            number += 1


def _graphs(folder: Path, graph: Path, seeds: int) -> Iterator[Planted]:
    import onnx

    folder.mkdir()
    healthy = onnx.load(graph)
    number = 0
    for kind, defect in graph_defects.defects(healthy).items():
        for size in SIZES:
            for seed in range(seeds):
                one = Planted("graph", kind, size, seed, number)
                changed = onnx.ModelProto()
                changed.CopyFrom(healthy)
                defect(changed, size, one.random())
                onnx.save(changed, folder / f"{number:04d}.onnx")
                yield one
                number += 1


def _inputs(seeds: int, *, streaming: bool) -> list[Planted]:
    kinds = [*input_defects.DEFECTS, *([STATE_RESET] if streaming else [])]
    return [Planted("inputs", kind, size, seed) for kind in kinds for size in SIZES for seed in range(seeds)]


def write_inputs(batches: Path, folder: Path, one: Planted) -> None:
    """All batches with one defect in their float inputs."""
    folder.mkdir(parents=True)
    random = one.random()
    for number, path in enumerate(sorted(batches.glob("*.npz"))):
        with np.load(path, allow_pickle=False) as batch:
            arrays = {name: batch[name] for name in batch.files}
        if one.kind == STATE_RESET:
            lost = random.random(len(arrays["stream"])) < one.size
            arrays["stream"] = np.where(lost, -1 - number * OFFSET - np.arange(len(lost)), arrays["stream"])
        else:
            arrays = input_defects.planted(arrays, one.kind, one.size, random)
        np.savez(folder / path.name, **arrays)


def rebatch(batches: Path, folder: Path, rows: int) -> None:
    """The same rows in batches of at most `rows`."""
    folder.mkdir(parents=True)
    for path in sorted(batches.glob("*.npz")):
        with np.load(path, allow_pickle=False) as batch:
            arrays = {name: batch[name] for name in batch.files}
        count = len(next(iter(arrays.values())))
        for start in range(0, count, rows):
            piece = {name: array[start : start + rows] for name, array in arrays.items()}
            np.savez(folder / f"{path.stem}-{start:06d}.npz", **piece)
