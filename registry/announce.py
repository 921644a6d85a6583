"""What a run says when it ends: the table, why a target is not PASS, what was published, what to type next."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compile.errors import PASSED
from compile.line import Line
from parity import report
from parity.check import Outcome
from registry.location import Location
from registry.reading import Version


@dataclass(frozen=True, slots=True)
class Ending:
    """Everything a run has to say; `release` is what is published, and `created` whether this run did it."""

    line: Line
    outcomes: Sequence[Outcome]
    code: int
    release: Version | None = None
    location: Location | None = None
    created: bool = False
    repaired: bool = False

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        facts = None
        if self.release is not None:
            facts = {
                "name": self.release.name,
                "version": self.release.number,
                "digest": self.release.digest,
                "registry": str(self.location),
                "created": self.created,
            }
        return {
            "model": self.line.model,
            "ran": self.line.ran,
            "targets": [report.document(o) for o in self.outcomes],
            "release": facts,
            "exit": self.code,
        }


def say(ending: Ending, as_json: bool) -> int:
    """Print it to stdout; gives the exit code."""
    if as_json:
        print(json.dumps(ending.document()))
        return ending.code
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, report.WIDTH)
    console.print(report.table(ending.outcomes))
    for outcome in ending.outcomes:
        for complaint in report.complaints(outcome):
            console.print(f"\n[bold]{outcome.name}[/] {outcome.status}: ", end="")
            console.print(complaint, markup=False)
    for text in _closing(ending):
        console.print(text, markup=False)
    return ending.code


def _closing(ending: Ending) -> list[str]:
    idle = (
        ""
        if ending.line.ran or ending.created or ending.repaired
        else "nothing to do: nothing changed since the last run\n"
    )
    if ending.release is None:
        return ["", idle + ("all required targets are fit" if ending.code == PASSED else "not fit to publish")]
    name, version, me = ending.release.name, ending.release.number, _typed()
    first = "published" if ending.created else "repaired" if ending.repaired else "already published"
    targets = [o.name for o in ending.outcomes if o.status in ("PASS", "DEFERRED")]
    edge = next((target for target in targets if target.startswith("edge")), targets[0])
    left_out = [f"left out: {o.name}, {o.status}, not required: {o.use.why}" for o in _left_out(ending)]
    return [
        *left_out,
        "",
        f"{idle}{first}: {name} version {version}, sha256:{ending.release.digest}, in {ending.location}",
        "",
        "next:",
        f"  {me} promote {name} {version} staging",
        f"  {me} pull {name}@{version} --target {edge} --to pulled/{name}",
        f"  {me} verify pulled/{name} --run",
    ]


def _left_out(ending: Ending) -> list[Outcome]:
    return [o for o in ending.outcomes if not o.use.required and o.status not in ("PASS", "DEFERRED")]


def _typed() -> str:
    """What to type for this command: its name where the shell would find it, else its path from here."""
    found, mine = shutil.which("lockstep"), Path(sys.argv[0]).resolve()
    return "lockstep" if found and Path(found).resolve() == mine else os.path.relpath(mine)
