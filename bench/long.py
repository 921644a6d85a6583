"""`python -m bench.long`: what judging costs beside five minutes of inference.

In: two models in int8, the encoder (milliseconds a row) and the shipped classifier (less than a tenth of one). Each answers
batch after batch until it has spent `--seconds` of CPU; then lockstep judges those answers, beside the same with a hundredth of
noise for the source's, with every metric of the task, in a process of its own. Out: CPU seconds of both and their ratio, printed
and written to `bench/long.json`. One run of each, so no interval: what is asked is whether it is a tenth or less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np

from bench import encoder, runtimes
from bench.cases import Case, encoder_case, fashion_case
from bench.judging import ended_well
from bench.observed import BATCH, NOISE, Kind, written
from bench.report import machine
from bench.runtimes import Batch, Run
from bench.spent import step
from compile.export import export_torch
from compile.quantize import quantize
from examples.fashion_cnn.processing import preprocess

RESULTS = Path(__file__).with_suffix(".json")
MOST = 0.1
KINDS = 100
Answered = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(slots=True)
class Long:
    """One model: rows that were answered, CPU seconds of its int8 inference and of judging it."""

    model: str
    rows: int = 0
    inference_cpu_s: float = 0.0
    judging_cpu_s: float = 0.0

    @property
    def share(self) -> float:
        return self.judging_cpu_s / self.inference_cpu_s

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.rows:,} rows, inference {self.inference_cpu_s:.0f} CPU s, judging "
            f"{self.judging_cpu_s:.1f} CPU s: {self.share:.1%} ({'at most' if self.share <= MOST else 'over'} {MOST:.0%})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.long", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="CPU seconds of inference (%(default)s)")
    seconds = parser.parse_args().seconds
    found = [
        measured(encoder_case(), "embedding", encoder.HIDDEN, sentences(), seconds),
        measured(fashion_case(), "classification", 10, images(), seconds),
    ]
    document = {"machine": machine(), "models": [{**asdict(one), "share": one.share} for one in found]}
    RESULTS.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def measured(case: Case, kind: Kind, width: int, batches: Iterator[tuple[Batch, np.ndarray]], seconds: float) -> Long:
    """Answer until `seconds` are spent, then judge."""
    found = Long(case.name)
    with tempfile.TemporaryDirectory() as folder:
        run = artifact(case, Path(folder) / "int8.onnx")
        judged = written(Path(folder) / "judged", kind, width, answers(found, run, batches, seconds))
        work = Path(folder) / "work"
        found.judging_cpu_s = ended_well(step(work, judged.root, "parity.judge:judge", judged.arguments))
    print(found, flush=True)
    return found


def artifact(case: Case, path: Path) -> Run:
    """The int8 artifact on ONNX Runtime."""
    graph = export_torch(case.module, case.signature, {name: array[:1] for name, array in case.calibration[0].items()})
    quantized, _ = quantize(case.module, graph, case.signature, case.calibration, case.recipe)
    path.write_bytes(quantized.SerializeToString())
    return runtimes.on_onnxruntime(path)


def answers(found: Long, run: Run, batches: Iterator[tuple[Batch, np.ndarray]], seconds: float) -> Iterator[Answered]:
    """What the artifact says to each batch, that with noise, and the labels; counts what the artifact spent."""
    random = np.random.default_rng(1)
    for batch, labels in batches:
        start = time.process_time()
        answer = run(batch)
        found.inference_cpu_s += time.process_time() - start
        found.rows += len(labels)
        noise = NOISE * answer.std() * random.standard_normal(answer.shape, np.float32)
        yield answer + noise, answer, labels
        if found.inference_cpu_s >= seconds:
            return


def sentences() -> Iterator[tuple[Batch, np.ndarray]]:
    """Sentences without end, as many at once as the line takes; the label of each is what its first word falls under."""
    for seed in count(10):
        for batch in encoder.sentences(BATCH, 64, seed):
            yield batch, batch["input_ids"][:, 0] % KINDS


def images() -> Iterator[tuple[Batch, np.ndarray]]:
    """The shipped suite again and again, in batches of the line's size, each time with other noise, so that no row is one
    that was."""
    with np.load(Path(__file__).parents[1] / "examples" / "fashion_cnn" / "suite.npz") as arrays:
        pictures, labels = preprocess({"image": arrays["image"]})["image"], arrays["labels"]
    random = np.random.default_rng(0)
    while True:
        for start in range(0, len(labels), BATCH):
            rows = slice(start, start + BATCH)
            noise = random.standard_normal(pictures[rows].shape, np.float32)
            yield {"image": pictures[rows] + 0.05 * noise}, labels[rows]


if __name__ == "__main__":
    main()
