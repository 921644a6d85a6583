"""The golden self-test that travels with an artifact: a few inputs of the suite, the answers expected, how near.

Written at publish, run by `lockstep verify DIR --run` on the consumer's own machine with the artifact's own runtime.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from compile import build
from compile.config import load_target
from compile.errors import IntegrityError, ToolchainError
from compile.line import Line
from parity import observe
from parity.check import Outcome
from parity.verdict import Status

ROWS = 8
LEAST_SQNR_DB = {"float32": 60.0, "float16": 35.0, "int8": 30.0}
"""Between two machines: float32 sums in another order (above 100 dB seen), int8 with another kernel's rounding."""
AGAINST_SOURCE_DB = 15.0
"""Where only other hardware could be observed, the source's answers are what is expected: the policy's own SQNR."""
TIME_S = 600


def write(line: Line, outcome: Outcome, place: Path) -> None:
    """`golden/` and `job.json` in a target's release folder."""
    import numpy as np

    target = load_target(line.project, outcome.name)
    suite = build.data(line, "suite")
    deferred = outcome.status == Status.DEFERRED
    observed = observe.source(line) if deferred else observe.observation(line, outcome.name)
    first = sorted((suite.folder / "batches").glob("*.npz"))[0]
    folder = place / "golden"
    (folder / "batches").mkdir(parents=True)
    (folder / "expected").mkdir()
    axes = {t.name: t.batch_axis for t in (*line.config.signature.inputs, *line.config.signature.outputs)} | {
        "stream": 0
    }
    for origin, to in ((first, folder / "batches"), (observed.folder / "outputs" / first.name, folder / "expected")):
        with np.load(origin, allow_pickle=False) as arrays:
            np.savez(to / "00000.npz", **{n: _first_rows(arrays[n], axes[n]) for n in arrays.files if n in axes})
    least = AGAINST_SOURCE_DB if deferred else LEAST_SQNR_DB[target.precision]
    facts = {"least_sqnr_db": least, "expected_from": "source" if deferred else "observation", "rows": ROWS}
    (folder / "golden.json").write_text(json.dumps(facts, sort_keys=True))
    document = {
        "target_file": "target.py",
        "options": target.options,
        "precision": target.precision,
        "signature": line.config.signature.document(),
        "graph": "graph.onnx",
        "artifact": ".",
        "twin": None,
        "batches": "golden/batches",
    }
    (place / "job.json").write_text(json.dumps(document, sort_keys=True, indent=1))


def _first_rows(array: Any, axis: int | None) -> Any:
    import numpy as np

    return array if axis is None else np.take(array, range(min(ROWS, array.shape[axis])), axis=axis)


def run(place: Path) -> str:
    """Run the self-test of a pulled target; a sentence when it holds, IntegrityError when it does not."""
    job = json.loads((place / "job.json").read_text())
    facts = json.loads((place / "golden" / "golden.json").read_text())
    absolute = {key: str((place / job[key]).resolve()) for key in ("target_file", "artifact", "batches")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(json.dumps({**job, **absolute}))
        command = [sys.executable, "-I", "-B", str(place / "worker.py"), str(folder), "answer"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_S, check=False)
            result = json.loads((folder / "result.json").read_text())
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"self-test: the artifact's runtime gave no result: {error}") from error
        if "unavailable" in result:
            reason = result["unavailable"]
            raise ToolchainError(f"self-test: {reason['reason']}; run it on the hardware this artifact is for")
        if done.returncode:
            raise ToolchainError(
                f"self-test: {result.get('error', done.stderr[-500:])}; this machine needs the artifact's runtime, "
                f"see `runtime` in manifest.json, and numpy"
            )
        worst = _worst_sqnr_db(place / "golden" / "expected", folder / "outputs")
    if not worst >= facts["least_sqnr_db"]:
        raise IntegrityError(
            f"self-test: answers are {worst:.1f} dB from those expected; expected at least {facts['least_sqnr_db']:g} dB. "
            f"This machine ({result['fingerprint']['cpu']}) does not compute what was judged: do not serve from it"
        )
    if worst == float("inf"):
        return "self-test holds: exactly the expected answers"
    return f"self-test holds: {worst:.1f} dB to the expected answers (at least {facts['least_sqnr_db']:g} dB)"


def _worst_sqnr_db(expected: Path, found: Path) -> float:
    """Smallest SQNR over the float outputs; minus infinity where an integer output differs, or nothing is there."""
    import numpy as np

    levels: list[float] = []
    for path in sorted(expected.glob("*.npz")):
        with np.load(path) as one, np.load(found / path.name) as other:
            levels += [_sqnr_db(one[name], other[name]) if name in other.files else -np.inf for name in one.files]
    return float(np.min(levels)) if levels else float("-inf")  # NaN stays NaN, and is not at least anything


def _sqnr_db(expected: Any, found: Any) -> float:
    import numpy as np

    if np.array_equal(expected, found):
        return float("inf")
    if expected.shape != found.shape or expected.dtype.kind != "f":
        return float("-inf")
    exact = expected.astype(np.float64)
    noise, power = float(((exact - found) ** 2).sum()), float((exact**2).sum())
    return 10 * float(np.log10(power / noise)) if power else float("-inf")
