"""Run one target's code in a process of its own: `python -I worker.py JOB_FOLDER VERB`.

In: `job.json` in the folder (target file, options, signature, where inputs and artifacts lie).
Out: `result.json` there, and the files that the verb makes. Verbs:

- `probe`    what this machine can build and run, and why not
- `build`    `graph.onnx` -> files in `artifact/`
- `answer`   the artifact's outputs on every batch of the inputs -> `outputs/NNNNN.npz`; where the job says so, those of the
             first batch once more, and of some of its rows alone -> `outputs/again/`
- `try`      `build`, then `answer`, in one process
- `time`     latency of the artifact, beside its float twin where there is one, in alternation
- `carry`    `answer` and `time` of a bundle, away from lockstep, into `observation/` with the digests of what was read

This file must run where lockstep is not installed: the standard library and numpy alone. The target's file is
loaded by path and gives three functions: `probe() -> dict`, `build(job) -> dict` and
`load(job, artifact) -> (infer, effective)`, where `infer` maps input arrays to output arrays by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Document = dict[str, Any]
Arrays = dict[str, Any]
Infer = Callable[[Arrays], Arrays]

LATENCY_RUNS = 200
LATENCY_SECONDS = 3.0
WARMUP_RUNS = 10
MOST_ALONE = 16
"""In so many batches of the least size rows are asked once more."""


class Unavailable(Exception):
    """This machine cannot do it: the reason, and the fix. Becomes DEFERRED, never a pass."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}; {fix}")
        self.reason, self.fix = reason, fix


class Job:
    """What a target's functions see: the folder, the options, the signature of the model."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        document = json.loads((self.folder / "job.json").read_text())
        self.options = document["options"]
        self.precision = document["precision"]
        self.signature = document["signature"]
        self.graph = self.folder / document["graph"]
        self.artifact = self.folder / document["artifact"]
        self.twin = self.folder / document["twin"] if document["twin"] else None
        self.batches = self.folder / document["batches"]
        self.target_file = self.folder / document["target_file"]
        self.again = document.get("again", False)

    Unavailable = Unavailable

    def shape(self, tensor: Document, bound: str) -> list[int]:
        """Sizes of one tensor with each named axis at its `least`, `typical` or `most`."""
        return sizes(self.signature, tensor, bound)


def sizes(signature: Document, tensor: Document, bound: str) -> list[int]:
    """The sizes of a tensor's axes at one of their bounds."""
    return [signature["axes"][d][bound] if isinstance(d, str) else d for d in tensor["shape"]]


def answer(job: Job, infer: Infer) -> None:
    """Run every batch of the job's inputs in order and write the outputs beside them, state carried by stream."""
    import numpy as np

    folder = job.folder / "outputs"
    folder.mkdir(exist_ok=True)
    memory = Memory(job.signature)
    kept = job.signature["state"].values()
    for path in sorted(job.batches.glob("*.npz")):
        with np.load(path, allow_pickle=False) as batch:
            feeds = {name: batch[name] for name in batch.files}
        streams = feeds.pop("stream", None)
        outputs = infer({**feeds, **memory.read(streams, rows_in(job.signature, feeds))})
        memory.write(streams, outputs)
        np.savez(folder / path.name, **{k: v for k, v in outputs.items() if k not in kept})
    if job.again:
        ask_again(job, infer)


def ask_again(job: Job, infer: Infer) -> None:
    """The first batch once more -> `whole.npz`; then its first rows in batches of the least size -> `NN.npz`; what an artifact
    raises there -> `failed.txt`. Of a model with state both start at zeros, as that batch did."""
    import numpy as np

    folder = job.folder / "outputs" / "again"
    folder.mkdir()
    path = min(job.batches.glob("*.npz"), default=None)
    if path is None:
        return
    with np.load(path, allow_pickle=False) as batch:
        feeds = {name: batch[name] for name in batch.files if name != "stream"}
    rows, memory = rows_in(job.signature, feeds), Memory(job.signature)
    least = job.signature["axes"].get("batch", {"least": rows})["least"]
    parts = {"whole": range(rows)}
    if least < rows:
        starts = range(0, min(MOST_ALONE * least, rows - least + 1), least)
        parts |= {f"{number:02d}": range(start, start + least) for number, start in enumerate(starts)}
    for name, chosen in parts.items():
        try:
            outputs = infer({**picked(job.signature, feeds, chosen), **memory.read(None, len(chosen))})
        except Exception as error:
            (folder / "failed.txt").write_text(f"{len(chosen)} {type(error).__name__}: {error}")
            return
        np.savez(folder / f"{name}.npz", **outputs)


