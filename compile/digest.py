"""Digests: the one identity of bytes, documents and folders. SHA-256 throughout, as lower-case hex."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

CHUNK_BYTES = 1 << 20


def of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK_BYTES):
            sha.update(piece)
    return sha.hexdigest()


def canonical_json(document: object) -> bytes:
    """One spelling per document: sorted keys, no spaces, UTF-8, no NaN. Equal documents give equal bytes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def of_document(document: object) -> str:
    return of_bytes(canonical_json(document))


def files_below(folder: Path) -> list[str]:
    """Every file below `folder` as a sorted POSIX path relative to it."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def of_files(folder: Path, names: list[str] | None = None) -> dict[str, str]:
    """Path -> SHA-256 for the files below `folder` (all of them, or those named)."""
    return {name: of_file(folder / name) for name in (files_below(folder) if names is None else names)}


def of_tree(files: Mapping[str, str]) -> str:
    """One digest for a path -> SHA-256 table; independent of where the folder lies."""
    return of_document(dict(files))
