"""The stations that watch: what the source answers, what each artifact answers, how fast it is beside float.

In: the line and a target. Out: folders with `outputs/NNNNN.npz` (one file a batch of the suite) and
`observation.json`, or with `timing.json`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from compile import build, digest, toolchain
from compile.build import Made
from compile.config import load_target
from compile.errors import IntegrityError
from compile.line import Line, Unavailable, station
from compile.step import Step


@station
def source(line: Line) -> Made:
    """The source's own answers and the noise floor of float32."""
    suite = build.data(line, "suite")
    inputs = {
        **build.source_inputs(line),
        "suite inputs": build.batches_digest(suite),
        **build.tools(*build.LOWERED_BY),
    }
    step = Step("source", line.out / "source", inputs)
    brought = build.fetched(line)
    arguments = {
        "model": line.model,
        "suite": str(suite.folder),
        "fetched": None if brought is None else str(brought.folder),
    }
    function = "compile.reference:observe_source"
    return build.made_of(step, line.own(step, line.model, function, arguments))


@station
def observation(line: Line, name: str) -> Made:
    """The artifact's answers on its own runtime, here; or, as `unavailable`, why only other hardware can run it.

    An observation that was carried here is taken instead, if it is of this artifact and this suite: it was made on the
    hardware that somebody wanted judged.
    """

    def run(folder: Path, what: str) -> tuple[Path, dict[str, str]]:
        made = folder / "made"
        made.mkdir()
        try:
            result = _carried(line, name)
            if result is not None:
                shutil.copytree(carried_folder(line, name) / "outputs", made / "outputs")
                if digest.of_files(made / "outputs") != result["outputs"]:
                    raise IntegrityError(f"{carried_folder(line, name)}: its outputs changed; bring them over again")
            else:
                result = _worked(line, name, folder, "answer", what)
                (folder / "outputs").rename(made / "outputs")
        except Unavailable as reason:
            result = {"unavailable": str(reason).replace("MODEL TARGET", f"{line.model} {name}")}
        (made / "observation.json").write_text(json.dumps(result, indent=1, sort_keys=True))
        return made, {}

    step = Step(f"targets/{name}/observation", line.out / "targets" / name / "observation", _inputs(line, name))
    return build.made_of(step, line.keep(step, name, run))


@station
def timing(line: Line, name: str) -> Made:
    """Latency of the artifact; of an integer one in alternation with its float twin. Nothing else runs meanwhile."""

    def run(folder: Path, what: str) -> tuple[Path, dict[str, str]]:
        made = folder / "made"
        made.mkdir()
        result = _carried(line, name) or _worked(line, name, folder, "time", what)
        (made / "timing.json").write_text(json.dumps(result, sort_keys=True))
        return made, {}

    twin = _twin(line, name)
    inputs = _inputs(line, name) | ({} if twin is None else {"float twin": build.artifact_digest(twin)})
    step = Step(f"targets/{name}/timing", line.out / "targets" / name / "timing", inputs)
    return build.made_of(step, line.keep(step, name, run))


def _inputs(line: Line, name: str) -> dict[str, str]:
    return {
        **digests(line, name),
        **toolchain.worker_inputs(line, load_target(line.project, name)),
        "carried here": _carried_digest(line, name),
    }


def _worked(line: Line, name: str, folder: Path, verb: Literal["answer", "time"], what: str) -> dict[str, Any]:
    """What the worker gives for an artifact on the suite's batches. Timed, it has the machine to itself."""
    target, twin = load_target(line.project, name), _twin(line, name) if verb == "time" else None
    job = toolchain.job_document(
        line,
        target,
        precision=target.precision,
        artifact=build.artifact(line, name).folder / "artifact",
        batches=build.data(line, "suite").folder / "batches",
        twin=None if twin is None else twin.folder / "artifact",
        again=verb == "answer",
    )
    return toolchain.run_worker(line, target, folder, job, verb, what, alone=verb == "time")


def _twin(line: Line, name: str) -> Made | None:
    return build.float_twin(line, name) if load_target(line.project, name).precision == "int8" else None


def carried_folder(line: Line, name: str) -> Path:
    """Where an observation that was made on other hardware lies once it was accepted."""
    return line.out / "targets" / name / "carried"


def _carried(line: Line, name: str) -> dict[str, Any] | None:
    """What a carried observation of this artifact and this suite says; None where there is none."""
    path = carried_folder(line, name) / "observation.json"
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document if document["digests"] == digests(line, name) else None


def _carried_digest(line: Line, name: str) -> str:
    path = carried_folder(line, name) / "observation.json"
    return digest.of_file(path) if path.is_file() else "nothing"


@station
def digests(line: Line, name: str) -> dict[str, str]:
    """What an observation of a target is an observation of."""
    compiled, suite = build.artifact(line, name), build.data(line, "suite")
    return {"artifact": build.artifact_digest(compiled), "suite inputs": build.batches_digest(suite)}


def unavailable(observed: Made) -> str | None:
    """Why an observation could not be made here, or None where it was made."""
    reason: str | None = json.loads((observed.folder / "observation.json").read_text()).get("unavailable")
    return reason
