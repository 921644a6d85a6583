"""The manifest: what a release promises, as one canonical document. SHA-256 of its bytes is the release digest.

Nothing in it depends on when, where or how fast: the same inputs give the same bytes. Law: every file that a
release publishes for a target is listed with its size and SHA-256, and nothing else is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from compile import digest
from compile.errors import IntegrityError

SCHEMA = "lockstep.manifest/1"
FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One promised file; `path` is relative to the release."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest and the digest of the bytes it was parsed from."""

    digest: str
    name: str
    document: Mapping[str, Any]

    @property
    def targets(self) -> list[str]:
        return sorted(self.document["targets"])

    def entries(self, target: str) -> list[Entry]:
        """The files of one target; IntegrityError where a path would lead out of the release."""
        found = [Entry(f["path"], f["size"], f["sha256"]) for f in self.document["targets"][target]["files"]]
        for entry in found:
            pure = PurePosixPath(entry.path)
            inside = pure.parts[:2] == ("targets", target) and len(pure.parts) > 2 and ".." not in pure.parts
            if not inside or str(pure) != entry.path or "\\" in entry.path or not entry.path.isprintable():
                raise IntegrityError(f"the manifest lists an unsafe path: `{entry.path}`; nothing was written there")
        return found


def parse(data: bytes) -> Manifest:
    """The manifest in these bytes; IntegrityError for anything that is not one."""
    try:
        document = json.loads(data)
        if document["schema"] != SCHEMA:
            raise IntegrityError(f"manifest schema `{document['schema']}`; this lockstep reads `{SCHEMA}`")
        for target in document["targets"].values():
            _ = [(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in target["files"]]
        _ = {name: (absent["found"], absent["why"]) for name, absent in document["absent"].items()}
        return Manifest(digest.of_bytes(data), str(document["name"]), document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"the manifest is damaged: {error!r}") from error


def files_of(folder: Path, target: str) -> list[dict[str, object]]:
    """Entries of everything below `targets/<target>` in a release folder."""
    place = folder / "targets" / target
    names = digest.files_below(place)
    return [
        {
            "path": f"targets/{target}/{name}",
            "size": (place / name).stat().st_size,
            "sha256": digest.of_file(place / name),
        }
        for name in names
    ]


def check_file(path: Path, entry: Entry, where: str) -> None:
    """IntegrityError unless the file is there with the promised size and digest."""
    if not path.is_file():
        raise IntegrityError(f"{where}: `{entry.path}` is missing; pull the release again")
    size = path.stat().st_size
    if size != entry.size_bytes:
        raise IntegrityError(
            f"{where}: `{entry.path}` has {size} bytes; the manifest says {entry.size_bytes}; pull again"
        )
    found = digest.of_file(path)
    if found != entry.sha256:
        raise IntegrityError(
            f"{where}: `{entry.path}` has SHA-256 {found[:16]}…; the manifest says {entry.sha256[:16]}…. "
            "Its bytes were changed after the release was judged: do not use it. A damaged copy is mended by pulling it again, "
            "a damaged registry by whoever published: `lockstep publish MODEL --repair`"
        )
