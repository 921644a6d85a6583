"""What a command costs: CPU seconds and the most memory that it ever held, of it and its children alone.

In: a command. Out: `Spent`. The command is started by a small process of its own, for Linux counts towards a new process
what its parent held when it was started.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compile.child import MEMORY

ROOT = Path(__file__).parents[1]
STARTER = """
import json, os, resource, subprocess, sys, time
most, command = int(sys.argv[1]), sys.argv[2:]
bound = (lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))) if most else None
child = subprocess.Popen(command, stdout=sys.stderr, preexec_fn=bound)
mapped, ended = 0, 0
while not ended:
    with open(f"/proc/{child.pid}/status") as lines:
        mapped = max([mapped, *(int(line.split()[1]) for line in lines if line.startswith("VmPeak"))])
    time.sleep(0.01)
    ended, status, used = os.wait4(child.pid, os.WNOHANG)
figures = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, mapped * 1024
print(json.dumps([os.waitstatus_to_exitcode(status), *figures]))
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Exit status, CPU seconds of user and system, most resident and most mapped bytes, and what was printed."""

    status: int
    cpu_s: float
    peak_bytes: int
    mapped_bytes: int
    said: str


def spent(command: Sequence[str], *, address_space: int = 0, env: Mapping[str, str] = {}) -> Spent:
    """Run a command to its end; `address_space`: the most bytes that it may map, 0 for no bound."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", STARTER, str(address_space), *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return Spent(*json.loads(done.stdout), done.stderr)


def step(folder: Path, root: Path, function: str, arguments: Mapping[str, object], *, address_space: int = 0) -> Spent:
    """One of lockstep's own steps (`module:function`) in the child that the line would run it in; fills `folder/made`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request = {"root": str(root), "step": function, "arguments": dict(arguments)}
    (folder / "request.json").write_text(json.dumps(request))
    return spent([sys.executable, "-m", "compile.child", str(folder)], address_space=address_space, env=MEMORY)
