"""A tiny real project, built once for the whole run, and a way to run the command line in a copy of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent

MODEL = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
"""

CONFIG = """
source: {builder: tiny.model:build, weights: tiny/weights.safetensors}
inputs:
  x: {dtype: float32, shape: [batch, 16]}
outputs:
  logits: {dtype: float32, shape: [batch, 4]}
suite: {npz: tiny/suite.npz}
calibration: {npz: tiny/calibration.npz}
task: {kind: classification}
baseline: [cloud-cpu-onnxruntime]
targets: [cloud-cpu-onnxruntime, edge-x86-openvino-fp32]
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="simulations of statistics draw other suites")


@pytest.fixture
def simulated(request: pytest.FixtureRequest) -> Callable[[int], np.random.Generator]:
    """A generator for a simulation, by a number of its own and by `--seed`."""
    seed: int = request.config.getoption("--seed")
    return lambda own: np.random.default_rng([own, seed])


@pytest.fixture(scope="session")
def generators() -> list[tuple[np.random.Generator, Any]]:
    """The generators that modules of tests keep, each with its state before the first test."""
    modules = [module for name, module in sys.modules.items() if name.startswith("tests.")]
    kept = [value for module in modules for value in vars(module).values() if isinstance(value, np.random.Generator)]
    return [(generator, generator.bit_generator.state) for generator in kept]


@pytest.fixture(autouse=True)
def same_draws(generators: list[tuple[np.random.Generator, Any]]) -> None:
    """A test draws the same numbers whichever tests ran before it in its worker."""
    for generator, state in generators:
        generator.bit_generator.state = state


def write_tiny(root: Path) -> None:
    """A project with one small classifier: builder, weights, suite, calibration data, config."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "model.py").write_text(MODEL)
    shutil.copytree(REPOSITORY / "configs" / "targets", root / "configs" / "targets")
    shutil.copytree(REPOSITORY / "configs" / "policies", root / "configs" / "policies")
    (root / "configs" / "models").mkdir()
    (root / "configs" / "models" / "tiny.yaml").write_text(CONFIG)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    save_file(model.state_dict(), root / "tiny" / "weights.safetensors")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 16)).astype(np.float32)
    labels = model(torch.from_numpy(x)).argmax(1).numpy()
    labels[::10] = 0
    np.savez(root / "tiny" / "suite.npz", x=x, labels=labels, id=np.arange(len(x)))
    np.savez(root / "tiny" / "calibration.npz", x=rng.standard_normal((64, 16)).astype(np.float32))


Run = Callable[..., subprocess.CompletedProcess[str]]


def run_in(root: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`lockstep ARGUMENTS` in a project, as a user would, with nothing of this test run in its environment."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTEST_"))}
    command = [sys.executable, "-m", "lockstep", *arguments]
    return subprocess.run(command, cwd=root, env={**clean, **(env or {})}, capture_output=True, text=True, check=False)


def json_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document on stdout."""
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project after `lockstep artifacts tiny`; shared by all workers of a run; copy it, never change it."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    root = shared / "tiny-project"
    with (shared / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "tiny-ready").exists():
            write_tiny(root)
            done = run_in(root, "artifacts", "tiny")
            assert done.returncode == 0, done.stdout + done.stderr
            (shared / "tiny-ready").touch()
    return root


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of the built tiny project that a test may break."""
    copy = tmp_path / "project"
    shutil.copytree(built, copy)
    return copy


MIXED = """
baseline: [cloud-gpu-tensorrt-fp16, cloud-cpu-onnxruntime]
targets:
  - cloud-gpu-tensorrt-fp16
  - cloud-cpu-onnxruntime
  - edge-x86-openvino-fp32
  - {name: edge-x86-onnxruntime, required: false, why: too small for int8 to pay}
"""


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with a target of each fate: DEFERRED where there is no GPU, PASS, and refused but not required."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    root = shared / "mixed-project"
    with (shared / "mixed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "mixed-ready").exists():
            write_tiny(root)
            config = root / "configs" / "models" / "tiny.yaml"
            config.write_text(config.read_text().split("baseline:")[0] + MIXED)
            done = run_in(root, "artifacts", "tiny")
            assert done.returncode == 0, done.stdout + done.stderr
            (shared / "mixed-ready").touch()
    return root
