"""What was tried, kept as it comes: `trials.json`, whole after every trial, so that no interruption loses more than one.

In and out: trials and rankings, under digests of everything that they depend on. Laws: `read(write(r)) == r`; trials made from
other inputs are not read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compile.digest import of_file
from compile.recipe import Recipe
from parity.tune.trial import Met, Trial

DOCUMENT, QUALITY = "trials.json", "quality.json"


@dataclass(slots=True)
class Record:
    """Trials from the same inputs in the order they were made. `rankings`: layers, the most damaging first, by graph; `read`:
    files of the project that the user's code behind the trials was or opened, with their digests."""

    place: Path
    inputs: Mapping[str, str]
    trials: list[Trial] = field(default_factory=list)
    rankings: dict[str, list[str]] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    """What is no longer as it was when the trials were made that lay here, and were not taken up."""

    def of(self, recipe: Recipe) -> Trial | None:
        return next((trial for trial in self.trials if trial.recipe == recipe), None)

    def of_graph(self, graph: str) -> Trial | None:
        return next((trial for trial in self.trials if trial.graph == graph), None)

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.save()

    def save(self) -> None:
        """Put the whole record in place of the one that lies there."""
        document = {
            "inputs": dict(self.inputs),
            "trials": [document_of(t) for t in self.trials],
            "rankings": self.rankings,
            "read": self.read,
        }
        write_whole(self.place / DOCUMENT, json.dumps(document, indent=1, allow_nan=False))


def open_record(place: Path, inputs: Mapping[str, str], root: Path) -> Record:
    """What lies in a folder, if it was made from these inputs; else an empty record that says what changed."""
    try:
        found = json.loads((place / DOCUMENT).read_text())
        before: dict[str, str] = found["inputs"]
        changed = [name for name in {**before, **inputs} if before.get(name) != inputs.get(name)]
        changed += [name for name, was in found["read"].items() if _digest(root / name) != was]
        if changed:
            return Record(place, inputs, dropped=tuple(changed))
        return Record(
            place, inputs, [_trial(one) for one in found["trials"]], dict(found["rankings"]), dict(found["read"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Record(place, inputs)


def _digest(path: Path) -> str | None:
    return of_file(path) if path.is_file() else None


def write_quality(folder: Path, found: Iterable[Met], silent: Iterable[str]) -> None:
    """What each limit gave of one candidate, and the limits that were not heard, from the process that judged it."""
    document = {"met": [_met_document(one) for one in found], "silent": list(silent)}
    (folder / QUALITY).write_text(json.dumps(document, allow_nan=False))


def read_quality(folder: Path) -> tuple[tuple[Met, ...], tuple[str, ...]]:
    document = json.loads((folder / QUALITY).read_text())
    return tuple(_met(one) for one in document["met"]), tuple(document["silent"])


def write_whole(path: Path, text: str) -> None:
    """The text under its name all at once: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.new")
    written.write_text(text)
    os.replace(written, path)


def document_of(trial: Trial) -> dict[str, Any]:
    """A trial as plain JSON values, with what follows from them for people to read."""
    found = [_met_document(one) for one in trial.met]
    return asdict(trial) | {"met": found, "passes": trial.passes, "reason": trial.reason}


def _met_document(one: Met) -> dict[str, Any]:
    """As JSON can say it: infinite room as the words `inf` and `-inf`."""
    return asdict(one) | {"room": one.room if math.isfinite(one.room) else str(one.room)}


def _met(document: Mapping[str, Any]) -> Met:
    return Met(document["of"], document["sentence"], document["passed"], float(document["room"]))


def _trial(document: Mapping[str, Any]) -> Trial:
    recipe = Recipe(**(document["recipe"] | {"keep_float": tuple(document["recipe"]["keep_float"])}))
    found = tuple(_met(one) for one in document["met"])
    ratio = None if document["ratio"] is None else tuple(document["ratio"])
    plain = {name: document[name] for name in ("number", "took_s", "failed", "share", "graph")}
    return Trial(recipe=recipe, met=found, ratio=ratio, **plain)
