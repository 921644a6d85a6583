"""`python -m bench.tuning`: what `lockstep tune` finds beside what NNCF's accuracy control finds, in one run.

Both start from the shipped encoder's float graph, calibrate on its calibration rows, and choose on its tuning rows by the same
figure: the share of the ten nearest neighbours that stay. What NNCF ends with may keep more than the policy asks, so lockstep is
also asked for as much as that keeps. All are then timed in interleaved rounds, and asked on the suite, which none has seen.
Writes `bench/tuning.json`. A bench reports; it judges no release.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench import measure, runtimes
from bench.measure import Estimate
from bench.runtimes import Batch
from compile.dataset import batches_of
from compile.quiet import quiet
from parity.answers import nearest

ROOT = Path(__file__).parents[1]
MODEL, TARGET, POLICY = "text-search", "edge-x86-openvino", "search.yaml"
OURS, AS_GOOD = "lockstep", "lockstep, asked for as much as NNCF keeps"
NNCF, NNCF_UNSMOOTHED = "NNCF accuracy control", "NNCF accuracy control, no SmoothQuant"
LEAST_OVERLAP, NEIGHBOURS, ROUNDS, TYPICAL_BATCH = 0.95, 10, 60, 8
"""The limit of `configs/policies/search.yaml`; the batch that the model's config calls typical."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one tool found: how long it looked, its overlap on the rows it chose by and on the suite, its time over float's."""

    searched_s: float
    chosen_by: float
    suite: Estimate
    over_float: Estimate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tuning", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="for lockstep's search (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds (default %(default)s)")
    arguments = parser.parse_args()
    tuned = tune(ROOT, arguments.minutes)
    searched = {OURS: searching(tuned)}
    out = ROOT / "out" / MODEL
    rows = {part: list(batches_of(out / part)) for part in ("calibration", "tuning", "suite")}
    graph = out / "graphs" / "float32" / "graph.onnx"
    with tempfile.TemporaryDirectory() as folder:
        paths = {"float": graph, OURS: artifact(ROOT, tuned["config"])}
        for name, smooth in ((NNCF, True), (NNCF_UNSMOOTHED, False)):
            start = time.perf_counter()
            written = Path(folder) / f"{int(smooth)}.xml"
            paths[name] = accuracy_control(graph, rows["calibration"], rows["tuning"], written, smooth=smooth)
            searched[name] = time.perf_counter() - start
        demanding = asking(Path(folder) / "project", kept(paths[NNCF_UNSMOOTHED], graph, rows["tuning"]))
        as_good = tune(demanding, arguments.minutes)
        searched[AS_GOOD], paths[AS_GOOD] = searching(as_good), artifact(demanding, as_good["config"])
        report(contest(paths, rows, searched, rounds=arguments.rounds), {OURS: tuned, AS_GOOD: as_good})


def tune(root: Path, minutes: float) -> dict[str, Any]:
    """What `lockstep tune --json` says in a project."""
    command = [sys.executable, "-m", "lockstep", "tune", MODEL, TARGET, "--minutes", str(minutes), "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    if not found.get("config"):
        sys.exit(f"lockstep tune found nothing that passes: {found.get('error') or found['best']['reason']}")
    return found


def searching(tuned: Mapping[str, Any]) -> float:
    """Seconds that all trials took."""
    return float(sum(trial["took_s"] for trial in tuned["trials"]))


def kept(artifact: Path, graph: Path, rows: Sequence[Batch]) -> float:
    """The mean overlap of an artifact with float on these rows."""
    truth = answers(runtimes.on_openvino(graph), rows)
    found, order = answers(runtimes.on_openvino(artifact), rows), np.arange(len(truth))
    return float(overlaps(found, truth, nearest(truth, truth, NEIGHBOURS), order).mean())


def asking(root: Path, overlap: float) -> Path:
    """This project again, with a policy that asks for more neighbours."""
    for part in ("configs", "examples"):
        shutil.copytree(ROOT / part, root / part)
    place = root / "configs" / "policies" / POLICY
    policy = yaml.safe_load(place.read_text())
    next(limit for limit in policy["limits"] if limit["metric"] == "rank_overlap")["at_least"] = overlap
    place.write_text(yaml.safe_dump(policy))
    return root


def artifact(root: Path, config: Mapping[str, str]) -> Path:
    """The bytes that the tuned config's verdict speaks of."""
    return root / "out" / config["model"] / "targets" / config["target"] / "build" / "artifact" / "model.xml"


