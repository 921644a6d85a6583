"""A target's own process: what its jobs are given, what they depend on, what they give back."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from compile import digest
from compile.config import TargetFile, declared, toolchain_file
from compile.job import failure
from compile.line import Line, Unavailable
from compile.worker import fingerprint

WORKER = Path(__file__).parent / "worker.py"


def job_document(
    line: Line,
    target: TargetFile,
    *,
    graph: Path | None = None,
    precision: str,
    artifact: Path | None = None,
    twin: Path | None = None,
    batches: Path | None = None,
    again: bool = False,
) -> dict[str, object]:
    """`job.json` of a worker, with the places it reads as absolute paths; `again`: some rows are asked more than once."""
    return {
        "target_file": str(toolchain_file(target.toolchain)),
        "options": target.options,
        "precision": precision,
        "signature": line.config.signature.document(),
        "graph": str(graph or "graph.onnx"),
        "artifact": str(artifact or "artifact"),
        "twin": None if twin is None else str(twin),
        "batches": str(batches or "batches"),
        "again": again,
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
    env: Mapping[str, str] = {},
) -> dict[str, Any]:
    """Run a worker in `folder` to its end and give its result; raises what went wrong, with the log."""
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-I", "-B", str(WORKER), str(folder), verb]
    line.jobs.run(command, folder=folder, limits=target.limits, what=what, alone=alone, env=env)
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


@cache
def packages_of(toolchain: Path) -> dict[str, str]:
    """Installed versions of the packages that a target's file names in `PACKAGES`."""
    return {name: version(name) for name in declared(toolchain, "PACKAGES")}


@cache
def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
