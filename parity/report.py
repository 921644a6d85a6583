"""Outcomes as a person reads them: the closing table, and the same facts as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compile import percent
from compile.artifact import artifact_bytes
from compile.digest import of_document
from parity.check import Outcome
from parity.dossier import figures

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"PASS": "green", "FAIL": "red", "ERROR": "red", "INCONCLUSIVE": "yellow", "DEFERRED": "cyan"}
UNKNOWN = "–"
WIDTH = 118
"""The table's own width, so that nothing is cut off where there is no terminal to measure."""


def table(outcomes: Sequence[Outcome]) -> Table:
    """One row a target: status, size, agreement with its interval, task metric, latency against float, digest."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "status", "size", "agrees with source", "correct (source)", "p50", "× float", "digest"):
        shown.add_column(name, justify="left" if name in ("target", "status", "digest") else "right", no_wrap=True)
    for outcome in outcomes:
        colour = COLOURS.get(outcome.status, "white")
        shown.add_row(outcome.name, f"[{colour}]{outcome.status}[/]", *_figures(outcome))
    return shown


def _figures(outcome: Outcome) -> tuple[str, ...]:
    summary = outcome.verdict.get("summary") or {}
    artifact = outcome.verdict.get("digests", {}).get("artifact")
    digest = artifact[:10] if artifact else UNKNOWN
    if not summary:
        return _size(outcome), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, digest
    agrees = summary["agreement"]
    right = summary["correct"]
    return (
        _size(outcome),
        figures.agreeing(agrees["value"], agrees["low"]),
        UNKNOWN if right is None else f"{percent.share(right['candidate'])} ({percent.share(right['source'])})",
        figures.seconds(summary["latency_p50_s"]),
        figures.number(summary["latency_ratio"]),
        digest,
    )


def _size(outcome: Outcome) -> str:
    return UNKNOWN if outcome.built is None else figures.sized(artifact_bytes(outcome.built.folder))


def complaints(outcome: Outcome) -> list[str]:
    """Why a target is not PASS, a sentence each."""
    if outcome.error is not None:
        return [str(outcome.error)]
    if outcome.status == "DEFERRED":
        return [str(outcome.verdict["why"])]
    return [f["sentence"] for f in outcome.verdict.get("findings", []) if f["status"] != "PASS"]


def edits(outcomes: Sequence[Outcome]) -> list[str]:
    """Limits of the policy that were changed after a verdict existed, `old -> new`, each once."""
    found = [edit for o in outcomes for edit in o.verdict.get("policy", {}).get("edited", [])]
    return list(dict.fromkeys(found))


def telling_nothing(outcomes: Sequence[Outcome]) -> list[str]:
    """Limits that answers of other rows would keep as well, each once."""
    found = [f for o in outcomes for f in o.verdict.get("findings", []) if f.get("tells") is False]
    return figures.telling_nothing((f["of"], f["kind"], f["bound"]) for f in found)


def document(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain JSON values."""
    verdict = dict(outcome.verdict)
    return {
        "target": outcome.name,
        "status": outcome.status,
        "required": outcome.use.required,
        "error": None if outcome.error is None else str(outcome.error),
        "verdict": verdict or None,
        "verdict_digest": of_document(verdict) if verdict else None,
    }