def accuracy_control(
    graph: Path, calibration: Sequence[Batch], judging: Sequence[Batch], written: Path, *, smooth: bool
) -> Path:
    """NNCF's search, as its documentation sets it for transformers; its own figure may fall to the policy's limit.

    `smooth`: with its SmoothQuant, which is its default. Measured so, once it puts layers back to float the embeddings are
    lost (why was not looked into); it stands beside float in speed all the same. So it is also given the other way.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(graph)
    truth = answers(runtimes.on_openvino(graph), judging)
    wanted = nearest(truth, truth, NEIGHBOURS)

    def validate(compiled: openvino.CompiledModel, items: Iterable[Batch]) -> tuple[float, list[float]]:
        """The mean overlap with float, and the overlap of every item (its ranking takes subsets of them)."""
        found = np.concatenate([compiled(dict(item), share_outputs=False)[0] for item in items])
        chosen = [row_of[key] for item in items for key in keys(item)]
        shared = overlaps(found, truth, wanted, np.array(chosen))
        return float(shared.mean()), shared.tolist()

    single = [
        {name: array[i : i + 1] for name, array in b.items()} for b in judging for i in range(len(b["input_ids"]))
    ]
    row_of = {key: row for row, item in enumerate(single) for key in keys(item)}
    off = nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    unsmoothed = nncf.AdvancedQuantizationParameters(smooth_quant_alphas=off)
    with quiet():
        start, _ = validate(
            openvino.Core().compile_model(model, "CPU"), single
        )  # as NNCF itself compiles: perhaps bfloat16
        found = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(list(calibration)),
            nncf.Dataset(single),
            validate,
            max_drop=start - LEAST_OVERLAP,
            drop_type=nncf.DropType.ABSOLUTE,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            advanced_quantization_parameters=None if smooth else unsmoothed,
        )
    openvino.save_model(found, written, compress_to_fp16=False)
    return written


def keys(item: Batch) -> list[bytes]:
    return [row.tobytes() for row in item["input_ids"]]


def answers(run: runtimes.Run, batches: Sequence[Batch]) -> np.ndarray:
    """The embeddings of all rows."""
    found: np.ndarray = np.concatenate([run(batch) for batch in batches])
    return found


def overlaps(found: np.ndarray, gallery: np.ndarray, wanted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Row by row, the share of the neighbours wanted that are found, among all other rows of the float gallery."""
    items = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    cosines = (found / np.linalg.norm(found, axis=1, keepdims=True)) @ items.T
    cosines[np.arange(len(rows)), rows] = -np.inf
    near = np.argsort(-cosines, axis=1)[:, :NEIGHBOURS]
    shared: np.ndarray = np.array([len(np.intersect1d(a, b)) for a, b in zip(near, wanted[rows], strict=True)])
    return shared / NEIGHBOURS


def contest(
    paths: Mapping[str, Path], rows: Mapping[str, Sequence[Batch]], searched: Mapping[str, float], *, rounds: int
) -> dict[str, Any]:
    """Both beside float and beside each other: time in interleaved rounds, overlap on the rows chosen by and on the suite."""
    runs = {name: runtimes.on_openvino(path) for name, path in paths.items()}
    timed = {name: array[:TYPICAL_BATCH] for name, array in rows["suite"][0].items()}
    seconds = measure.interleaved({name: partial(run, timed) for name, run in runs.items()}, rounds=rounds)
    shared: dict[str, dict[str, np.ndarray]] = {}
    for part in ("tuning", "suite"):
        truth = answers(runs["float"], rows[part])
        wanted, order = nearest(truth, truth, NEIGHBOURS), np.arange(len(truth))
        shared[part] = {name: overlaps(answers(runs[name], rows[part]), truth, wanted, order) for name in searched}
    found = {
        name: Found(
            searched[name],
            float(shared["tuning"][name].mean()),
            measure.mean_of(shared["suite"][name]),
            measure.paired_ratio(seconds[name], seconds["float"]),
        )
        for name in searched
    }
    pairs = [(ours, theirs) for ours in (OURS, AS_GOOD) for theirs in (NNCF, NNCF_UNSMOOTHED)]
    return {
        "found": found,
        "time over": {pair: measure.paired_ratio(*(seconds[name] for name in pair)) for pair in pairs},
        "overlap less": {pair: measure.paired_difference(*(shared["suite"][name] for name in pair)) for pair in pairs},
    }


def report(contested: dict[str, Any], tuned: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what was found, and keep it."""
    for name, found in contested["found"].items():
        print(
            f"{name:<41} searched {found.searched_s:4.0f} s, overlap {found.chosen_by:.4f} on the rows it chose by, "
            f"{said(found.suite)} on the suite, {said(found.over_float)} × float's time"
        )
    document: dict[str, Any] = {name: asdict(found) for name, found in contested["found"].items()}
    for what in ("time over", "overlap less"):
        for (ours, theirs), estimate in contested[what].items():
            print(f"{ours}: {what} that of {theirs}: {said(estimate)}")
            document.setdefault(what, {}).setdefault(ours, {})[theirs] = asdict(estimate)
    document["recipes"] = {name: one["best"]["recipe"] for name, one in tuned.items()}
    document["verdicts on the suite"] = {name: one["verdict"]["status"] for name, one in tuned.items()}
    (ROOT / "bench" / "tuning.json").write_text(json.dumps(document, indent=1) + "\n")


def said(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


if __name__ == "__main__":
    main()
