"""What a consumer needs is small: pull and verify run on the base install, and a run with nothing to do loads little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "torch", "onnx", "onnxruntime", "openvino", "mlflow", "scipy", "pandas", "sqlalchemy")

BLOCKED = """
import sys
HEAVY = {heavy}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HEAVY:
            raise ImportError(name + " is not part of the base install")
sys.meta_path.insert(0, Refuse())
"""
LISTED = """
import atexit, json, sys
HEAVY = {heavy}
atexit.register(lambda: print(json.dumps(sorted({{m.split(".")[0] for m in sys.modules}} & set(HEAVY))), file=sys.stderr))
"""
GO = """
sys.argv = ["lockstep", *{arguments}]
import lockstep
lockstep.main()
"""


def run(before: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = before.format(heavy=repr(HEAVY)) + GO.format(arguments=repr(list(arguments)))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTEST_", "COV_"))}
    return subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, check=False)


def test_pull_and_verify_need_only_the_base_install(built: Path, tmp_path: Path) -> None:
    registry = str(built / ".lockstep" / "registry")
    target = "edge-x86-openvino-fp32"
    pulled = run(BLOCKED, tmp_path, "pull", "tiny@1", "--target", target, "--to", "got", "--registry", registry)
    assert pulled.returncode == 0, pulled.stderr
    verified = run(BLOCKED, tmp_path, "verify", "got")
    assert verified.returncode == 0, verified.stderr


def test_the_block_blocks(tmp_path: Path) -> None:
    code = BLOCKED.format(heavy=repr(HEAVY)) + "import numpy"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not part of the base install" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("status", "tiny"), ("why", "tiny"), ("artifacts", "tiny"), ("schema",), ("check", "tiny")],
)
def test_a_verb_with_nothing_to_do_loads_nothing_heavy(project: Path, arguments: tuple[str, ...]) -> None:
    done = run(LISTED, project, *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.strip().splitlines()[-1]) == []


def test_the_list_lists(project: Path) -> None:
    """Promoting needs MLflow, so there it must be seen."""
    done = run(LISTED, project, "promote", "tiny", "1", "staging")
    assert done.returncode == 0, done.stderr
    assert "mlflow" in json.loads(done.stderr.strip().splitlines()[-1])
