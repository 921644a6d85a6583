"""What happens, while it happens: a live line for each target on a terminal, plain lines in CI. Always on stderr.

The rule: where files that lockstep had made were changed behind its back, that is said, also where nothing else is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compile.line import Event, Notify

if TYPE_CHECKING:
    from rich.table import Table


@contextmanager
def shown(quiet: bool) -> Iterator[Notify]:
    """Gives the function that hears events, for the time that work goes on."""
    if quiet:
        yield lambda event: _plain(event) if event.altered else None
    elif sys.stderr.isatty():
        with _live() as notify:
            yield notify
    else:
        yield _plain


def _plain(event: Event) -> None:
    if event.ran:
        left = "" if event.until is None else f" ({clock(event.until - time.monotonic())} left)"
        sys.stderr.write(
            f"{event.who}: {_said(event)}{left}{_altered(event)}\n"
        )  # one write: targets report side by side
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, `3:07`; none left is `0:00`."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def _said(event: Event) -> str:
    """The step without its target, which stands before it."""
    return event.what.removeprefix(f"targets/{event.who}/")


def _altered(event: Event) -> str:
    """Why a step runs again that nobody gave other inputs."""
    if not event.altered:
        return ""
    more = f" and {len(event.altered) - 1} more" if len(event.altered) > 1 else ""
    return f" again: {event.altered[0]}{more} changed or gone since lockstep made it"


@contextmanager
def _live() -> Iterator[Notify]:
    from rich.console import Console
    from rich.live import Live

    rows: dict[str, tuple[str, float, float | None]] = {}

    def draw() -> Table:
        from rich.table import Table

        drawn = Table(box=None, show_header=False, pad_edge=False)
        now = time.monotonic()
        for who, (what, since, until) in rows.items():
            drawn.add_row(who, what, f"{now - since:.0f} s" if until is None else f"{clock(until - now)} left")
        return drawn

    console = Console(stderr=True, highlight=False)
    with Live(get_renderable=draw, console=console, refresh_per_second=4, transient=True):

        def notify(event: Event) -> None:
            if event.altered:
                console.print(f"{event.who}: {_said(event)}{_altered(event)}", markup=False, soft_wrap=True)
            if event.ran:
                rows[event.who] = (_said(event), time.monotonic(), event.until)

        yield notify
