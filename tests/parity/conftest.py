"""What most tests of the judge begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.judged import Case, sound


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A candidate that answers exactly as the source does; labels agree with nine answers of ten."""
    return sound(tmp_path / "case")
