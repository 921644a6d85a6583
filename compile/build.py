"""The stations from source to artifact: what each depends on, and where its result lies.

Every function takes the line and gives the folder of a finished step. Reading them from top to bottom is reading the
line: suite and calibration, float graph, dialect, artifact.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compile import digest
from compile.blame import in_source_terms
from compile.config import Dialect, TargetFile, load_target, toolchain_file
from compile.errors import ConfigError, ToolchainError
from compile.job import failure
from compile.line import Line, Unavailable, own_code
from compile.project import GRAPH_FILE
from compile.source import file_of
from compile.step import Record, Step, read_record
from compile.worker import fingerprint

PREPARED_BY = ("numpy",)
LOWERED_BY = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime")
QUANTIZED_BY = (*LOWERED_BY, "neural-compressor", "torchao")
WORKER = Path(__file__).parent / "worker.py"


@dataclass(frozen=True, slots=True)
class Made:
    """A finished step: where its files lie, and the digest of all of them."""

    folder: Path
    digest: str


def data(line: Line, part: str) -> Made:
    """Prepared batches and columns of the suite or of the calibration data."""
    config = line.config.suite if part == "suite" else line.config.calibration
    if config is None:
        raise ConfigError(f"configs/models/{line.model}.yaml: an int8 target needs `calibration`; it is missing")
    files = [*config.files, *([config.npz] if config.npz else [])]
    inputs = {
        f"{part} in the config": config.digest,
        "preprocess": str(line.config.preprocess),
        "inputs in the config": digest.of_document(line.config.signature.document()),
        **{name: _digest_of(line, name, part) for name in files},
        **tools(*PREPARED_BY),
    }
    step = Step(part, line.out / part, inputs)
    arguments = {"model": line.model, "part": part}
    return line.once(part, lambda: made_of(step, line.own(step, line.model, "compile.dataset:prepare", arguments)))


def fetched(line: Line) -> Made | None:
    """The files of an MLflow source, or None for a source that lies in the project."""
    uri = line.config.source.mlflow
    if uri is None:
        return None
    step = Step("fetched", line.out / "fetched", {"uri": uri, "registry": line.tracking_uri, **tools("mlflow")})
    arguments = {"uri": uri, "tracking_uri": line.tracking_uri}
    return line.once("fetched", lambda: made_of(step, line.own(step, line.model, "compile.source:fetch", arguments)))


def source_inputs(line: Line) -> dict[str, str]:
    """What the source model is: config, weights or graph bytes, or the fetched files."""
    path = file_of(line.project, line.config.source)
    inputs = {
        "source in the config": line.config.source.digest,
        "inputs and outputs in the config": digest.of_document(line.config.signature.document()),
    }
    if path is not None:
        inputs[path.relative_to(line.project.root).as_posix()] = _digest_of(line, str(path), "source")
    brought = fetched(line)
    return inputs if brought is None else inputs | {"fetched model": brought.digest}


def float_graph(line: Line) -> Made:
    suite = data(line, "suite")
    inputs = {**source_inputs(line), "example": batches_digest(suite), **tools(*LOWERED_BY)}
    step = Step("graphs/float32", line.out / "graphs" / "float32", inputs)
    arguments = {"model": line.model, "suite": str(suite.folder), "fetched": _fetched_folder(line)}
    return line.once("float32", lambda: made_of(step, line.own(step, line.model, "compile.lower:lower", arguments)))


def graph(line: Line, dialect: Dialect) -> Made:
    """The graph of one dialect; every target of that dialect shares it."""
    floats = float_graph(line)
    if dialect == "float32":
        return floats
    return line.once(dialect, lambda: _derived(line, dialect, floats))


def _derived(line: Line, dialect: Dialect, floats: Made) -> Made:
    suite = data(line, "suite")
    inputs = {"float graph": floats.digest, **tools(*QUANTIZED_BY)}
    calibration = None
    if dialect != "float16":
        calibration = data(line, "calibration")
        inputs |= {
            "calibration": calibration.digest,
            "suite, for leakage": batches_digest(suite),
            "quantize in the config": line.config.quantize.digest,
            **source_inputs(line),
        }
    step = Step(f"graphs/{dialect}", line.out / "graphs" / dialect, inputs)
    arguments = {
        "model": line.model,
        "dialect": dialect,
        "float_graph": str(floats.folder / GRAPH_FILE),
        "fetched": _fetched_folder(line),
        "suite": str(suite.folder),
        "calibration": None if calibration is None else str(calibration.folder),
    }
    return made_of(step, line.own(step, line.model, "compile.dialect:derive", arguments))


def artifact(line: Line, name: str) -> Made:
    """The compiled target: `artifact/` and `build.json`. ToolchainError where too little of it is integer."""
    target = load_target(line.project, name)
    return line.once(f"{name}/build", lambda: _compiled(line, name, target, target.dialect, "build"))


def float_twin(line: Line, name: str) -> Made:
    """The same source compiled in float by the same toolchain: what an integer artifact must beat."""
    target = load_target(line.project, name)
    return line.once(f"{name}/float", lambda: _compiled(line, name, target, "float32", "float"))


def _compiled(line: Line, name: str, target: TargetFile, dialect: Dialect, place: str) -> Made:
    source = graph(line, dialect)
    step_name = f"targets/{name}/{place}"
    inputs = {f"{dialect} graph": source.digest, **worker_inputs(line, target)}
    step = Step(step_name, line.out / "targets" / name / place, inputs)

    def run(folder: Path, what: str) -> tuple[Path, dict[str, str]]:
        job = job_document(
            line,
            target,
            graph=source.folder / GRAPH_FILE,
            precision=target.precision if place == "build" else "float32",
        )
        try:
            result = run_worker(line, target, folder, job, "build", what)
        except Unavailable:
            raise
        except ToolchainError as error:
            raise in_source_terms(error, source.folder / GRAPH_FILE) from error
        built = {**result["built"], "dialect": dialect, "fingerprint": result["fingerprint"]}
        made = folder / "made"
        made.mkdir()
        (folder / "artifact").rename(made / "artifact")
        if place == "build":
            built["quantized_share"] = checked_share(built["layers"], source.folder, target, what)
        (made / "build.json").write_text(json.dumps(built, indent=1, sort_keys=True))
        return made, {}

    return made_of(step, line.keep(step, name, run))


def checked_share(layers: list[dict[str, Any]], graph_folder: Path, target: TargetFile, what: str) -> float | None:
    """The share of the work that is integer in the graph and in what the runtime compiled: the smaller of the two."""
    if target.precision != "int8":
        return None
    counted = json.loads((graph_folder / "coverage.json").read_text())
    floats = [layer["name"] for layer in counted["layers"] if not layer["integer"]]
    if counted["share"] < target.quantized_share:
        raise ToolchainError(_too_float(what, "the quantized graph", counted["share"], target, floats))
    compiled = compiled_share(layers, {layer["name"]: layer["macs"] for layer in counted["layers"]})
    if compiled < target.quantized_share:
        floats = [f"{layer['name']} ({layer['op']}, {layer['precision']})" for layer in layers if not layer["integer"]]
        raise ToolchainError(_too_float(what, "what the runtime compiled", compiled, target, floats))
    return float(min(compiled, counted["share"]))


def compiled_share(layers: list[dict[str, Any]], macs: Mapping[str, int]) -> float:
    """Integer share of the compiled layers, by multiply-accumulates; by count where names do not lead back.

    A toolchain that cannot be asked (no layers) counts as what its graph is: strongly typed engines are compiled so.
    """
    if not layers:
        return 1.0
    weights = [sum(macs.get(name, 0) for name in layer["names"]) for layer in layers]
    if not all(weights):
        weights = [1] * len(layers)
    return sum(w for w, layer in zip(weights, layers, strict=True) if layer["integer"]) / sum(weights)


def _too_float(what: str, where: str, share: float, target: TargetFile, layers: list[str]) -> str:
    shown = ", ".join(layers[:8]) + (", …" if len(layers) > 8 else "")
    return (
        f"{what}: {share:.0%} of the work is integer in {where}; expected at least {target.quantized_share:.0%}. "
        f"In float: {shown}. Name them under `quantize.keep_float` and lower `quantized_share` if that is meant, "
        "or give this model a float target"
    )


def job_document(
    line: Line,
    target: TargetFile,
    *,
    graph: Path | None = None,
    precision: str,
    artifact: Path | None = None,
    twin: Path | None = None,
    batches: Path | None = None,
) -> dict[str, object]:
    """`job.json` of a worker, with the places it reads as absolute paths."""
    return {
        "target_file": str(toolchain_file(target.toolchain)),
        "options": target.options,
        "precision": precision,
        "signature": line.config.signature.document(),
        "graph": str(graph or "graph.onnx"),
        "artifact": str(artifact or "artifact"),
        "twin": None if twin is None else str(twin),
        "batches": str(batches or "batches"),
    }


def run_worker(
    line: Line,
    target: TargetFile,
    folder: Path,
    job: Mapping[str, object],
    verb: str,
    what: str,
    *,
    alone: bool = False,
) -> dict[str, Any]:
    """Run a worker in `folder` to its end and give its result; raises what went wrong, with the log."""
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-I", "-B", str(WORKER), str(folder), verb]
    line.jobs.run(command, folder=folder, limits=target.limits, what=what, alone=alone)
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError) as error:
        raise failure(what, "ended without a result", folder / "log.txt") from error
    if "unavailable" in result:
        raise Unavailable(f"{result['unavailable']['reason']}; {result['unavailable']['fix']}")
    if "error" in result:
        raise failure(what, result["error"], folder / "log.txt")
    return dict(result)


def worker_inputs(line: Line, target: TargetFile) -> dict[str, str]:
    """What every job of a target depends on beside its data: code, packages, options, this machine."""
    path = toolchain_file(target.toolchain)
    return {
        "target config": target.digest,
        "inputs and outputs in the config": digest.of_document(line.config.signature.document()),
        f"compile/targets/{path.name}": digest.of_file(path),
        "compile/worker.py": digest.of_file(WORKER),
        "this machine": digest.of_document(fingerprint()),
        **{f"version of {name}": version for name, version in packages_of(path).items()},
    }


def packages_of(toolchain: Path) -> dict[str, str]:
    """Installed versions of the packages that a target's file names in `PACKAGES`; read without importing it."""
    tree = ast.parse(toolchain.read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "PACKAGES"]
    names: tuple[str, ...] = ast.literal_eval(values[0]) if values else ()
    return {name: version(name) for name in names}


