"""A step in a process of its own: what it read of the user's is told with digests, what lockstep made is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.spent import step
from compile import digest
from compile.child import _note

READS = """
from pathlib import Path

def made(project, made, paths):
    for path in paths:
        open(path.replace("ROOT", str(project.root)), "rb").close()
    (made / "answer").write_text("42")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "reads.py": READS,
        "data.csv": "1,2\n",
        "out/m/outputs/00000.npz": "",
        "other/list.txt": "a",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_of_the_user_are_told_and_those_that_lockstep_made_are_not(root: Path) -> None:
    paths = ["ROOT/data.csv", "ROOT/out/m/outputs/00000.npz", "ROOT/out/../other/list.txt", "/etc/hostname"]
    work = root / "out" / "work"
    found = step(work, root, "reads:made", {"paths": paths})
    assert found.status == 0, found.said
    told = json.loads((work / "report.json").read_text())["read"]
    assert told == {name: digest.of_file(root / name) for name in ("data.csv", "other/list.txt", "reads.py")}


def test_outputs_are_not_remembered_however_many_there_are() -> None:
    """To find out of each path where it lies took a third of judging 250,000 files."""
    opened: set[str] = set()
    for path in ("/p/out/m/source/outputs/00000.npz", "/p/outside.csv", "/p/out/../data.csv", b"/p/bytes.csv"):
        _note(opened, "/p/out/", "open", (path, "rb", 0))
    _note(opened, "/p/out/", "open", ("/p/written.csv", "w", 0))
    _note(opened, "/p/out/", "import", ("/p/module.py", None))
    assert opened == {"/p/outside.csv", "/p/out/../data.csv", "/p/bytes.csv"}
