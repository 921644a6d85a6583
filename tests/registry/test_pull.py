"""Pulling and verifying: nothing usable appears before every byte is checked, and no byte changes unseen afterwards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compile import digest
from compile.errors import ConfigError, IntegrityError, LockstepError, ToolchainError
from registry import manifest
from registry.embedded import Embedded
from registry.pull import pull
from registry.reading import DIGEST_TAG, Version
from registry.verify import verify

TARGET = "edge"


@dataclass
class InMemory:
    """A registry that holds bytes; `break_after` files it stops answering, `swap` gives other bytes for a path."""

    files: dict[str, bytes]
    digest: str
    break_after: int | None = None
    swap: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        return []

    def versions(self, name: str) -> list[Version]:
        return [Version("m", 3, "memory", {DIGEST_TAG: self.digest})] if name == "m" else []

    def channels(self, name: str) -> Mapping[str, int]:
        return {"production": 3}

    def fetch(self, version: Version, path: str, to: Path) -> None:
        self.asked.append(path)
        if self.break_after is not None and len(self.asked) > self.break_after:
            to.write_bytes(b"half of i")
            raise ToolchainError("the line broke")
        to.write_bytes({**self.files, **self.swap}[path])


def release(files: Mapping[str, bytes], **more: Any) -> InMemory:
    """A registry with one release of two targets, `edge` with these files and `cloud` with one of its own."""

    def entries(target: str, contents: Mapping[str, bytes]) -> dict[str, Any]:
        listed = [{"path": p, "size": len(b), "sha256": digest.of_bytes(b)} for p, b in sorted(contents.items())]
        return {"files": listed}

    cloud = {"targets/cloud/model.bin": b"for the cloud"}
    document = {
        "schema": manifest.SCHEMA,
        "name": "m",
        "targets": {"edge": entries("edge", files), "cloud": entries("cloud", cloud)},
        "absent": {"gone": {"status": "FAIL", "found": "FAIL: latency ratio against float", "why": "not needed yet"}},
        **more,
    }
    data = digest.canonical_json(document)
    return InMemory({**files, **cloud, "manifest.json": data}, digest.of_bytes(data))


FILES = {"targets/edge/model.bin": b"weights", "targets/edge/golden/in.npz": b"inputs", "targets/edge/job.json": b"{}"}


@pytest.fixture
def registry() -> InMemory:
    return release(FILES)


@pytest.fixture
def folder(registry: InMemory, tmp_path: Path) -> Path:
    """A pulled folder that a test may break."""
    return pull(registry, "m@3", TARGET, tmp_path / "got").folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_pulled_folder_holds_the_files_of_its_target_alone(registry: InMemory, folder: Path) -> None:
    assert set(contents(folder)) == {*FILES, "manifest.json", "release.json", "SHA256SUMS"}
    assert not any("cloud" in path for path in registry.asked)
    assert verify(folder).files == len(FILES)


def test_pulling_what_is_already_there_fetches_nothing(registry: InMemory, folder: Path) -> None:
    registry.asked.clear()
    done = pull(registry, "m@production", TARGET, folder)
    assert not done.fetched
    assert registry.asked == []


def test_a_damaged_pulled_folder_is_pulled_again(registry: InMemory, folder: Path) -> None:
    (folder / "targets/edge/model.bin").write_bytes(b"other")
    assert pull(registry, "m@3", TARGET, folder).fetched
    verify(folder)


def test_an_older_pulled_release_is_replaced_whole(folder: Path) -> None:
    newer = release({"targets/edge/other.bin": b"new weights"})
    assert pull(newer, "m@3", TARGET, folder).fetched
    assert set(contents(folder)) == {"targets/edge/other.bin", "manifest.json", "release.json", "SHA256SUMS"}
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("broken", range(5))
def test_a_line_that_breaks_at_any_file_leaves_nothing(registry: InMemory, tmp_path: Path, broken: int) -> None:
    registry.break_after = broken
    if broken > len(FILES):
        pull(registry, "m@3", TARGET, tmp_path / "got")
        return
    with pytest.raises(ToolchainError):
        pull(registry, "m@3", TARGET, tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_breaks_keeps_the_older_release(folder: Path) -> None:
    newer, before = release({"targets/edge/other.bin": b"new weights"}), contents(folder)
    newer.break_after = 1
    with pytest.raises(ToolchainError):
        pull(newer, "m@3", TARGET, folder)
    assert contents(folder) == before


def test_what_killed_pulls_left_is_cleared_and_what_one_set_aside_comes_back(folder: Path) -> None:
    dead = 2**22 + 1  # above the largest process id that Linux gives
    folder.rename(folder.with_name(f".{folder.name}.old-{dead}"))
    half, running = (folder.with_name(f".{folder.name}.part-{pid}") for pid in (dead, 1))
    half.mkdir()
    running.mkdir()
    broken = release({**FILES, "targets/edge/model.bin": b"newer"})
    broken.break_after = 1
    with pytest.raises(ToolchainError, match="the line broke"):
        pull(broken, "m@3", TARGET, folder)
    assert verify(folder).target == TARGET
    assert not half.exists()
    assert running.exists()


@pytest.mark.parametrize("path", ["manifest.json", *FILES])
@pytest.mark.parametrize("change", [lambda b: b + b" ", lambda b: b[:-1], lambda b: bytes([b[0] ^ 1]) + b[1:]])
def test_other_bytes_than_promised_are_refused(
    registry: InMemory, tmp_path: Path, path: str, change: Callable[[bytes], bytes]
) -> None:
    registry.swap[path] = change(registry.files[path])
    with pytest.raises(IntegrityError):
        pull(registry, "m@3", TARGET, tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


UNSAFE = [
    "../x",
    "targets/edge/../../../x",
    "/tmp/x",
    "targets/cloud/x",
    "targets/edge",
    "targets/edge/../cloud/x",
    "targets/./edge/x",
    "targets//edge/x",
    "targets/edge/a\\..\\..\\x",
    "targets/edge/two\nlines",
    "x",
    "",
]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_manifest_that_leads_out_of_its_folder_is_refused_before_anything_is_fetched(
    tmp_path: Path, path: str
) -> None:
    """The digest holds, so it is what somebody published: it is refused all the same."""
    registry = release({path: b"owned"})
    with pytest.raises(IntegrityError, match="unsafe path"):
        pull(registry, "m@3", TARGET, tmp_path / "deep" / "er" / "got")
    assert registry.asked == ["manifest.json"]
    assert [p.name for p in tmp_path.rglob("*")] in (["deep", "er"], [])


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "lockstep.manifest/2"},
        {"targets": []},
        {"targets": {"edge": {}}},
        {"targets": {"edge": {"files": [{"path": "targets/edge/x"}]}}},
        {"absent": None},
    ],
)
def test_a_manifest_of_another_shape_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        pull(release(FILES, **change), "m@3", TARGET, tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"schema": "lockstep.manifest/1"}'])
def test_bytes_that_are_no_manifest_are_damaged(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        manifest.parse(data)


def test_a_target_the_release_goes_without_is_answered_with_the_reason(registry: InMemory, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="goes without `gone`: FAIL: latency ratio against float \\(not needed yet\\)"
    ):
        pull(registry, "m@3", "gone", tmp_path / "got")


@pytest.mark.parametrize("wanted", ["m", "m@", "@3", ""])
def test_what_names_no_version_is_refused(registry: InMemory, tmp_path: Path, wanted: str) -> None:
    with pytest.raises(ConfigError, match="expected NAME@VERSION"):
        pull(registry, wanted, TARGET, tmp_path / "got")


def somebodys_notes(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def somebodys_own_release_file(folder: Path) -> None:
    folder.mkdir()
    (folder / "release.json").write_text("{}")


def a_pulled_folder_with_notes(folder: Path) -> None:
    pull(release(FILES), "m@3", TARGET, folder)
    (folder / "notes.txt").write_text("mine")


def a_file(folder: Path) -> None:
    folder.write_text("mine")


def a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    "make", [somebodys_notes, somebodys_own_release_file, a_pulled_folder_with_notes, a_file, a_link]
)
def test_somebodys_own_files_are_never_replaced(
    registry: InMemory, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "got")
    before = contents(tmp_path)
    with pytest.raises(ConfigError):
        pull(registry, "m@3", TARGET, tmp_path / "got")
    assert contents(tmp_path) == before


def test_an_empty_folder_is_filled(registry: InMemory, tmp_path: Path) -> None:
    (tmp_path / "got").mkdir()
    assert pull(registry, "m@3", TARGET, tmp_path / "got").fetched


def test_the_working_folder_itself_is_refused_with_a_sentence(
    registry: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="holds files that lockstep did not pull"):
        pull(registry, "m@3", TARGET, Path("."))


def edited(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        (folder / name).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")

    return edit


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte of a file": lambda f: (f / "targets/edge/model.bin").write_bytes(b"weighty"),
    "a longer file": lambda f: (f / "targets/edge/model.bin").write_bytes(b"weights and more"),
    "a file gone": lambda f: (f / "targets/edge/job.json").unlink(),
    "a folder gone": lambda f: shutil.rmtree(f / "targets/edge/golden"),
    "a file added": lambda f: (f / "targets/edge/extra.so").write_bytes(b"x"),
    "a hidden file added": lambda f: (f / ".hidden").write_bytes(b"x"),
    "a file added on top": lambda f: (f / "sitecustomize.py").write_bytes(b"x"),
    "a pipe added": lambda f: os.mkfifo(f / "targets/edge/pipe"),
    "another targets file": lambda f: (f / "targets/cloud").mkdir() or (f / "targets/cloud/x").write_bytes(b"x"),
    "a link instead of a file": lambda f: (
        (f / "targets/edge/model.bin").rename(f.parent / "model.bin"),
        (f / "targets/edge/model.bin").symlink_to(f.parent / "model.bin"),
    ),
    "a link added": lambda f: (f / "targets/edge/link").symlink_to("/etc"),
    "a manifest with a space": lambda f: (f / "manifest.json").write_bytes((f / "manifest.json").read_bytes() + b" "),
    "no manifest": lambda f: (f / "manifest.json").unlink(),
    "no sums": lambda f: (f / "SHA256SUMS").unlink(),
    "a changed sum": lambda f: (f / "SHA256SUMS").write_text((f / "SHA256SUMS").read_text().replace("0", "1", 1)),
    "a sum less": lambda f: (f / "SHA256SUMS").write_text("\n".join((f / "SHA256SUMS").read_text().split("\n")[1:])),
    "another name": edited("release.json", lambda d: d.update(name="other")),
    "another digest": edited("release.json", lambda d: d.update(digest="0" * 64)),
    "another target": edited("release.json", lambda d: d.update(target="cloud")),
    "an unknown target": edited("release.json", lambda d: d.update(target="nowhere")),
    "a key more": edited("release.json", lambda d: d.update(trusted=True)),
    "a key less": edited("release.json", lambda d: d.pop("version")),
    "no number": edited("release.json", lambda d: d.update(version="three")),
    "a release that is a list": lambda f: (f / "release.json").write_text("[]"),
    "a release in another spelling": lambda f: (f / "release.json").write_text(
        json.dumps(json.loads((f / "release.json").read_text()))
    ),
    "no release": lambda f: (f / "release.json").unlink(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_verify_refuses_a_folder_with(folder: Path, name: str) -> None:
    verify(folder)
    CHANGES[name](folder)
    with pytest.raises(LockstepError):
        verify(folder)


def test_a_file_and_its_entry_changed_together_break_the_digest(folder: Path) -> None:
    """Consistent tampering: the file, the manifest's entry and SHA256SUMS agree; the digest pulled does not."""
    (folder / "targets/edge/model.bin").write_bytes(b"poisons")
    document = json.loads((folder / "manifest.json").read_text())
    for entry in document["targets"]["edge"]["files"]:
        if entry["path"].endswith("model.bin"):
            entry["sha256"] = digest.of_bytes(b"poisons")
    data = digest.canonical_json(document)
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(IntegrityError, match="is not the one that was pulled"):
        verify(folder)


def test_the_real_release_pulls_and_verifies_for_every_target(built: Path, tmp_path: Path) -> None:
    registry = Embedded(built / ".lockstep" / "registry")
    document = json.loads((built / "out" / "tiny" / "release" / "files" / "manifest.json").read_text())
    for target in document["targets"]:
        verify(pull(registry, "tiny@1", target, tmp_path / target).folder)
