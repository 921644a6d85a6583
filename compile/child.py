"""One of lockstep's own steps in a process of its own: `python -m compile.child FOLDER`.

In: `request.json` in the folder: the project's root, the step as `module:function`, and its arguments.
Out: the files that the step writes to `made/`, and `report.json`: the error, if any, and every file of the project
that user code loaded as a module or opened, with its digest as it was read.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from compile import digest
from compile.errors import ConfigError, IntegrityError, LockstepError, ToolchainError
from compile.project import Project

OURS = ("compile", "parity", "registry")
MEMORY: Mapping[str, str] = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
"""Steps walk batch after batch: what one frees is kept for the next, up to so many bytes (mallopt(3)). Pages given back to the
kernel in between, and asked for again, cost as much CPU as a fifth to a half of judging itself."""
ERRORS: Mapping[str, type[LockstepError]] = {e.__name__: e for e in (ConfigError, ToolchainError, IntegrityError)}


def main(folder: Path) -> int:
    request = json.loads((folder / "request.json").read_text())
    project = Project(Path(request["root"]))
    sys.path.insert(0, str(project.root))
    opened: set[str] = set()
    made_before = f"{project.root / 'out'}{os.sep}"
    sys.addaudithook(lambda event, args: _note(opened, made_before, event, args))
    made = folder / "made"
    made.mkdir()
    report: dict[str, object] = {"error": None}
    try:
        module, function = request["step"].split(":")
        getattr(importlib.import_module(module), function)(project, made, **request["arguments"])
    except LockstepError as error:
        report["error"] = {"kind": type(error).__name__, "message": str(error)}
    except MemoryError:
        traceback.print_exc()
        report["error"] = {"kind": "ToolchainError", "message": "ran out of its memory limit"}
    except Exception:
        traceback.print_exc()
        report["error"] = {"kind": "crash", "message": traceback.format_exc(limit=-1).strip().splitlines()[-1]}
    report["read"] = _digests(project.root, opened | _loaded())
    (folder / "report.json").write_text(json.dumps(report))
    return 0 if report["error"] is None else 1


def _note(opened: set[str], made_before: str, event: str, args: tuple[object, ...]) -> None:
    """An audit hook: remember every file that Python code opens for reading, but for what lies in `made_before`: of outputs
    there are hundreds of thousands, and to find out of each where it lies costs as much as judging it."""
    if event != "open" or not isinstance(args[0], (str, bytes)) or not _reads(args[1]):
        return
    path = args[0] if isinstance(args[0], str) else args[0].decode(errors="replace")
    if not path.startswith(made_before) or f"{os.sep}..{os.sep}" in path:
        opened.add(path)


def _reads(mode: object) -> bool:
    return mode is None or (isinstance(mode, str) and not set(mode) & set("wax+"))


def _loaded() -> set[str]:
    modules = [m for name, m in list(sys.modules.items()) if name.split(".")[0] not in OURS]
    return {str(m.__file__) for m in modules if getattr(m, "__file__", None)}


def _digests(root: Path, paths: set[str]) -> dict[str, str]:
    """Digests of those paths that are files of the project: not of the environment, `out/` or the registry."""
    inside = {Path(p).resolve() for p in paths}
    names = sorted(p.relative_to(root).as_posix() for p in inside if p.is_relative_to(root) and p.is_file())
    return {name: digest.of_file(root / name) for name in names if _is_the_users(name)}


def _is_the_users(name: str) -> bool:
    top = name.split("/")[0]
    return not (top.startswith(".") or top in ("out", "venv", "configs", *OURS) or name.endswith(".pyc"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
