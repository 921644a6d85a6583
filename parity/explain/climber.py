"""The rungs that only the target's own runtime can climb: its worker, run in folders of their own.

In: the line, a target, what is to be explained. Out: for each rung the outputs on the suite, or why there are none. The
rule: nothing under `out/` is touched; an artifact is run from a copy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compile import build, digest, toolchain
from compile.config import TargetFile, declared_options, toolchain_file
from compile.errors import ToolchainError
from compile.line import Line, Unavailable
from compile.project import GRAPH_FILE
from parity.explain.experiment.ladder import Rule, slug
from parity.explain.found import Found
from parity.explain.graph.adopt import adopted

BUILT = "built.json"


@dataclass(frozen=True, slots=True)
class Ran:
    """A rung that the target's own runtime climbs: its outputs, or why there are none."""

    name: str
    outputs: Path | None
    why: str | None
    leads: bool = True
    rule: Rule = "floor"


@dataclass(slots=True)
class Climber:
    """Runs the target's worker in folders of its own, one for each rung."""

    line: Line
    target: TargetFile
    folder: Path
    what: str
    effective: list[str] = field(default_factory=list)

    def place(self, rung: str) -> Path:
        return self.folder / "runs" / slug(rung)

    def precisions(self) -> list[Ran]:
        """The float graph on the target's runtime, its precision pinned and left alone; where its file says how."""
        file = toolchain_file(self.target.toolchain)
        pinned, defaults = declared_options(file, "PINNED"), declared_options(file, "DEFAULTS")
        if pinned is None or defaults is None:
            why = f"{self.target.toolchain} declares no float precision to pin"
            return [Ran(n, None, why, leads=False) for n in ("runtime, precision pinned", "runtime's defaults")]
        loose = any(self.target.options.get(key) == value for key, value in defaults.items())
        graph = build.float_graph(self.line).folder / GRAPH_FILE
        return [
            self.compiled("runtime, precision pinned", graph, pinned, precision="float32"),
            self.compiled("runtime's defaults", graph, defaults, precision="float32", leads=loose),
        ]

    def artifacts(self, question: Found) -> list[Ran]:
        """What the target compiles afresh, what lies there, what was observed."""
        graph = build.graph(self.line, self.target.dialect).folder / GRAPH_FILE
        rule: Rule = "floor" if self.target.precision == "float32" else "doubled"
        fresh = self.compiled("compiled artifact", graph, {}, precision=self.target.precision, rule=rule)
        self.effective = _precisions(self.place("compiled artifact") / BUILT)
        rungs = [fresh, self._found(question, fresh)]
        if question.observation is not None:
            carried = question.carried and rule == "doubled"
            outputs = question.observation / "outputs"
            rungs.append(Ran("observation as found", outputs, None, rule="doubled" if carried else "floor"))
        return rungs

    def _found(self, question: Found, fresh: Ran) -> Ran:
        """What lies there, run; the fresh artifact's answers where it is that, byte for byte."""
        name = "artifact as found"
        if question.graph is not None:
            place = self.place(name)
            place.mkdir(parents=True)
            graph = adopted(question.graph, self.line.config.signature, place / "adopted.onnx")
            return self.compiled(name, graph, {}, precision=self.target.precision)
        assert question.artifact is not None
        if fresh.outputs is not None:
            built = self.place(fresh.name) / "artifact"
            if digest.of_files(built) == digest.of_files(question.artifact):
                return Ran(name, fresh.outputs, None)
        return self.answered(name, question.artifact)

    def compiled(
        self,
        rung: str,
        graph: Path,
        options: Mapping[str, Any],
        *,
        precision: str,
        leads: bool = True,
        rule: Rule = "floor",
    ) -> Ran:
        """A graph compiled with these options more, and its answers on the suite."""
        place = self.place(rung)
        place.mkdir(parents=True, exist_ok=True)
        try:
            result = self.work(place, "build", options, graph=graph, precision=precision)
            (place / BUILT).write_text(json.dumps(result["built"]))
        except Unavailable as reason:
            return Ran(rung, None, str(reason), leads)
        except ToolchainError as error:
            return Ran(rung, None, _told(error), leads)
        return self.answered(rung, place / "artifact", options, precision=precision, leads=leads, rule=rule)

    def answered(
        self,
        rung: str,
        artifact: Path,
        options: Mapping[str, Any] = {},
        *,
        precision: str | None = None,
        leads: bool = True,
        rule: Rule = "floor",
    ) -> Ran:
        """What an artifact answers on the suite, run here; why not, where it cannot."""
        place = self.place(rung)
        place.mkdir(parents=True, exist_ok=True)
        try:
            own = place / "artifact"
            if artifact != own:
                shutil.copytree(artifact, own)
            self.work(place, "answer", options, artifact=own, precision=precision or self.target.precision)
        except Unavailable as reason:
            return Ran(rung, None, str(reason), leads)
        except ToolchainError as error:
            return Ran(rung, None, _told(error), leads)
        return Ran(rung, place / "outputs", None, leads, rule)

    def work(
        self, place: Path, verb: str, options: Mapping[str, Any], *, alone: bool = False, **at: Any
    ) -> dict[str, Any]:
        """One verb of the target's worker in a folder."""
        job = toolchain.job_document(
            self.line, self.target, batches=build.data(self.line, "suite").folder / "batches", **at
        )
        job |= {"options": {**self.target.options, **options}}
        return toolchain.run_worker(self.line, self.target, place, job, verb, f"{self.what}: {place.name}", alone=alone)

    def quantized(self, keep_float: list[str], place: Path) -> Path:
        """The target's graph with these modules kept in float, quantized afresh."""
        line, fetched = self.line, build.fetched(self.line)
        chosen = line.config.quantize
        arguments = {
            "model": line.model,
            "dialect": self.target.dialect,
            "float_graph": str(build.float_graph(line).folder / GRAPH_FILE),
            "fetched": None if fetched is None else str(fetched.folder),
            "calibration": str(build.data(line, "calibration").folder),
            "options": chosen.model_dump(mode="json") | {"keep_float": [*chosen.keep_float, *keep_float]},
        }
        place.mkdir(parents=True)
        made, _ = line.child(place, self.what, "compile.dialect:derive", arguments)
        return made


def _told(error: ToolchainError) -> str:
    """What went wrong, on one line, without where its log was: that folder is gone when this is read."""
    text = " ".join(str(error).split(". Its log is")[0].split())
    return text.split(": ", 3)[-1] if text.count(": ") > 2 else text


def _precisions(built: Path) -> list[str]:
    """The float precisions that a runtime reports of itself, of the whole and of single layers."""
    if not built.is_file():
        return []
    document = json.loads(built.read_text())
    return [*document["effective"].get("layer_precisions", ()), *(layer["precision"] for layer in document["layers"])]