def picked(signature: Document, feeds: Arrays, rows: range) -> Arrays:
    """These rows of a batch."""
    import numpy as np

    axes = {t["name"]: t["shape"].index("batch") for t in signature["inputs"] if "batch" in t["shape"]}
    return {n: np.take(a, list(rows), axis=axes[n]) if n in axes else a for n, a in feeds.items()}


class Memory:
    """The state of every stream, kept between steps; a stream seen for the first time starts at zeros."""

    def __init__(self, signature: Document) -> None:
        self.fed_by = signature["state"]
        self.tensors = {t["name"]: t for t in signature["inputs"] if t["name"] in self.fed_by}
        self.axes = {name: tensor["shape"].index("batch") for name, tensor in self.tensors.items()}
        self.zeros = {name: zeros(signature, tensor) for name, tensor in self.tensors.items()}
        self.streams: dict[int | None, Arrays] = {}

    def read(self, streams: Any, rows: int) -> Arrays:
        """State inputs for a batch of `rows` rows that belong to `streams` (or to none, and start at zeros)."""
        import numpy as np

        keys = [None] * rows if streams is None else [int(s) for s in streams]
        held = [self.streams.get(key, self.zeros) for key in keys]
        return {name: np.stack([h[name] for h in held], axis=axis) for name, axis in self.axes.items()}

    def write(self, streams: Any, outputs: Arrays) -> None:
        """Keep what each row's state outputs say, for the next step of its stream."""
        import numpy as np

        for row, key in enumerate(() if streams is None else streams):
            taken = {n: np.take(outputs[self.fed_by[n]], row, axis=axis) for n, axis in self.axes.items()}
            self.streams[int(key)] = taken


def zeros(signature: Document, tensor: Document) -> Any:
    """The state of one stream before its first step: zeros, without the batch axis."""
    import numpy as np

    shape = sizes(signature, tensor, "typical")
    del shape[tensor["shape"].index("batch")]
    return np.zeros(shape, tensor["dtype"])


def rows_in(signature: Document, feeds: Arrays) -> int:
    """How many rows a batch holds: the size of its first batch axis."""
    for tensor in signature["inputs"]:
        if tensor["name"] in feeds and "batch" in tensor["shape"]:
            return int(feeds[tensor["name"]].shape[tensor["shape"].index("batch")])
    return 1


