"""What carries a model down the line: steps that run once, in processes of their own, side by side.

In: a model's config. Out: folders under `out/<model>/`. Stations (functions in `build.py`, `observe.py`, `judge.py`)
say what a step depends on; this file says whether it must run, runs it, and keeps it. A failure is never kept:
its log stays under `logs/` and the next run tries again.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from compile import child, digest
from compile.config import LimitsConfig, ModelFile, load_model
from compile.errors import ToolchainError
from compile.job import Jobs, failure
from compile.project import Project
from compile.step import Record, Step, altered, changes, commit, read_record
from compile.yaml_file import line_of

T = TypeVar("T")
Named = ParamSpec("Named")
OWN_LIMITS = LimitsConfig(time_s=3600, memory_gib=64)


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person may want to see: who (a target, or the model itself), what, and whether it ran.

    `until`: by `time.monotonic`, when what goes on ends by itself. `altered`: files that it made and that are no longer as made.
    """

    who: str
    what: str
    ran: bool
    until: float | None = None
    altered: tuple[str, ...] = ()


Notify = Callable[[Event], None]


@dataclass(slots=True)
class Line:
    """One model on the line. `once` gives every target the same value, made by the first that asks."""

    project: Project
    model: str
    config: ModelFile
    jobs: Jobs
    notify: Notify
    tracking_uri: str
    ran: list[str] = field(default_factory=list)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    dry: bool = False
    _made: dict[Hashable, Future[Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, project: Project, model: str, notify: Notify, tracking_uri: str) -> Line:
        return cls(project, model, load_model(project, model), Jobs.for_this_machine(), notify, tracking_uri)

    @property
    def out(self) -> Path:
        return self.project.out(self.model)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, computed by the first thread that asks and awaited by the others."""
        with self._lock:
            future = self._made.get(key)
            first = future is None
            if future is None:
                future = self._made[key] = Future()
        if first:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
        return cast(T, future.result())

    def own(self, step: Step, who: str, function: str, arguments: Mapping[str, object]) -> Record:
        """Run one of lockstep's own steps (`module:function`) unless what lies there is what it would make."""

        return self.keep(step, who, lambda folder, what: self.child(folder, what, function, arguments))

    def child(
        self,
        folder: Path,
        what: str,
        function: str,
        arguments: Mapping[str, object],
        limits: LimitsConfig = OWN_LIMITS,
    ) -> tuple[Path, dict[str, str]]:
        """`module:function` in a process of its own: the folder that it filled, and the user's files that it read."""
        request = {"root": str(self.project.root), "step": function, "arguments": dict(arguments)}
        (folder / "request.json").write_text(json.dumps(request))
        command = [sys.executable, "-m", "compile.child", str(folder)]
        self.jobs.run(command, folder=folder, limits=limits, what=what, env={"PYTHONPATH": _packages(), **child.MEMORY})
        return folder / "made", _report(folder, what, self.project.root)

    def keep(self, step: Step, who: str, run: Callable[[Path, str], tuple[Path, dict[str, str]]]) -> Record:
        """The step's record: the one that lies there if nothing changed, else of what `run` makes in a work folder."""
        because = changes(step, self.project.root)
        record = read_record(step.folder)
        if not because and record is not None:
            self.notify(Event(who, step.name, ran=False))
            return record
        self.reasons[step.name] = because
        if self.dry:
            raise WouldRun(step.name)
        self.notify(Event(who, step.name, ran=True, altered=altered(step)))
        folder = self.out / ".work" / step.name.replace("/", "--")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            made, read = run(folder, f"{self.model}: {step.name}")
        except Unavailable:
            raise
        except ToolchainError as error:
            raise ToolchainError(str(error).replace(str(folder), str(self._keep_log(folder, step)))) from error
        self.ran.append(step.name)
        record = commit(step, made, read=read, because=because)
        shutil.rmtree(folder, ignore_errors=True)
        return record

    def _keep_log(self, folder: Path, step: Step) -> Path:
        """Move a failed step's folder where a person finds it, and say where."""
        logs = self.out / "logs" / step.name.replace("/", "--")
        shutil.rmtree(logs, ignore_errors=True)
        logs.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(logs)
        return logs

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One lockstep at a time on one model; what a killed one left in `.work` is cleared."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ToolchainError(
                    f"{self.out}: another lockstep works on this model; try again when it ended"
                ) from error
            shutil.rmtree(self.out / ".work", ignore_errors=True)
            yield


def station(make: Callable[Concatenate[Line, Named], T]) -> Callable[Concatenate[Line, Named], T]:
    """A function of the line that runs once a run, whoever asks: what it looked at is not looked at again."""

    @wraps(make)
    def asked(line: Line, /, *at: Named.args, **by: Named.kwargs) -> T:
        return line.once((make.__module__, make.__name__, *at, *by.items()), lambda: make(line, *at, **by))

    return asked


class Unavailable(ToolchainError):
    """This machine cannot run it: the reason and the fix. The target is DEFERRED."""


class WouldRun(Exception):
    """A dry walk met a step that would have to run."""


@cache
def own_code(*packages: str) -> str:
    """Digest of lockstep's own code that a step runs: a mended step is a new step."""
    root = Path(_packages())
    return digest.of_tree({f: digest.of_file(root / f) for p in packages for f in _modules(root, p)})


def _modules(root: Path, package: str) -> Sequence[str]:
    return sorted(p.relative_to(root).as_posix() for p in (root / package).rglob("*.py"))


def _packages() -> str:
    return str(Path(__file__).parent.parent)


def _report(folder: Path, what: str, root: Path) -> dict[str, str]:
    """The files that the child's user code read; raises what the child raised."""
    path = folder / "report.json"
    if not path.is_file():
        raise failure(what, "ended without a report", folder / "log.txt")
    report = json.loads(path.read_text())
    error = report["error"]
    if error is None:
        return dict(report["read"])
    if error["kind"] == "crash":
        raise failure(what, error["message"], folder / "log.txt")
    if error["kind"] == "ToolchainError":
        raise ToolchainError(f"{what}: {error['message']} (log: {folder / 'log.txt'})")
    raise child.ERRORS[error["kind"]](f"{_config_at(root, what, error['message'])}: {error['message']}")


def _config_at(root: Path, what: str, message: str) -> str:
    """The model's config, with the line of the key that the message begins with, where it does: `suite batch 0: …`."""
    config = f"configs/models/{what.split(':')[0]}.yaml"
    about = re.split(r"[^a-z_.]", message, maxsplit=1)[0].split(".")
    return line_of(root / config, *about).removeprefix(f"{root}/") if about[0] in ModelFile.model_fields else config
