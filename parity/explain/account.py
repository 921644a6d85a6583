"""An explanation as a person reads it: the ladder, the cause, the tensors, the flips, what to run and what to try.

In: `explain.json`. Out: text. The rule: the cause comes first and fits on a line or two; the ladder shows why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compile import percent
from compile.errors import ConfigError, nearest
from parity.explain.experiment.ladder import ANSWERS, ORDER, slug

if TYPE_CHECKING:
    from rich.table import Table

    from parity.explain.station import Explained

WIDTH = 118
UNKNOWN = "–"
COLOURS = {"none": "green", "unexplained": "red"}
SHOWN_TENSORS = 6


def printed(explained: Explained) -> str:
    """The whole account."""
    from rich.console import Console

    document = explained.document
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(ladder(document))
        console.print()
        colour = COLOURS.get(document["cause"], "yellow")
        console.print(f"[{colour} bold]{document['cause']}[/]: ", end="")
        console.print(sentence(document), markup=False, soft_wrap=True)
        for line in details(document):
            console.print(line, markup=False, soft_wrap=True)
    return captured.get().rstrip()


def sentence(document: Mapping[str, Any]) -> str:
    """`at “artifact as found”: …`"""
    at = "" if document["step"] is None else f"at “{document['step']}”: "
    second = document["second"]
    more = "" if second is None else f". A second cause remains: {second['cause']}: {second['sentence']}"
    unfit = "" if document["explained"] else ". Not fit for failover."
    return f"{at}{document['sentence']}{more}{unfit}"


def ladder(document: Mapping[str, Any]) -> Table:
    """One row a rung: agreement with the source with its interval, SQNR, and where it broke."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rung", "agrees with source", "flips", "SQNR", ""):
        shown.add_column(name, justify="left" if name in ("rung", "") else "right", no_wrap=name != "")
    for rung in document["rungs"]:
        shown.add_row(*_row(rung, document["step"]))
    return shown


def _row(rung: Mapping[str, Any], step: str | None) -> tuple[str, ...]:
    if rung["status"] == "skipped":
        return rung["name"], UNKNOWN, UNKNOWN, UNKNOWN, f"[dim]skipped: {rung['why']}[/]"
    agrees = rung["agreement"]
    mark = "[red]◀ breaks here[/]" if rung["name"] == step else "[yellow]further off[/]" if rung["broke"] else ""
    if not rung["leads"]:
        mark = "[dim]not the way this target goes[/]" + (", [yellow]further off[/]" if rung["broke"] else "")
    if agrees is None:
        return rung["name"], UNKNOWN, UNKNOWN, UNKNOWN, f"{mark} {rung['why']}"
    db = "exact" if rung["exact"] else UNKNOWN if rung["sqnr_db"] is None else f"{rung['sqnr_db']:.1f} dB"
    rate = f"{percent.share(agrees['value'])} (≥ {percent.at_least(agrees['low'])})"
    return rung["name"], rate, f"{agrees['disagree']:,}", db, mark


def details(document: Mapping[str, Any]) -> list[str]:
    """The lines under the cause."""
    lines = []
    if document["first"] is not None:
        lines += [f"{place}:   {tensor(document[place], document['modules'])}" for place in ("first", "worst")]
    if document["flips"]:
        rows = ", ".join(f"{f['row']} ({short(f['source'])} → {short(f['candidate'])})" for f in document["flips"][:6])
        more = f", and {len(document['flips']) - 6} more listed in explain.json" if len(document["flips"]) > 6 else ""
        lines.append(f"flips:   rows {rows}{more}")
    if document["cause"] == "unexplained" and document["hypotheses"]:
        best = document["hypotheses"][0]
        lines.append(f"nearest: {best['name']} ({percent.whole(best['score'])} of the error)")
    lines.append(f"see it:  {document['reproduce']}")
    if document["note"] is not None:
        lines.append(f"note:    {document['note']}")
    if document["searched"] is not None:
        lines.append(f"looked:  {document['searched']}")
    if document["suggestion"] is not None:
        lines.append(f"tried:   {document['suggestion']['text']}; on {document['suggestion']['judged_on']}")
    return lines


def tensor(one: Mapping[str, Any], about: Sequence[str] = ()) -> str:
    """`encoder.layers.3.mlp (Gemm), SQNR 31.2 dB; given the source's own inputs 33.0 dB`, and for what of the modules that the
    cause is `about` it stands, if it is none of them."""
    shown = f", where `{about[0]}` shows" if about and one["module"] not in about else ""
    own = "" if one["local_sqnr_db"] is None else f"; given the source's own inputs {one['local_sqnr_db']:.1f} dB"
    arrived = "exact" if one["sqnr_db"] is None else f"{one['sqnr_db']:.1f} dB"
    return f"{one['module']} ({one['op']}){shown}, SQNR {arrived}{own}"


def short(answer: Any) -> str:
    """An answer in a few characters."""
    if isinstance(answer, float):
        return f"{answer:.4g}"
    return "[" + ", ".join(short(item) for item in answer[:3]) + ", …]" if isinstance(answer, list) else str(answer)


def side_by_side(explained: Explained, rung: str, rows: Sequence[int]) -> dict[str, Any]:
    """What the source and one rung answer on these rows of the suite."""
    known = [one["name"] for one in explained.document["rungs"] if one["agreement"]]
    if rung not in known:
        raise ConfigError(f"--rung: `{rung}` is no rung with answers: {', '.join(known)}{nearest(rung, known)}")
    source, other = (_answers(explained, name) for name in ("source", rung))
    order = {int(row): i for i, row in enumerate(np.load(explained.folder / ORDER))}
    unknown = [row for row in rows if row not in order]
    if unknown:
        raise ConfigError(f"--rows: the suite has no row {unknown[0]}; it has 0 to {len(order) - 1}")
    pairs = [(row, _plain(source[order[row]]), _plain(other[order[row]])) for row in rows]
    return {"rung": rung, "rows": [{"row": row, "source": one, "candidate": two} for row, one, two in pairs]}


def _answers(explained: Explained, rung: str) -> Any:
    return np.load(explained.folder / "rungs" / slug(rung) / ANSWERS, allow_pickle=False)


def _plain(answer: Any) -> Any:
    return answer.item() if np.size(answer) == 1 else np.asarray(answer).ravel()[:8].tolist()


def rows_text(found: Mapping[str, Any]) -> str:
    """The two answers, a row of the suite a line."""
    lines = [f"{'row':>7}  {'source':>14}  {found['rung']}"]
    for one in found["rows"]:
        mark = "" if one["source"] == one["candidate"] else "   ◀"
        lines.append(f"{one['row']:>7}  {short(one['source']):>14}  {short(one['candidate'])}{mark}")
    return "\n".join(lines)
