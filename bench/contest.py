"""One case on one runtime: float, the vendor's quantizer and ours, built, judged and timed side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from bench import measure, rivals, runtimes
from bench.cases import Case
from bench.measure import Estimate
from bench.runtimes import Run
from compile.export import export_torch
from compile.quantize import quantize

FLOAT, OURS = "float", "lockstep"
STATIC, STATIC_DEFAULT = "quantize_static", "quantize_static, defaults"
NNCF = "NNCF"


@dataclass(frozen=True, slots=True)
class Standing:
    """One contestant: seconds per call (median of rounds), bytes on disk, and its agreement with float.

    The mean over samples, the smallest of all, and the smallest of a hundred: the one minimum of a whole suite hangs
    on one sample, the mean of the minima of its hundreds does not.
    """

    latency_s: float
    size_bytes: int
    mean: float
    minimum: float
    minimum_of_100: float


@dataclass(frozen=True, slots=True)
class Contest:
    """What was measured of one case on one runtime.

    `ratios`: our latency over the other's. `gains`: our agreement less the other's, paired by sample, and
    `gains_of_100` the same of the minima of hundreds.
    """

    case: str
    runtime: str
    quantizer: str
    standings: Mapping[str, Standing]
    ratios: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]
    gains_of_100: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Built:
    """The files of one case: the float graph, ours, and the rivals' by runtime and name."""

    case: Case
    quantizer: str
    onnxruntime: Mapping[str, Path]
    openvino: Mapping[str, Path]


def build(case: Case, folder: Path) -> Built:
    """Export, quantize and let the rivals quantize; the same float graph and the same calibration for all."""
    folder.mkdir(parents=True, exist_ok=True)
    example = {name: array[:1] for name, array in case.calibration[0].items()}
    graph = export_torch(case.module, case.signature, example)
    quantized, quantizer = quantize(case.module, graph, case.signature, case.calibration, case.recipe)
    floats, ours = folder / "float.onnx", folder / "lockstep.onnx"
    onnx.save(graph, floats)
    onnx.save(quantized, ours)
    operators = ("MatMul", "Gemm") if case.transformer else None
    static = rivals.onnxruntime_static(graph, case.calibration, folder / "static.onnx", operators=operators)
    plain = rivals.onnxruntime_defaults(graph, case.calibration, folder / "defaults.onnx", operators=operators)
    nncf = rivals.nncf_quantized(floats, case.calibration, folder / "nncf.xml", transformer=case.transformer)
    return Built(
        case,
        quantizer,
        onnxruntime={FLOAT: floats, STATIC: static, STATIC_DEFAULT: plain, OURS: ours},
        openvino={FLOAT: floats, NNCF: nncf, OURS: runtimes.openvino_artifact(ours, folder / "lockstep")},
    )


def compete(built: Built, runtime: str, *, rounds: int) -> Contest:
    """Load the contestants of one runtime, judge them on the suite and time them in interleaved rounds."""
    load, paths = {
        "ONNX Runtime": (runtimes.on_onnxruntime, built.onnxruntime),
        "OpenVINO": (runtimes.on_openvino, built.openvino),
    }[runtime]
    runs: dict[str, Run] = {name: load(path) for name, path in paths.items()}
    reference = [runs[FLOAT](batch) for batch in built.case.suite]
    seconds = measure.interleaved({name: partial(run, built.case.timed) for name, run in runs.items()}, rounds=rounds)
    scores = {
        name: built.case.agreement([run(batch) for batch in built.case.suite], reference) for name, run in runs.items()
    }
    standings = {
        name: Standing(
            measure.typical(seconds[name]),
            size_on_disk(paths[name]),
            float(score.mean()),
            float(score.min()),
            float(minima(score).mean()),
        )
        for name, score in scores.items()
    }
    others = [name for name in runs if name != OURS]
    return Contest(
        built.case.name,
        runtime,
        built.quantizer,
        standings,
        ratios={name: measure.paired_ratio(seconds[OURS], seconds[name]) for name in others},
        gains={name: measure.paired_difference(scores[OURS], scores[name]) for name in others},
        gains_of_100={name: measure.paired_difference(minima(scores[OURS]), minima(scores[name])) for name in others},
    )


def minima(scores: np.ndarray) -> np.ndarray:
    """The smallest score of each hundred samples."""
    hundreds = len(scores) // 100
    smallest: np.ndarray = scores[: hundreds * 100].reshape(hundreds, 100).min(1)
    return smallest


def size_on_disk(path: Path) -> int:
    """The bytes of a model, with the weights that OpenVINO keeps in a file beside it."""
    return sum(file.stat().st_size for file in {path, path.with_suffix(".bin")} if file.exists())
