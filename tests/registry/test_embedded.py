"""The embedded registry moves with its project, and nothing in it changes unseen."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from compile.errors import ConfigError
from registry.embedded import Embedded, mend
from registry.location import Location, locate
from tests.conftest import json_of, run_in

TARGET = "cloud-cpu-onnxruntime"


def paths_in(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = [
            *connection.execute("select source from model_versions"),
            *connection.execute("select artifact_uri from runs"),
            *connection.execute("select artifact_location from experiments where name like 'lockstep/%'"),
        ]
    return {str(path) for (path,) in rows}


def pull(root: Path, to: Path) -> subprocess.CompletedProcess[str]:
    return run_in(root, "pull", "tiny@1", "--target", TARGET, "--to", str(to))


def test_a_moved_project_finds_its_releases_and_its_paths_are_mended(project: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved here with a 'quote' and %"
    project.rename(moved)
    assert json_of(run_in(moved, "status", "tiny", "--json"))["tiny"]["versions"][0]["version"] == 1
    registry = moved / ".lockstep" / "registry"
    assert all(path.startswith(str(registry)) for path in paths_in(registry / "mlflow.db"))
    assert pull(moved, tmp_path / "got").returncode == 0
    assert run_in(moved, "promote", "tiny", "1", "staging").returncode == 0
    done = run_in(moved, "artifacts", "tiny", "--json")
    assert (done.returncode, json_of(done)["release"]["created"]) == (0, False)


def test_pulling_first_from_a_moved_project_mends_it_too(project: Path, tmp_path: Path) -> None:
    moved = project.rename(tmp_path / "moved")
    assert pull(moved, tmp_path / "got").returncode == 0


def test_a_copied_project_reads_its_own_files_and_not_those_of_the_original(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    shutil.rmtree(project / ".lockstep" / "registry" / "artifacts")
    assert pull(copy, tmp_path / "got").returncode == 0


def test_mending_twice_changes_nothing_the_second_time(project: Path, tmp_path: Path) -> None:
    registry = project.rename(tmp_path / "moved") / ".lockstep" / "registry"
    assert mend(registry) is not None
    assert mend(registry) is None


def test_other_peoples_experiments_keep_their_paths(project: Path, tmp_path: Path) -> None:
    database = project / ".lockstep" / "registry" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update experiments set artifact_location = '/elsewhere/of/theirs' where name = 'Default'")
    registry = project.rename(tmp_path / "moved") / ".lockstep" / "registry"
    mend(registry)
    with closing(sqlite3.connect(registry / "mlflow.db")) as connection:
        kept = connection.execute("select artifact_location from experiments where name = 'Default'").fetchone()
    assert kept == ("/elsewhere/of/theirs",)


def test_a_missing_registry_is_empty_and_reading_makes_none(tmp_path: Path) -> None:
    registry = Embedded(tmp_path / "registry")
    assert registry.versions("tiny") == []
    assert dict(registry.channels("tiny")) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_version_is_no_version(project: Path) -> None:
    """MLflow keeps the row and marks it; deleting one drops its channels."""
    database = project / ".lockstep" / "registry" / "mlflow.db"
    assert [v.number for v in Embedded(database.parent).versions("tiny")] == [1]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update model_versions set current_stage = 'Deleted_Internal'")
    assert Embedded(database.parent).versions("tiny") == []


def stored(project: Path, name: str) -> Path:
    return next((project / ".lockstep" / "registry" / "artifacts").rglob(name))


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "worker.py", "golden.json"])
def test_artifacts_notices_a_published_file_that_changed_and_repair_heals_it(project: Path, name: str) -> None:
    """`artifacts` with nothing to build still reads what it says is published."""
    path = stored(project, name)
    before = path.read_bytes()
    path.write_bytes(before.replace(before[-2:-1], b"#"))
    for verb in (("artifacts", "tiny"), ("promote", "tiny", "1", "staging")):
        done = run_in(project, *verb)
        assert done.returncode == 3
        assert name in done.stderr
        assert "--repair" in done.stderr
    assert run_in(project, "publish", "tiny", "--repair").returncode == 0
    assert path.read_bytes() == before
    assert run_in(project, "artifacts", "tiny").returncode == 0


def test_a_file_of_the_same_size_but_other_bytes_is_noticed(project: Path, tmp_path: Path) -> None:
    path = stored(project, "model.onnx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = pull(project, tmp_path / "got")
    assert done.returncode == 3
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("named", "environment", "wanted"),
    [
        (None, None, Location(folder=Path("/home/.lockstep/registry"))),
        (None, "", Location(folder=Path("/home/.lockstep/registry"))),
        (None, "http://host:5000/", Location(url="http://host:5000")),
        ("https://other", "http://host:5000", Location(url="https://other")),
        ("sqlite:////data/registry/mlflow.db", None, Location(folder=Path("/data/registry"))),
        ("/data/registry", "http://host:5000", Location(folder=Path("/data/registry"))),
    ],
)
def test_the_registry_is_the_one_named_then_the_environments_then_the_embedded_one(
    named: str | None, environment: str | None, wanted: Location
) -> None:
    assert locate(named, environment, Path("/home/.lockstep/registry")) == wanted


@pytest.mark.parametrize("named", ["ftp://host", "databricks://profile", "sqlite:////data/other.sqlite"])
def test_a_registry_of_a_kind_that_cannot_be_read_is_refused(named: str) -> None:
    with pytest.raises(ConfigError, match="expected the URL of an MLflow server"):
        locate(named, None, Path("/home"))
