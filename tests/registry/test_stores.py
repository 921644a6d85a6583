"""One suite that every registry must pass: the embedded one and a real MLflow server on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.conftest import json_of, run_in

TARGET = "cloud-cpu-onnxruntime"
START_S = 90


@dataclass(frozen=True)
class Store:
    """A registry as the command line names it, and where its files lie on this disk."""

    name: str
    files: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """`mlflow server` as an operator would start it, on SQLite, handing out artifacts itself."""
    folder = tmp_path_factory.mktemp("server")
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1]]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--workers", "1"]
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "files")]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_healthy(url, process, folder / "log.txt")
        yield Store(url, folder / "files")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise AssertionError(f"mlflow server did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("embedded") / "registry"
    return Store(str(folder), folder / "artifacts")


@pytest.fixture(scope="module", params=["embedded", "server"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def home(built: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose release is version 1 of the store; nothing in it is broken by any test."""
    root = tmp_path_factory.mktemp("home") / "project"
    shutil.copytree(built, root)
    shutil.rmtree(root / ".lockstep")
    done = run_in(root, "publish", "tiny", "--registry", store.name, "--json")
    assert done.returncode == 0, done.stderr
    assert json_of(done)["release"] == {
        "name": "tiny",
        "version": 1,
        "digest": json_of(done)["release"]["digest"],
        "registry": store.name,
        "created": True,
    }
    return root


def versions(root: Path, store: Store) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json_of(run_in(root, "status", "tiny", "--registry", store.name, "--json"))[
        "tiny"
    ]["versions"]
    return found


def pull(root: Path, store: Store, to: Path, wanted: str = "tiny@1") -> subprocess.CompletedProcess[str]:
    return run_in(root, "pull", wanted, "--target", TARGET, "--to", str(to), "--registry", store.name, "--json")


def test_the_commands_to_type_next_name_the_registry_that_was_named(home: Path, store: Store) -> None:
    done = run_in(home, "publish", "tiny", "--registry", store.name)
    next_lines = [line for line in done.stdout.splitlines() if " promote " in line or " pull " in line]
    assert len(next_lines) == 2
    embedded = store.name == str(home / ".lockstep" / "registry")
    assert all((f"--registry {store.name}" in line) != embedded for line in next_lines)


def test_publishing_again_finds_the_version_that_is_there(home: Path, store: Store) -> None:
    done = run_in(home, "publish", "tiny", "--registry", store.name, "--json")
    assert done.returncode == 0, done.stderr
    assert (json_of(done)["release"]["version"], json_of(done)["release"]["created"]) == (1, False)
    assert [v["version"] for v in versions(home, store)] == [1]


def test_artifacts_that_has_nothing_to_do_finds_it_too(home: Path, store: Store) -> None:
    done = run_in(home, "artifacts", "tiny", "--registry", store.name, "--json")
    assert done.returncode == 0, done.stderr
    assert json_of(done)["ran"] == []
    assert json_of(done)["release"]["created"] is False


def test_the_environment_names_the_registry_and_the_option_wins(home: Path, store: Store, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": store.name}
    found = json_of(run_in(home, "status", "tiny", "--json", env=env))["tiny"]
    assert (found["registry"], len(found["versions"])) == (store.name, 1)
    other = json_of(run_in(home, "status", "tiny", "--json", "--registry", str(tmp_path), env=env))["tiny"]
    assert (other["registry"], other["versions"]) == (str(tmp_path), [])


def test_a_name_that_is_not_there_says_what_is(home: Path, store: Store, tmp_path: Path) -> None:
    done = pull(home, store, tmp_path / "got", "tyni@1")
    assert done.returncode == 2
    message = json_of(done)["error"]["message"]
    assert "did you mean `tiny`?" in message
    assert store.name in message
    done = pull(home, store, tmp_path / "got", "tiny@nowhere")
    assert "no such version or channel" in json_of(done)["error"]["message"]


def test_a_pulled_release_verifies_and_sha256sum_agrees(home: Path, store: Store, tmp_path: Path) -> None:
    done = pull(home, store, tmp_path / "got")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "got").iterdir()} == {"manifest.json", "release.json", "SHA256SUMS", "targets"}
    assert [p.name for p in (tmp_path / "got" / "targets").iterdir()] == [TARGET]
    assert run_in(tmp_path, "verify", "got").returncode == 0
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "got", capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    listed = (tmp_path / "got" / "SHA256SUMS").read_text().splitlines()
    files = [p for p in (tmp_path / "got").rglob("*") if p.is_file()]
    assert len(listed) == len(files) - 2  # all but itself and release.json


