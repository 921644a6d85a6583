"""What a compile made, as files."""

from __future__ import annotations

from pathlib import Path

from compile.digest import files_below

FOLDER = "artifact"


def artifact_bytes(built: Path) -> int:
    """Size of the files of a built target, without the facts that lie beside them."""
    place = built / FOLDER
    return sum((place / name).stat().st_size for name in files_below(place))
