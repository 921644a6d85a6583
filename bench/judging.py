"""What judging costs beside the inference it judges: lockstep's judge and Polygraphy's comparator on the same outputs.

In: the float model and lockstep's int8 artifact of the shipped classifier. Both answer the same 500 batches; then each judge,
in a process of its own, reads the answers from the same files. Out: CPU seconds of each over those of the int8 inference.
A judge's seconds hold everything it does, its start and its imports too.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import runtimes
from bench.contest import FLOAT, OURS, Built
from bench.measure import Estimate, paired_ratio
from bench.observed import Judged, written
from bench.runtimes import Batch, Run
from bench.spent import Spent, spent, step
from examples.fashion_cnn.processing import preprocess

BATCHES, ROWS, ROUNDS = 500, 8, 5
LOCKSTEP, POLYGRAPHY = "lockstep", "Polygraphy"
FASHION = Path(__file__).parents[1] / "examples" / "fashion_cnn"
COMPARE = """
import sys
from pathlib import Path
import numpy as np
from polygraphy.comparator import Comparator, CompareFunc, IterationResult, RunResults
def read(place):
    for path in sorted(Path(place).glob("*.npz")):
        with np.load(path) as outputs:
            yield IterationResult(outputs={name: outputs[name] for name in outputs.files})
results = RunResults([(place, list(read(place))) for place in sys.argv[1:]])
Comparator.compare_accuracy(results, compare_func=CompareFunc.simple())
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One judge: CPU seconds (median of rounds) and their ratio to the inference's; None where it is not installed."""

    judge: str
    cpu_s: float | None
    over_inference: Estimate | None


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured side by side: the inference's own CPU seconds, and each judge's."""

    inference_cpu_s: float
    judges: Sequence[Cost]


def costs(built: Built, folder: Path) -> Costs:
    """Rounds of inference and of each judge, in a new random order each time."""
    batches, labels = suite()
    ours = runtimes.on_onnxruntime(built.onnxruntime[OURS])
    judged = answered(folder, runtimes.on_onnxruntime(built.onnxruntime[FLOAT]), ours, batches, labels)
    contestants: dict[str, Callable[[], float]] = {
        "inference": lambda: seconds_of(ours, batches),
        LOCKSTEP: lambda: ended_well(step(folder / "work", judged.root, "parity.judge:judge", judged.arguments)),
    }
    if importlib.util.find_spec("polygraphy") is not None:
        contestants[POLYGRAPHY] = lambda: ended_well(compared(judged))
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    random = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for name in random.permutation(list(contestants)):
            seconds[name].append(contestants[name]())
    inference = np.array(seconds["inference"])
    found = {name: np.array(seconds[name]) for name in (LOCKSTEP, POLYGRAPHY) if name in seconds}
    judges = [Cost(name, float(np.median(s)), paired_ratio(s, inference)) for name, s in found.items()]
    missing = [Cost(POLYGRAPHY, None, None)] if POLYGRAPHY not in found else []
    return Costs(float(np.median(inference)), [*judges, *missing])


def suite() -> tuple[list[Batch], np.ndarray]:
    """The shipped suite in 500 batches of 8 images, and its labels."""
    count = BATCHES * ROWS
    with np.load(FASHION / "suite.npz") as arrays:
        images = preprocess({"image": arrays["image"][:count]})["image"]
        labels = arrays["labels"][:count]
    return [{"image": images[start : start + ROWS]} for start in range(0, count, ROWS)], labels


def answered(folder: Path, reference: Run, candidate: Run, batches: Sequence[Batch], labels: np.ndarray) -> Judged:
    """Both sides' answers as files, where a run would leave them."""
    pieces = np.split(labels, len(batches))
    answers = ((reference(batch), candidate(batch), label) for batch, label in zip(batches, pieces, strict=True))
    return written(folder, "classification", 10, answers)


def seconds_of(run: Run, batches: Sequence[Batch]) -> float:
    """CPU seconds of answering every batch."""
    start = time.process_time()
    for batch in batches:
        run(batch)
    return time.process_time() - start


def compared(judged: Judged) -> Spent:
    """Polygraphy's comparator as it comes, on the same files."""
    places = [str(Path(judged.arguments["places"][side]) / "outputs") for side in ("source", "observation")]
    return spent([sys.executable, "-c", COMPARE, *places])


def ended_well(found: Spent) -> float:
    if found.status:
        raise RuntimeError(f"a judge ended with {found.status}: {found.said[-500:]}")
    return found.cpu_s