def test_pull_works_outside_of_any_project(home: Path, store: Store, tmp_path: Path) -> None:
    assert home.is_dir()
    done = pull(tmp_path, store, tmp_path / "got")
    assert done.returncode == 0, done.stderr


def test_pull_by_digest_and_by_channel_give_the_promoted_release(home: Path, store: Store, tmp_path: Path) -> None:
    digest = str(versions(home, store)[0]["digest"])
    assert run_in(home, "promote", "tiny", "1", "staging", "--registry", store.name).returncode == 0
    assert "staging" in versions(home, store)[0]["channels"]  # type: ignore[operator]
    for number, wanted in enumerate(("tiny@staging", f"tiny@sha256:{digest}")):
        done = pull(home, store, tmp_path / str(number), wanted)
        assert done.returncode == 0, done.stderr
        assert json_of(done)["digest"] == digest


@pytest.mark.parametrize("wanted", ["tiny@2", "tiny@production", "tiny@sha256:" + "0" * 64, "other@1", "tiny"])
def test_what_is_not_there_is_answered_with_what_is(home: Path, store: Store, tmp_path: Path, wanted: str) -> None:
    done = pull(home, store, tmp_path / "got", wanted)
    assert done.returncode == 2
    assert not (tmp_path / "got").exists()


def test_an_unknown_target_is_answered_with_the_nearest(home: Path, store: Store, tmp_path: Path) -> None:
    done = run_in(
        home, "pull", "tiny@1", "--target", "cloud-cpu-onnx", "--to", str(tmp_path / "got"), "--registry", store.name
    )
    assert done.returncode == 2
    assert f"did you mean `{TARGET}`?" in done.stderr


@pytest.mark.parametrize("channel", ["latest", "v7", "a b", "7", "../x"])
def test_channels_that_mlflow_keeps_or_cannot_name_are_refused(home: Path, store: Store, channel: str) -> None:
    done = run_in(home, "promote", "tiny", "1", channel, "--registry", store.name)
    assert done.returncode == 2
    assert channel not in str(versions(home, store)[0]["channels"])


def test_a_version_that_does_not_exist_cannot_be_promoted(home: Path, store: Store) -> None:
    assert run_in(home, "promote", "tiny", "9", "candidate", "--registry", store.name).returncode == 2


def test_a_version_that_lockstep_did_not_publish_is_neither_promoted_nor_pulled(
    home: Path, store: Store, tmp_path: Path
) -> None:
    """Somebody registers something else by hand, with MLflow alone."""
    code = (
        "import sys; from mlflow import MlflowClient; c = MlflowClient(sys.argv[1], sys.argv[1]);"
        "c.create_registered_model('strange'); c.create_model_version('strange', sys.argv[2])"
    )
    uri = store.name if "://" in store.name else f"sqlite:///{store.name}/mlflow.db"
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", code, uri, "s3://bucket/of/theirs"], check=True, capture_output=True, env=env)
    assert run_in(home, "promote", "strange", "1", "staging", "--registry", store.name).returncode == 2
    done = pull(home, store, tmp_path / "got", "strange@1")
    assert done.returncode == 3
    assert "not published by lockstep" in done.stderr


def test_stock_mlflow_fetches_the_folder_of_one_target(home: Path, store: Store, tmp_path: Path) -> None:
    code = (
        "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]);"
        f"mlflow.artifacts.download_artifacts('models:/tiny/1/targets/{TARGET}', dst_path=sys.argv[2])"
    )
    uri = store.name if "://" in store.name else f"sqlite:///{store.name}/mlflow.db"
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", code, uri, str(tmp_path)], check=True, capture_output=True, env=env)
    judged = home / "out" / "tiny" / "release" / "files" / "targets" / TARGET / "model.onnx"
    fetched = next(tmp_path.rglob("model.onnx"))
    assert fetched.read_bytes() == judged.read_bytes()


@pytest.fixture
def flipped(home: Path, store: Store) -> Iterator[Path]:
    """One bit of the published model flipped where the registry keeps it; mended afterwards."""
    assert home.is_dir()
    path = next(store.files.rglob(f"targets/{TARGET}/model.onnx"))
    before = path.read_bytes()
    path.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
    yield path
    path.write_bytes(before)


