"""Jobs: a crash, a hang or a runaway of what runs inside stays inside, and its log is named."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from compile.config import LimitsConfig
from compile.errors import ToolchainError
from compile.job import Jobs, Slots


def run(tmp_path: Path, code: str, **limits: object) -> int:
    jobs = Jobs(Slots(2))
    bounds = LimitsConfig.model_validate(limits)
    return jobs.run([sys.executable, "-c", code], folder=tmp_path, limits=bounds, what="vendor compiler")


def test_the_exit_status_comes_back_and_output_goes_to_the_log(tmp_path: Path) -> None:
    assert run(tmp_path, "print('hello'); raise SystemExit(3)") == 3
    assert (tmp_path / "log.txt").read_text() == "hello\n"


def test_a_crash_names_the_signal_the_log_and_its_last_lines(tmp_path: Path) -> None:
    code = "import os; print('about to die', flush=True); os.kill(os.getpid(), 11)"
    with pytest.raises(ToolchainError) as caught:
        run(tmp_path, code)
    message = str(caught.value)
    assert "vendor compiler: died from SIGSEGV" in message
    assert str(tmp_path / "log.txt") in message
    assert message.endswith("about to die")


@pytest.mark.parametrize("memory", ["address-space", "resident"])
def test_a_hang_is_ended_at_the_time_limit(tmp_path: Path, memory: str) -> None:
    start = time.monotonic()
    with pytest.raises(ToolchainError, match=r"time limit of 0\.5 s"):
        run(tmp_path, "import time; time.sleep(60)", time_s=0.5, memory=memory)
    assert time.monotonic() - start < 10


def test_a_hang_takes_its_children_with_it(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    with pytest.raises(ToolchainError):
        run(tmp_path, code, time_s=1.0)
    child = int((tmp_path / "log.txt").read_text().split()[0])
    deadline = time.monotonic() + 5
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_address_space_beyond_the_limit_is_refused_to_the_job(tmp_path: Path) -> None:
    code = "x = bytearray(2 << 30)"
    assert run(tmp_path, code, memory_gib=1) == 1
    assert "MemoryError" in (tmp_path / "log.txt").read_text()
    assert run(tmp_path, code, memory_gib=8) == 0


def test_resident_memory_beyond_the_limit_ends_the_job(tmp_path: Path) -> None:
    code = "import time; x = bytearray(b'1') * (600 << 20); time.sleep(30)"
    with pytest.raises(ToolchainError, match=r"above its limit of 0\.3 GiB resident"):
        run(tmp_path, code, memory="resident", memory_gib=0.3)


def test_stop_ends_what_runs_and_starts_nothing_new(tmp_path: Path) -> None:
    jobs = Jobs(Slots(1))
    stopper = threading.Timer(0.5, jobs.stop)
    stopper.start()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    start = time.monotonic()
    with pytest.raises(ToolchainError):
        jobs.run(command, folder=tmp_path, limits=LimitsConfig(), what="a")
    assert time.monotonic() - start < 10
    with pytest.raises(ToolchainError, match="interrupted"):
        jobs.run(command, folder=tmp_path, limits=LimitsConfig(), what="b")


def test_a_job_alone_runs_beside_nothing() -> None:
    slots = Slots(2)
    beside: list[int] = []
    inside = [0]

    def work(wanted: int) -> None:
        with slots.take(wanted):
            inside[0] += wanted
            beside.append(inside[0])
            time.sleep(0.02)
            inside[0] -= wanted

    threads = [threading.Thread(target=work, args=(1 + i % 2,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(beside) <= 2