def typical_feeds(job: Job) -> Arrays:
    """Real inputs of the suite at the typical size of every axis: the batch nearest to it, repeated or cut to fit."""
    import numpy as np

    inputs = [t for t in job.signature["inputs"] if t["name"] not in job.signature["state"]]
    wanted = {t["name"]: sizes(job.signature, t, "typical") for t in inputs}

    def distance(batch: Arrays) -> float:
        pairs = [
            (have, want)
            for t in inputs
            for have, want, axis in zip(batch[t["name"]].shape, wanted[t["name"]], t["shape"], strict=True)
            if axis != "batch"
        ]
        return sum(abs(math.log(max(have, 1) / want)) for have, want in pairs)

    nearest, least = {}, math.inf
    for path in sorted(job.batches.glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            batch = {t["name"]: arrays[t["name"]] for t in inputs}
        if (far := distance(batch)) < least:
            nearest, least = batch, far
        if least == 0:
            break
    feeds = {name: fitted(array, wanted[name]) for name, array in nearest.items()}
    batch_axis = job.signature["axes"].get("batch", {"typical": 1})
    feeds.update(Memory(job.signature).read(None, batch_axis["typical"]))
    return feeds


def fitted(array: Any, shape: list[int]) -> Any:
    """An array cut to a shape, or repeated from its start where it is shorter."""
    import numpy as np

    for axis, size in enumerate(shape):
        if array.shape[axis] != size:
            array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return array


def measure(infers: dict[str, Infer], feeds: Arrays) -> dict[str, list[float]]:
    """Seconds per call of each callable on the same inputs, in alternation, so that they share the noise."""
    for infer in infers.values():
        for _ in range(WARMUP_RUNS):
            infer(feeds)
    seconds: dict[str, list[float]] = {name: [] for name in infers}
    start = time.perf_counter()
    while len(next(iter(seconds.values()))) < LATENCY_RUNS and time.perf_counter() - start < LATENCY_SECONDS * len(
        infers
    ):
        for name, infer in infers.items():
            begin = time.perf_counter()
            infer(feeds)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def fingerprint() -> Document:
    """What could make the same artifact answer differently or at another speed."""
    flags = ""
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
        wanted = (
            "avx2",
            "avx512f",
            "avx512_vnni",
            "avx_vnni",
            "avx512_bf16",
            "amx_int8",
            "amx_bf16",
            "asimddp",
            "i8mm",
        )
        have = (found.get("flags") or found.get("Features") or "").split()
        flags = " ".join(w for w in wanted if w in have)
        cpu = found.get("model name", platform.processor())
    else:
        cpu = platform.processor()
    nvidia = sorted(p.name for p in Path("/dev").glob("nvidia[0-9]*"))
    return {
        "machine": platform.machine(),
        "accelerators": nvidia,
        "system": platform.system(),
        "cpu": cpu,
        "isa": flags,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def load_target(path: Path) -> Any:
    """The target's file as a module, by path, so that its name cannot shadow the package it drives."""
    spec = importlib.util.spec_from_file_location(f"lockstep_target_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checked_build(job: Job, target: Any) -> Document:
    """What the target's `build` says of the artifact that it made."""
    job.artifact.mkdir(exist_ok=True)
    built: Document = target.build(job) or {}
    missing = [key for key in ("entry", "runtime", "layers", "effective") if key not in built]
    if missing:
        raise TypeError(
            f"{job.target_file.name}: `build` gave no {', '.join(missing)}; docs/targets.md says what it gives"
        )
    return built


def perform(job: Job, verb: str, target: Any) -> Document:
    """The result document of one verb."""
    if verb in ("build", "try"):
        built = checked_build(job, target)
        if verb == "build":
            return {"built": built}
    loaded = target.load(job, job.artifact)
    if not isinstance(loaded, tuple) or len(loaded) != 2:
        raise TypeError(
            f"{job.target_file.name}: `load` gave {type(loaded).__name__}; expected (infer, what really runs)"
        )
    infer, effective = loaded
    if verb in ("answer", "try"):
        answer(job, infer)
        return {"effective": effective}
    infers = {"artifact": infer}
    if job.twin:
        infers["float"] = target.load(job, job.twin)[0]
    feeds = typical_feeds(job)
    shapes = {name: list(array.shape) for name, array in feeds.items()}
    return {"effective": effective, "shapes": shapes, "seconds": measure(infers, feeds)}


def carry(job: Job, target: Any) -> Document:
    """Observe a bundle where it lies: outputs, timings, fingerprint, and the digests of what was really read."""
    bundle = json.loads((job.folder / "bundle.json").read_text())
    answered, timed = perform(job, "answer", target), perform(job, "time", target)
    place = job.folder / "observation"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (job.folder / "outputs").rename(place / "outputs")
    document = {
        **answered,
        "seconds": timed["seconds"],
        "shapes": timed["shapes"],
        "fingerprint": fingerprint(),
        "model": bundle["model"],
        "target": bundle["target"],
        "outputs": file_digests(place / "outputs"),
        "digests": {"artifact": tree_digest(job.artifact), "suite inputs": tree_digest(job.batches)},
    }
    (place / "observation.json").write_text(json.dumps(document, indent=1, sort_keys=True))
    return {"carried": str(place)}


def file_digests(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file below a folder."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def tree_digest(folder: Path) -> str:
    """One digest of a folder's files: SHA-256 of the canonical JSON of path -> SHA-256."""
    text = json.dumps(file_digests(folder), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def main(folder: str, verb: str) -> int:
    try:
        job = Job(folder)
        target = load_target(job.target_file)
        verbs = {"probe": lambda: {"probe": target.probe()}, "carry": lambda: carry(job, target)}
        result = verbs.get(verb, lambda: perform(job, verb, target))()
    except Unavailable as error:
        result = {"unavailable": {"reason": error.reason, "fix": error.fix}}
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    result["fingerprint"] = fingerprint()
    (Path(folder) / "result.json").write_text(json.dumps(result, indent=1))
    if verb == "carry":
        reason = result.get("unavailable", {}).get("reason")
        print(result.get("carried") or f"nothing was observed: {reason or result['error']}")
    if "unavailable" in result and verb == "carry":
        return 1
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
