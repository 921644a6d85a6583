"""What is to be explained: the artifact and the answers that lie there, as they lie there.

In: the line, a target, and perhaps an artifact or an observation from elsewhere. Out: a `Found`. The rule: nothing that
lies there is built over before it is explained; somebody may have changed it, and that is the question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compile import build, digest
from compile.errors import ConfigError
from compile.line import Line
from compile.step import read_record
from compile.worker import fingerprint


@dataclass(frozen=True, slots=True)
class Found:
    """`graph`: an ONNX file that the target still has to compile. `foreign`: it came from elsewhere."""

    artifact: Path | None
    graph: Path | None
    observation: Path | None
    carried: bool
    foreign: bool
    note: str | None

    @property
    def digest(self) -> str:
        """What tells one question from another: the bytes that are to be explained."""
        files = {} if self.artifact is None else digest.of_files(self.artifact)
        if self.graph is not None:
            files = {"graph": digest.of_file(self.graph)}
        answers = {} if self.observation is None else digest.of_files(self.observation / "outputs")
        return digest.of_document({"artifact": files, "answers": answers, "foreign": self.foreign})


def found(line: Line, name: str, artifact: Path | None, observation: Path | None) -> Found:
    """What was named, else what lies under `out/`; built first where nothing lies there yet."""
    if artifact is None and observation is None:
        return _lying(line, name)
    if observation is not None:
        _refuse_empty(observation)
    graph = artifact if artifact is not None and artifact.is_file() else None
    if artifact is not None and not artifact.exists():
        raise ConfigError(f"--artifact {artifact}: no such file or folder")
    if graph is not None and graph.suffix != ".onnx":
        raise ConfigError(f"--artifact {artifact}: expected an ONNX file, or a folder as `{name}` compiles it")
    place = artifact if graph is None else None
    if artifact is None:
        place = _lying(line, name).artifact
    return Found(place, graph, observation, _carried(observation), artifact is not None, None)


def _refuse_empty(observation: Path) -> None:
    if not list((observation / "outputs").glob("*.npz")):
        raise ConfigError(
            f"--observation {observation}: expected a folder with `outputs/NNNNN.npz`, as `check` writes it"
        )


def _lying(line: Line, name: str) -> Found:
    place = line.out / "targets" / name
    artifact = place / "build" / "artifact"
    if not artifact.is_dir():
        artifact = build.artifact(line, name).folder / "artifact"
    here = {
        "artifact": digest.of_tree(digest.of_files(artifact)),
        "suite inputs": build.batches_digest(build.data(line, "suite")),
    }
    note = "nothing was observed yet"
    for observation in (place / "observation", place / "carried"):
        if list((observation / "outputs").glob("*.npz")):
            other = [what for what, sha in _made_from(observation).items() if here.get(what, sha) != sha]
            if not other:
                return Found(artifact, None, observation, _carried(observation), False, None)
            note = f"what was observed is of another {' and another '.join(other)} than lies there, and was left out"
    return Found(artifact, None, None, False, False, note)


def _made_from(observation: Path) -> Mapping[str, str]:
    """Digests of the artifact and the suite that an observation is of: as the step was keyed, or as a bundle says."""
    record = read_record(observation)
    found: Mapping[str, str] = _document(observation).get("digests", {}) if record is None else record.inputs
    return found


def _carried(observation: Path | None) -> bool:
    """Whether answers were given by another machine than this one, or by one that nobody knows."""
    if observation is None:
        return False
    document = _document(observation)
    return "digests" in document or document.get("fingerprint") != fingerprint()


def _document(observation: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((observation / "observation.json").read_text())
    except (OSError, ValueError):
        return {}
    return found
