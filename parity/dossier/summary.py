"""The facts as Markdown, for the summary of a CI job: the two answers, what changed, the table, what differs in words."""

from __future__ import annotations

import re
from html import escape

from compile import percent
from parity.dossier import figures
from parity.dossier.document import Dossier, Target
from parity.dossier.judged import missed, reason

ICONS = {"yes": "✅", "no": "❌", "not yet": "⏳"}
STATUS = {"PASS": "✅", "FAIL": "❌", "ERROR": "❌", "INCONCLUSIVE": "⏳", "DEFERRED": "⏳"}
CODE = re.compile(r"`([^`|<>&\s][^`|<>&]*)`")
"""Code whose text neither ends a cell of a table nor reads as a tag."""
SPECIAL = re.compile(r"([\\`*_{}\[\]|#~!])")


def markdown(dossier: Dossier) -> str:
    """The summary; the text of data is escaped, so that it is shown and never acts."""
    return (
        "\n".join(
            [
                *_answers(dossier),
                *_changes(dossier),
                *_caveats(dossier),
                *_table(dossier),
                *_behaviour(dossier),
                *_limits(dossier),
                *_tested(dossier),
            ]
        )
        + "\n"
    )


def not_judged(model: str, why: str) -> str:
    """The summary of a run that came to no verdict."""
    return f"# {text(model)}\n\n**May this be shipped?** {ICONS['no']} **no verdict.** {text(why)}\n"


def text(value: str) -> str:
    """Text of data as Markdown shows it: special characters and tags escaped, one line; `code` stays code."""
    parts = CODE.split(" ".join(value.split()))
    return "".join(f"`{part}`" if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _escaped(value: str) -> str:
    return SPECIAL.sub(r"\\\1", escape(value, quote=False))


def _answers(dossier: Dossier) -> list[str]:
    lines = [
        f"# {text(dossier.model)}",
        "",
        f"**May this be shipped?** {ICONS[dossier.ship.word]} **{dossier.ship.word}.** {text(dossier.ship.sentence)}",
        "",
        *([f"**{text(dossier.change.source_worse)}**", ""] if dossier.change.source_worse else []),
        *([f"Next: {text(dossier.ship.next)}", ""] if dossier.ship.next else []),
    ]
    edges = [target for target in dossier.targets if target.stand_in is not None]
    if edges:
        lines += ["**May the edge stand in for the cloud?**", ""]
        lines += [
            f"- {text(t.name)}: {ICONS[t.stand_in.word]} **{t.stand_in.word}.** {text(t.stand_in.sentence)}"
            for t in edges
            if t.stand_in is not None
        ]
        lines.append("")
    return lines


def _changes(dossier: Dossier) -> list[str]:
    since = f"since {dossier.change.since}" if dossier.change.since else "since the last release"
    return [f"**What changed {since}?**", "", *(f"- {text(one)}" for one in dossier.change.sentences), ""]


def _caveats(dossier: Dossier) -> list[str]:
    """What a reader would otherwise take for more than it is."""
    return [*(f"> {text(one)}\n" for one in dossier.caveats)]


def _table(dossier: Dossier) -> list[str]:
    lines = [
        "| target | status | agrees with source | correct (source) | p50 | × float | size |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    return [*lines, *(f"| {' | '.join(_row(target))} |" for target in dossier.targets), ""]


def _row(target: Target) -> list[str]:
    pair, speed = target.pair("source"), target.speed
    agrees = figures.UNKNOWN if pair is None else figures.agreeing(pair.agree, pair.agree_low)
    right = figures.UNKNOWN
    if target.right is not None:
        right = f"{percent.share(target.right[1])} ({percent.share(target.right[0])})"
    optional = "" if target.required else ", not required"
    return [
        text(target.name),
        f"{STATUS.get(target.status, '')} {target.status}{optional}",
        agrees,
        right,
        figures.seconds(None if speed is None else speed.p50_s),
        figures.number(None if speed is None else speed.ratio),
        figures.sized(target.size_bytes),
    ]


def _behaviour(dossier: Dossier) -> list[str]:
    lines: list[str] = []
    for target in dossier.targets:
        if target.pairs:
            pair = target.pairs[0]
            lines.append(f"- **{text(target.name)}** beside {text(pair.other)}: {text(' '.join(pair.sentences))}")
    return ["**What differs, in words**", "", *lines, ""] if lines else []


def _limits(dossier: Dossier) -> list[str]:
    """Every limit that is not met, and every target that was not judged."""
    lines: list[str] = []
    for target in dossier.targets:
        lines += [f"- {text(target.name)}: **{one.found.status}** {text(one.sentence)}" for one in missed(target)]
        if not target.findings:
            lines.append(f"- {text(target.name)}: **{target.status}** {text(reason(target))}")
    return ["**Limits that are not met, targets that were not judged**", "", *lines, ""] if lines else []


def _tested(dossier: Dossier) -> list[str]:
    """What the judge caught of planted faults, beside fixed tolerances; or that nobody tried."""
    tested = [(t, t.selftest) for t in dossier.targets if t.selftest.missing is None]
    if not tested and not any(target.status == "PASS" for target in dossier.targets):
        return ["**Can this judge say no?** Nothing to test: faults are planted in artifacts that pass.", ""]
    if not tested:
        return [f"**Can this judge say no?** Not tried yet: `lockstep selftest {text(dossier.model)} TARGET`", ""]
    lines = []
    for target, found in tested:
        fixed = "; ".join(
            f"{one.tolerance} {one.caught:,} of {one.must_catch:,} and {one.false_alarms:,} of {one.benign:,}"
            for one in found.fixed
        )
        lines.append(
            f"- {text(target.name)}: {figures.count(found.caught)} of {figures.count(found.must_catch)} planted faults caught, "
            f"{figures.count(found.false_alarms)} of {figures.count(found.benign)} healthy ones refused (fixed tolerances: {fixed})"
        )
    return ["**Can this judge say no?**", "", *lines, ""]
