"""Killed at any point, a publish leaves the registry as it was or as it should be, and running it again heals it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import json_of, run_in

TARGET = "cloud-cpu-onnxruntime"

DIE = """
import os, sys
def die(*args, **kwargs):
    os.kill(os.getpid(), 9)
"""
AFTER_UPLOADS = """
from mlflow import MlflowClient
real, done = MlflowClient.log_artifact, []
def counted(*args, **kwargs):
    done.append(real(*args, **kwargs))
    if len(done) == {0}:
        die()
MlflowClient.log_artifact = counted
"""
AT_STATEMENT = """
from sqlalchemy import event
from sqlalchemy.engine import Engine
seen = []
@event.listens_for(Engine, "before_cursor_execute")
def counted(*args):
    seen.append(1)
    if len(seen) == {0}:
        die()
"""
CALLS = """
from mlflow import MlflowClient
real = MlflowClient.{0}
def wrapped(*args, **kwargs):
    {1}
MlflowClient.{0} = wrapped
"""
POINTS = {
    "while the tables are made": AT_STATEMENT.format(25),
    "while the tables are migrated": AT_STATEMENT.format(250),
    "before the run exists": CALLS.format("create_run", "die()"),
    "after one file": AFTER_UPLOADS.format(1),
    "after most files": AFTER_UPLOADS.format(9),
    "between the upload and the commit": CALLS.format("create_model_version", "die()"),
}
GO = """
sys.argv = ["lockstep", "publish", "tiny"]
import lockstep
lockstep.main()
"""


def publish_and_die(root: Path, where: str) -> None:
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", DIE + where + GO], cwd=root, env=env, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()[-2000:]


def versions(root: Path) -> list[dict[str, object]]:
    done = run_in(root, "status", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json_of(done)["tiny"]["versions"]
    return found


@pytest.fixture
def unpublished(project: Path) -> Path:
    """Judged, and not yet in any registry."""
    shutil.rmtree(project / ".lockstep")
    return project


def assert_heals(root: Path, tmp_path: Path) -> None:
    done = run_in(root, "publish", "tiny")
    assert done.returncode == 0, done.stderr
    assert [v["version"] for v in versions(root)] == [1]
    assert run_in(root, "pull", "tiny@1", "--target", TARGET, "--to", str(tmp_path / "got")).returncode == 0


@pytest.mark.parametrize("point", POINTS)
def test_killed_before_the_commit_there_is_no_version_and_publishing_again_heals(
    unpublished: Path, tmp_path: Path, point: str
) -> None:
    publish_and_die(unpublished, POINTS[point])
    assert versions(unpublished) == []
    assert run_in(unpublished, "pull", "tiny@1", "--target", TARGET, "--to", str(tmp_path / "early")).returncode == 2
    assert_heals(unpublished, tmp_path)


def test_killed_after_the_commit_the_version_is_whole_and_publishing_again_finds_it(
    unpublished: Path, tmp_path: Path
) -> None:
    publish_and_die(unpublished, CALLS.format("create_model_version", "real(*args, **kwargs); die()"))
    before = versions(unpublished)
    assert [v["version"] for v in before] == [1]
    assert_heals(unpublished, tmp_path)
    assert versions(unpublished) == before


def test_what_a_killed_writer_left_half_written_in_the_database_is_rolled_back(project: Path, tmp_path: Path) -> None:
    """SQLite's hot journal: a reader that may not write could only say that the database is read-only."""
    database = project / ".lockstep" / "registry" / "mlflow.db"
    code = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('pragma cache_size = 1'); c.execute('begin')\n"
        "c.execute(\"update model_versions set source = 'broken'\"); c.execute('create table junk (x)')\n"
        "for _ in range(3000): c.execute('insert into junk values (?)', ('x' * 500,))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(database)], check=False)
    assert database.with_name("mlflow.db-journal").stat().st_size > 0
    assert [v["version"] for v in versions(project)] == [1]
    assert run_in(project, "pull", "tiny@1", "--target", TARGET, "--to", str(tmp_path / "got")).returncode == 0


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be one" * 40])
def test_a_database_that_is_none_is_empty_or_said_to_be_unreadable(project: Path, content: bytes) -> None:
    """A file of no bytes is what SQLite leaves before its first page; anything else strange is named."""
    database = project / ".lockstep" / "registry" / "mlflow.db"
    database.write_bytes(content)
    done = run_in(project, "status", "tiny", "--json")
    if not content:
        assert json_of(done)["tiny"]["versions"] == []
        return
    assert done.returncode == 3
    assert ".lockstep/registry/mlflow.db: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_another_process_writes_can_be_read_meanwhile(project: Path) -> None:
    assert [v["version"] for v in versions(project)] == [1]  # mends the copy's paths
    writer = sqlite3.connect(project / ".lockstep" / "registry" / "mlflow.db", isolation_level=None)
    try:
        writer.execute("begin immediate")
        assert [v["version"] for v in versions(project)] == [1]
    finally:
        writer.close()