def tools(*packages: str) -> dict[str, str]:
    versions = {f"version of {name}": version(name) for name in packages}
    return {**versions, "lockstep's own code": own_code("compile")}


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _digest_of(line: Line, name: str, role: str) -> str:
    path = line.project.root / name
    if not path.is_file():
        raise ConfigError(f"configs/models/{line.model}.yaml: {role}: no such file: {path}")
    return digest.of_file(path)


def _fetched_folder(line: Line) -> str | None:
    brought = fetched(line)
    return None if brought is None else str(brought.folder)


def made_of(step: Step, record: Record) -> Made:
    return Made(step.folder, record.digest)


def record_of(made: Made) -> Record:
    """The record that lies in a finished step's folder."""
    record = read_record(made.folder)
    assert record is not None
    return record


def artifact_digest(made: Made) -> str:
    """Digest of the artifact's files alone, without the facts about the machine that built them."""
    return _digest_below(made, "artifact/")


def batches_digest(suite: Made) -> str:
    """Digest of the suite's inputs alone: relabelling does not make an observation stale."""
    return _digest_below(suite, "batches/")


def _digest_below(made: Made, place: str) -> str:
    outputs = record_of(made).outputs
    return digest.of_tree({f.removeprefix(place): sha for f, sha in outputs.items() if f.startswith(place)})
