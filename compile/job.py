"""One process for each piece of heavy work: its own folder, a time and a memory limit, a log.

In: a command line and a folder. Out: the seconds it took, or a ToolchainError that names the log and shows its
last lines. A crash, a hang or a runaway of what runs inside stays inside.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from compile.config import LimitsConfig
from compile.errors import ToolchainError

GIB = 1 << 30
POLL_SECONDS = 0.05
LAST_LINES = 12
DISK_FULL_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1
ADDR_NO_RANDOMIZE = 0x0040000

QUIET: Mapping[str, str] = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
}


class Slots:
    """So many jobs at a time. A timing takes every slot, so that nothing else runs beside it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._changed = threading.Condition()

    @contextmanager
    def take(self, wanted: int = 1) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


@dataclass(slots=True)
class Jobs:
    """Runs commands within the slots and can end all of them at once."""

    slots: Slots
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def for_this_machine(cls) -> Jobs:
        return cls(Slots(len(os.sched_getaffinity(0))))

    def run(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        limits: LimitsConfig,
        what: str,
        alone: bool = False,
        env: Mapping[str, str] = {},
    ) -> int:
        """Run to the end within `limits` and give the exit status; everything printed goes to `folder/log.txt`."""
        with self.slots.take(self.slots.count if alone else 1):
            if self.stopped:
                raise ToolchainError(f"{what}: interrupted")
            process = self._start(command, folder, limits, env)
            try:
                return _wait(process, folder, limits, what)
            finally:
                _end(process)
                with self._lock:
                    self.running.discard(process)

    def stop(self) -> None:
        """End everything that runs; nothing new starts."""
        self.stopped = True
        with self._lock:
            for process in self.running:
                _end(process)

    def _start(
        self, command: Sequence[str], folder: Path, limits: LimitsConfig, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with (folder / "log.txt").open("ab") as log, self._lock:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **QUIET, **env},
                preexec_fn=_bound(limits),
            )
            self.running.add(process)
        return process


def last_lines(log: Path) -> str:
    """The end of a log, for an error message."""
    if not log.is_file():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:]) or "(the log is empty)"


def failure(what: str, reason: str, log: Path) -> ToolchainError:
    """The error of a job, with its log; says so where a full disk is the likely cause."""
    if shutil.disk_usage(log.parent).free < DISK_FULL_BYTES:
        reason = f"{reason}; No space left on the disk of {log.parent}: make room and run the same command again"
    return ToolchainError(f"{what}: {reason}. Its log is {log}; the last lines:\n{last_lines(log)}")


def _bound(limits: LimitsConfig) -> Callable[[], None]:
    """What the new process does first: bound its memory, die with its parent, lie at the same addresses each time.

    A compiler that walks its pointers in order gives other bytes at other addresses (TensorRT for RTX: the numbers in
    its generated names), so address randomization is off.
    """
    size = int(limits.memory_gib * GIB) if limits.memory == "address-space" else None
    libc = ctypes.CDLL(None)

    def bound() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.personality(ADDR_NO_RANDOMIZE)
        if size is not None:
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return bound


def _wait(process: subprocess.Popen[bytes], folder: Path, limits: LimitsConfig, what: str) -> int:
    log = folder / "log.txt"
    deadline = time.monotonic() + limits.time_s
    while True:
        try:
            status = process.wait(timeout=POLL_SECONDS if limits.memory == "resident" else limits.time_s)
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                raise failure(what, f"ended after its time limit of {limits.time_s:g} s", log) from None
            if _resident_bytes(process.pid) > limits.memory_gib * GIB:
                raise failure(what, f"ended above its limit of {limits.memory_gib:g} GiB resident", log) from None
    if status < 0:
        raise failure(what, f"died from {signal.Signals(-status).name} (memory limit {limits.memory_gib:g} GiB)", log)
    return status


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
