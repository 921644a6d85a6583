"""What this machine can build and run, target by target, and for what it cannot: the reason and the fix."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from compile.config import TargetFile, load_target, names_of, toolchain_file
from compile.project import Project
from compile.toolchain import WORKER

TIME_S = 120


def probe_all(project: Project) -> dict[str, dict[str, Any]]:
    """Every target of the project with `versions`, and `build` and `run` as None or [reason, fix]."""
    targets = {name: load_target(project, name) for name in names_of(project, "targets")}
    probed = {toolchain: probe(toolchain) for toolchain in {t.toolchain for t in targets.values()}}
    return {name: _facts(target) | probed[target.toolchain] for name, target in targets.items()}


def probe(toolchain: str) -> dict[str, Any]:
    """Ask one toolchain's own file, in a process of its own."""
    document: dict[str, Any] = {
        "target_file": str(toolchain_file(toolchain)),
        "options": {},
        "precision": "float32",
        "twin": None,
        "signature": {"inputs": [], "outputs": [], "axes": {}, "state": {}},
        "graph": "g",
        "artifact": "a",
        "batches": "b",
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(json.dumps(document))
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", str(WORKER), scratch, "probe"],
                capture_output=True,
                text=True,
                timeout=TIME_S,
                check=False,
            )
            result = json.loads((folder / "result.json").read_text())
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return _broken(f"its probe gave no answer: {error}")
    return dict(result["probe"]) if "probe" in result else _broken(result.get("error", done.stderr[-200:]))


def _broken(reason: str) -> dict[str, Any]:
    why = [reason, "install the `[build]` extra: make install"]
    return {"versions": {}, "build": why, "run": why}


def _facts(target: TargetFile) -> dict[str, Any]:
    return {
        "role": target.role,
        "hardware": target.hardware,
        "toolchain": target.toolchain,
        "precision": target.precision,
    }


def lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """The same for a person: one line a target, and one for each thing it cannot."""
    shown = []
    for name, facts in found.items():
        versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items()) or facts["toolchain"]
        can = {verb: "no " if facts[verb] else "yes" for verb in ("build", "run")}
        shown.append(
            f"{name:<28} {facts['role']:<6} {facts['precision']:<8} build: {can['build']}  run: {can['run']}  {versions}"
        )
        for verb in ("build", "run"):
            if facts[verb]:
                reason, fix = facts[verb]
                shown.append(f"    cannot {verb}: {reason}; {fix}")
    return shown
