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

from compile.config import load_target
from compile.errors import PASSED
from compile.line import Line
from parity import report
from parity.check import Outcome
from parity.dossier import FACTS, RELEASE_PAGE
from parity.dossier.advice import when_refused
from parity.dossier.document import parse
from parity.observe import carried_folder
from registry.location import Location
from registry.publish import Published

IDLE = "nothing to do: nothing changed since the last run"


@dataclass(frozen=True, slots=True)
class Ending:
    """Everything a run has to say; `published` is None where nothing was."""

    line: Line
    outcomes: Sequence[Outcome]
    code: int
    published: Published | None = None
    location: Location | None = None
    dossier: Path | None = None

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        facts = None
        if self.published is not None:
            version = self.published.version
            facts = {
                "name": version.name,
                "version": version.number,
                "digest": version.digest,
                "registry": str(self.location),
                "created": self.published.created,
            }
        return {
            "model": self.line.model,
            "ran": self.line.ran,
            "targets": [report.document(o) for o in self.outcomes],
            "release": facts,
            "dossier": None if self.dossier is None else str(self.dossier),
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
    for text in _carried(ending):
        console.print(f"\n{text}", markup=False)
    for text in report.telling_nothing(ending.outcomes):
        console.print(f"\n{text}", markup=False)
    for edit in _edits(ending):
        console.print(f"\npolicy edited after a verdict existed: {edit}", markup=False)
    for text in (*_closing(ending), *_where(ending)):
        console.print(text, markup=False)
    return ending.code


def _closing(ending: Ending) -> list[str]:
    done = ending.published
    worked = bool(ending.line.ran) or any(o.status == "ERROR" for o in ending.outcomes)
    if done is None:
        fit = "all required targets are fit" if ending.code == PASSED else "not fit to publish"
        return ["", *([] if worked else [IDLE]), fit, *_more_rows(ending), *_advice(ending)]
    name, version, me = done.version.name, done.version.number, _typed()
    embedded = ending.location is not None and ending.location.folder == ending.line.project.embedded_registry
    there = "" if embedded else f" --registry {ending.location}"
    first = "published" if done.created else "repaired" if done.repaired else "already published"
    first += ", now with its self-test" if done.renewed else ""
    targets = [o.name for o in ending.outcomes if o.status in ("PASS", "DEFERRED")]
    edge = next((target for target in targets if target.startswith("edge")), targets[0])
    return [
        *(f"left out: {o.name}, {o.status}, not required: {o.use.why}" for o in _left_out(ending)),
        "",
        *([] if worked or done.created or done.repaired or done.renewed else [IDLE]),
        f"{first}: {name} version {version}, sha256:{done.version.digest}, in {ending.location}",
        "",
        "next:",
        f"  {me} promote {name} {version} staging{there}",
        f"  {me} pull {name}@{version} --target {edge} --to pulled/{name}{there}",
        f"  {me} verify pulled/{name} --run",
    ]


def _carried(ending: Ending) -> list[str]:
    """Which targets were judged on answers from elsewhere, and how to have them answered here again."""
    line = ending.line
    return [
        f"{o.name}: judged on answers {o.verdict['observed']}; to have it answered here, remove "
        f"{os.path.relpath(carried_folder(line, o.name))}"
        for o in ending.outcomes
        if str(o.verdict.get("observed", "")).startswith("carried")
    ]


def _edits(ending: Ending) -> list[str]:
    """Limits that were edited after a verdict, unless a release has gone out under these, as the dossier knows."""
    facts = None if ending.dossier is None else parse((ending.dossier / FACTS).read_text())
    return report.edits(ending.outcomes) if facts is None or facts.change.policy_since_judged else []


def _where(ending: Ending) -> list[str]:
    """Where the dossier lies, said last: it is what a person opens next."""
    return [] if ending.dossier is None else ["", f"dossier: {os.path.relpath(ending.dossier / RELEASE_PAGE)}"]


def _more_rows(ending: Ending) -> list[str]:
    """How to decide what is open, where rows can."""
    found = [f for o in ending.outcomes if o.status == "INCONCLUSIVE" for f in o.verdict["findings"]]
    if not any(f["status"] == "INCONCLUSIVE" and f["measured"]["needed"] for f in found):
        return []
    return [
        "",
        f"what is open needs fresh rows (`{_typed()} plan {ending.line.model}` says how many), or one extension that was declared",
        "beforehand, with the error split between both looks: extending this suite until it passes inflates the error",
    ]


def _advice(ending: Ending) -> list[str]:
    """What to try where targets were refused; of a broken law, which no recipe mends, nothing."""
    line = ending.line
    missed: dict[str, dict[str, list[str]]] = {"int8": {}, "float32": {}, "float16": {}}
    for one in ending.outcomes:
        metrics = [f["of"] for f in one.verdict.get("findings", []) if f["status"] == "FAIL"]
        if one.status == "FAIL" and all(metrics):
            missed[load_target(line.project, one.name).precision][one.name] = metrics
    sound = any(
        o.status == "PASS" and load_target(line.project, o.name).precision == "float32" for o in ending.outcomes
    )
    floats = [] if sound else list(missed["float32"])
    found = when_refused(line.model, line.config.quantize, missed["int8"], floats)
    return ["", *(text.replace("`lockstep ", f"`{_typed()} ") for text in found)] if found else []


def _left_out(ending: Ending) -> list[Outcome]:
    return [o for o in ending.outcomes if not o.use.required and o.status not in ("PASS", "DEFERRED")]


def _typed() -> str:
    """What to type for this command: its name where the shell would find it, `python -m` where it was run so, else its path."""
    found, mine = shutil.which("lockstep"), Path(sys.argv[0]).resolve()
    if found and Path(found).resolve() == mine:
        return "lockstep"
    return "python -m lockstep" if mine.suffix == ".py" else os.path.relpath(mine)
