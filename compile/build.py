"""The stations from source to artifact: what each depends on, and where its result lies.

Every function takes the line and gives the folder of a finished step. Reading them from top to bottom is reading the
line: suite and calibration, float graph, dialect, artifact.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from compile import digest
from compile.blame import in_source_terms
from compile.config import Dialect, TargetFile, load_target
from compile.errors import ConfigError, ToolchainError
from compile.line import Line, Unavailable, own_code, station
from compile.project import GRAPH_FILE
from compile.share import checked_share
from compile.source import file_key, file_of
from compile.step import Record, Step, read_record
from compile.toolchain import job_document, run_worker, version, worker_inputs
from compile.yaml_file import line_of

PREPARED_BY = ("numpy",)
LOWERED_BY = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime")
QUANTIZED_BY = (*LOWERED_BY, "neural-compressor", "torchao")


@dataclass(frozen=True, slots=True)
class Made:
    """A finished step: where its files lie, and the digest of all of them."""

    folder: Path
    digest: str


@station
def data(line: Line, part: str) -> Made:
    """Prepared batches and columns of the suite, of the calibration data, or of the self-test's pool."""
    config = line.config.data(part)
    if config is None:
        raise ConfigError(f"configs/models/{line.model}.yaml: an int8 target needs `calibration`; it is missing")
    files = dict.fromkeys(config.files, "files") | ({config.npz: "npz"} if config.npz else {})
    inputs = {
        f"{part} in the config": config.digest,
        "preprocess": str(line.config.preprocess),
        "inputs in the config": digest.of_document(line.config.signature.document()),
        **{name: _digest_of(line, name, part, key) for name, key in files.items()},
        **tools(*PREPARED_BY),
    }
    suite = None if part == "suite" else data(line, "suite")
    if suite is not None:
        inputs["suite, for leakage"] = batches_digest(suite)
    step = Step(part, line.out / part, inputs)
    arguments = {"model": line.model, "part": part, "judged_on": None if suite is None else str(suite.folder)}
    return made_of(step, line.own(step, line.model, "compile.dataset:prepare", arguments))


@station
def fetched(line: Line) -> Made | None:
    """The files of an MLflow source, or None for a source that lies in the project."""
    uri = line.config.source.mlflow
    if uri is None:
        return None
    step = Step("fetched", line.out / "fetched", {"uri": uri, "registry": line.tracking_uri, **tools("mlflow")})
    arguments = {"uri": uri, "tracking_uri": line.tracking_uri}
    return made_of(step, line.own(step, line.model, "compile.source:fetch", arguments))


@station
def source_inputs(line: Line) -> dict[str, str]:
    """What the source model is: config, weights or graph bytes, or the fetched files."""
    path = file_of(line.project, line.config.source)
    inputs = {
        "source in the config": line.config.source.digest,
        "inputs and outputs in the config": digest.of_document(line.config.signature.document()),
    }
    if path is not None:
        inside = path.is_relative_to(line.project.root)
        name = path.relative_to(line.project.root).as_posix() if inside else f"{path.name}, outside of the project"
        inputs[name] = _digest_of(line, str(path), "source", file_key(line.config.source))
    brought = fetched(line)
    return inputs if brought is None else inputs | {"fetched model": brought.digest}


@station
def float_graph(line: Line) -> Made:
    suite = data(line, "suite")
    inputs = {**source_inputs(line), "the suite's inputs, to trace with": batches_digest(suite), **tools(*LOWERED_BY)}
    step = Step("graphs/float32", line.out / "graphs" / "float32", inputs)
    arguments = {"model": line.model, "suite": str(suite.folder), "fetched": _fetched_folder(line)}
    return made_of(step, line.own(step, line.model, "compile.lower:lower", arguments))


@station
def graph(line: Line, dialect: Dialect) -> Made:
    """The graph of one dialect; every target of that dialect shares it."""
    floats = float_graph(line)
    if dialect == "float32":
        return floats
    return _derived(line, dialect, floats)


def _derived(line: Line, dialect: Dialect, floats: Made) -> Made:
    inputs = {"float graph": floats.digest, **tools(*QUANTIZED_BY)}
    calibration = None
    if dialect != "float16":
        calibration = data(line, "calibration")
        inputs |= {
            "calibration": calibration.digest,
            "quantize in the config": line.config.quantize.digest,
            **source_inputs(line),
        }
    step = Step(f"graphs/{dialect}", line.out / "graphs" / dialect, inputs)
    arguments = {
        "model": line.model,
        "dialect": dialect,
        "float_graph": str(floats.folder / GRAPH_FILE),
        "fetched": _fetched_folder(line),
        "calibration": None if calibration is None else str(calibration.folder),
    }
    return made_of(step, line.own(step, line.model, "compile.dialect:derive", arguments))


@station
def artifact(line: Line, name: str) -> Made:
    """The compiled target: `artifact/` and `build.json`. ToolchainError where too little of it is integer."""
    target = load_target(line.project, name)
    return _compiled(line, name, target, target.dialect, "build")


@station
def float_twin(line: Line, name: str) -> Made:
    """The same source compiled in float by the same toolchain: what an integer artifact must beat."""
    target = load_target(line.project, name)
    return _compiled(line, name, target, "float32", "float")


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


def tools(*packages: str) -> dict[str, str]:
    versions = {f"version of {name}": version(name) for name in packages}
    return {**versions, "lockstep's own code": own_code("compile")}


def _digest_of(line: Line, name: str, role: str, key: str) -> str:
    """Digest of a file that the config names under `role.key`."""
    path = line.project.root / name
    if not path.is_file():
        at = line_of(line.project.config_of(line.model), role, key)
        raise ConfigError(f"{at}: {role}.{key}: no such file: {path}")
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
