"""Steps and their keys: every step is a pure function of digests, and its folder says which.

In: a step's inputs as a table of what -> digest. Out: a folder with the step's files and `step.json`, which holds
that table, the project's files that the step's user code loaded or read, and the digest of every file it wrote.
The rule: what lies there from the same inputs is not made again, anything else is, a failure is never kept. One
generation is kept: going back to earlier inputs runs the step again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compile import digest

RECORD = "step.json"


@dataclass(frozen=True, slots=True)
class Step:
    """`name` as a person reads it, the folder that holds the result, and what the result depends on."""

    name: str
    folder: Path
    inputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """What `step.json` says. `read` maps files of the project that user code loaded or read to digests."""

    inputs: Mapping[str, str]
    read: Mapping[str, str]
    outputs: Mapping[str, str]
    because: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The digest of what the step made: what later steps depend on."""
        return digest.of_tree(self.outputs)


def read_record(folder: Path) -> Record | None:
    """The record of a finished step, or None where there is none that can be read."""
    try:
        document = json.loads((folder / RECORD).read_text())
        return Record(document["inputs"], document["read"], document["outputs"], tuple(document["because"]))
    except (OSError, ValueError, KeyError):
        return None


def changes(step: Step, root: Path) -> list[str]:
    """Why the step must run, one reason a line; empty when what lies there is what it would make."""
    record = read_record(step.folder)
    if record is None:
        return ["not built yet"]
    reasons = [
        f"{what}: {_difference(record.inputs.get(what), now)}"
        for what, now in step.inputs.items()
        if record.inputs.get(what) != now
    ]
    reasons += [f"{what}: no longer an input" for what in record.inputs if what not in step.inputs]
    reasons += _changed_files(record.read, root, "changed")
    return reasons + _changed_files(record.outputs, step.folder, "the built file changed or is gone")


def altered(step: Step) -> tuple[str, ...]:
    """The files that the step wrote and that somebody changed or took away since."""
    record = read_record(step.folder)
    files = {} if record is None else record.outputs
    return tuple(name for name, was in files.items() if _now(step.folder / name) != was)


def commit(step: Step, made: Path, *, read: Mapping[str, str], because: list[str]) -> Record:
    """Make `made` the step's folder, all at once, with its record. What was there before is gone."""
    outputs = digest.of_files(made)
    record = Record(dict(step.inputs), {k: v for k, v in read.items() if k not in step.inputs}, outputs, tuple(because))
    document = {"step": step.name, "inputs": record.inputs, "read": record.read, "outputs": outputs, "because": because}
    (made / RECORD).write_text(json.dumps(document, indent=1, sort_keys=True))
    replace(made, step.folder)
    return record


def replace(made: Path, folder: Path) -> None:
    """Put the folder `made` in the place of `folder`. A crash leaves the old one, the new one, or none: never a mix."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder.with_name(f".old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    os.replace(made, folder)
    shutil.rmtree(old, ignore_errors=True)


def _changed_files(files: Mapping[str, str], root: Path, why: str) -> list[str]:
    reasons = []
    for name, was in files.items():
        now = _now(root / name)
        if now != was:
            reasons.append(f"{name}: {why} ({_difference(was, now)})")
    return reasons


def _now(path: Path) -> str | None:
    return digest.of_file(path) if path.is_file() else None


def _difference(was: str | None, now: str | None) -> str:
    return f"{_short(was)} -> {_short(now)}"


def _short(value: str | None) -> str:
    return "nothing" if value is None else value[:12]
