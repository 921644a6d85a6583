"""The facts as HTML: one file for the release and one for each target, each whole in itself.

Facts in, text out. The rule: no figure is computed here, no text is trusted (autoescape), nothing is fetched (the page's
own policy forbids it), and nothing needs JavaScript.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from compile import percent
from parity.dossier import figures, plots
from parity.dossier.document import Dossier, Target
from parity.dossier.judged import all_hold, judged, limits, nothing_to_explain, reason
from parity.dossier.pair import Pair, Shown

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

NO_DIGEST = "none"
CODE = re.compile(r"`([^`]+)`")
STATUS_WORDS = {"yes": "yes", "no": "no", "not yet": "wait", "PASS": "yes", "FAIL": "no", "ERROR": "no"}


def release(dossier: Dossier) -> str:
    """The page of the whole run."""
    return _environment().get_template("release.html.j2").render(d=dossier)


def not_judged(model: str, why: str) -> str:
    """The page of a run that came to no verdict."""
    return _environment().get_template("unjudged.html.j2").render(model=model, why=why)


def target(dossier: Dossier, one: Target) -> str:
    """The page of one target beside the cloud and the source."""
    return (
        _environment().get_template("target.html.j2").render(d=dossier, t=one, pair=one.pairs[0] if one.pairs else None)
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(
        loader=folder,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=held,
    )
    made.filters |= {
        "prose": prose,
        "share": percent.share,
        "number": figures.number,
        "sized": figures.sized,
        "seconds": figures.seconds,
        "count": figures.count,
        "state": lambda word: STATUS_WORDS.get(word, "wait"),
        "short": lambda text: NO_DIGEST if text is None else text[:12],
    }
    made.globals |= {
        "figures": figures,
        "whole": percent.whole,
        "reason": reason,
        "judged": judged,
        "limits": limits,
        "all_hold": all_hold,
        "used_bar": lambda found: _safe(plots.used(found)),
        "slice_bar": lambda part, least, limit: _safe(plots.slice_bar(part, least, limit)),
        "histogram": lambda *facts: _safe(plots.histogram(*facts)),
        "depth": lambda *facts: _safe(plots.depth(*facts)),
        "wave": lambda shown, name: _safe(plots.wave(shown, name)),
        "alternative": alternative,
        "repeats": repeats,
        "nothing_to_explain": nothing_to_explain,
    }
    return made


def held(shown: object) -> object:
    """What a template prints; a figure and its sign of per cent stay on one line."""
    return shown.replace(" %", "\u00a0%") if isinstance(shown, str) else shown


def _safe(svg: str) -> Markup:
    """A plot's own text is escaped where it is drawn."""
    from markupsafe import Markup

    return Markup(svg)


def repeats(target: Target, pair: Pair) -> bool:
    """Whether all that a page shows of this pair's answers it showed of the pair before: source and cloud answered alike."""
    first = target.pairs[0]
    return pair is not first and pair.differ > 0 and _shown(pair) == _shown(first)


def _shown(pair: Pair) -> tuple[object, ...]:
    rows = tuple((flip.row, flip.reference, flip.candidate) for flip in pair.flips)
    return pair.n, pair.differ, pair.confusion, pair.slices, rows


def prose(text: str) -> Markup:
    """Text of ours or of data, escaped; what stands between two backticks is set as code."""
    from markupsafe import Markup, escape

    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def alternative(shown: Shown, row_id: str, label: str | None) -> str:
    """The text that stands for a picture."""
    return f"{shown.name} of {row_id}" + ("" if label is None else f", labelled {label}") + f"; {shown.note}"
