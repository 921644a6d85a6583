"""The three ways a run can stop, named by who must act. A failed verdict is data, not an error."""

from __future__ import annotations

from collections.abc import Iterable

PASSED, FAILED, CONFIG, TOOLCHAIN, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes, as the README gives them."""


class LockstepError(Exception):
    """Base of what lockstep raises on purpose. The message says expected, found, where, and what to do next."""


class ConfigError(LockstepError):
    """The user must act: a config, a data set or a source model is not what it says."""


class ToolchainError(LockstepError):
    """The machine must be mended: a compiler, a runtime or the registry failed."""


class IntegrityError(LockstepError):
    """Bytes are not the bytes that were promised."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the closest known name, else the empty string."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""