def test_a_flipped_bit_is_noticed_by_pull_and_leaves_nothing(
    home: Path, store: Store, flipped: Path, tmp_path: Path
) -> None:
    done = pull(home, store, tmp_path / "got")
    assert done.returncode == 3
    assert "model.onnx" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [("promote", "tiny", "1", "candidate"), ("publish", "tiny")], ids=lambda verb: verb[0])
def test_a_flipped_bit_is_noticed_by(home: Path, store: Store, flipped: Path, verb: tuple[str, ...]) -> None:
    done = run_in(home, *verb, "--registry", store.name)
    assert done.returncode == 3
    assert "model.onnx" in done.stderr
    assert "--repair" in done.stderr
    assert "candidate" not in str(versions(home, store))


def test_repair_puts_the_judged_bytes_back_into_the_same_version(home: Path, store: Store, flipped: Path) -> None:
    done = run_in(home, "publish", "tiny", "--repair", "--registry", store.name, "--json")
    assert done.returncode == 0, done.stderr
    assert (json_of(done)["release"]["version"], json_of(done)["release"]["created"]) == (1, False)
    judged = home / "out" / "tiny" / "release" / "files" / "targets" / TARGET / "model.onnx"
    assert flipped.read_bytes() == judged.read_bytes()
    assert run_in(home, "publish", "tiny", "--registry", store.name).returncode == 0


def test_repairing_what_is_whole_says_that_nothing_was_repaired(home: Path, store: Store) -> None:
    done = run_in(home, "publish", "tiny", "--repair", "--registry", store.name)
    assert done.returncode == 0, done.stderr
    assert "already published: tiny version 1" in done.stdout
    assert "repaired" not in done.stdout


@pytest.mark.parametrize("name", ["manifest.json", f"targets/{TARGET}/model.onnx"])
def test_a_file_that_vanished_is_noticed_and_repaired(home: Path, store: Store, tmp_path: Path, name: str) -> None:
    path = next(store.files.rglob(name))
    before = path.read_bytes()
    path.unlink()
    try:
        assert pull(home, store, tmp_path / "got").returncode == 3
        assert run_in(home, "publish", "tiny", "--repair", "--registry", store.name).returncode == 0
        assert path.read_bytes() == before
    finally:
        path.write_bytes(before)


def test_two_publishers_at_once_make_one_version(built: Path, store: Store, tmp_path: Path) -> None:
    """The same release from two clones, under a model name of their own, as CI jobs race."""
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        shutil.copytree(built, root)
        shutil.rmtree(root / ".lockstep")
    with ThreadPoolExecutor() as pool:
        names = ("--registry", store.name if "://" in store.name else str(tmp_path / "raced"))
        done = list(pool.map(lambda root: run_in(root, "publish", "tiny", *names, "--json"), roots))
    assert [d.returncode for d in done] == [0, 0], [d.stderr for d in done]
    assert len({json_of(d)["release"]["version"] for d in done}) == 1
    found = json_of(run_in(roots[0], "status", "tiny", *names, "--json"))["tiny"]["versions"]
    assert len(found) == 1


def test_a_server_that_is_down_is_exit_3_at_once_with_its_address(built: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    shutil.copytree(built, tmp_path / "project")
    for verb in (
        ("pull", "tiny@1", "--target", TARGET, "--to", "got"),
        ("promote", "tiny", "1", "staging"),
        ("status", "tiny"),
        ("publish", "tiny"),
        ("artifacts", "tiny"),
    ):
        start = time.monotonic()
        done = run_in(tmp_path / "project", *verb, "--registry", url)
        assert done.returncode == 3, verb
        assert url in done.stderr
        assert "Traceback" not in done.stderr
        assert time.monotonic() - start < 15
    assert not (tmp_path / "project" / "got").exists()


def test_something_that_is_no_mlflow_is_exit_3(tmp_path: Path) -> None:
    """A web server that answers everything with its own page."""
    code = (
        "import http.server, sys\n"
        "class Page(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'<html>')\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Page)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        done = run_in(tmp_path, "pull", "tiny@1", "--target", TARGET, "--to", "got", "--registry", url, "--json")
        assert done.returncode == 3
        assert "does not answer as MLflow does" in json.loads(done.stdout)["error"]["message"]
    finally:
        process.kill()
        process.wait(timeout=10)
        process.stdout.close()
