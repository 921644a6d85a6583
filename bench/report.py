"""Rows of the bench as a terminal table, as JSON and as a page of the documentation."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from bench.bars import Row
from bench.contest import Contest, Standing
from bench.judging import BATCHES, ROWS, Costs

PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "neural-compressor", "nncf", "polygraphy")
LONG = Path(__file__).parent / "long.json"
PREAMBLE = """# Bench

`make bench` writes this page. Every latency is taken on one thread, in rounds that hold every contestant in a new random
order; a figure is the geometric mean of the rounds' ratios, ours over theirs, with Student's 95 % interval. Below 1 is
better for lockstep. *met*: the whole interval is within the bar; *missed*: none of it; *undecided*: the interval holds
the bar (for agreement: *met* where ours is no smaller).

All contestants start from the same float graph and see the same calibration data. `quantize_static` is set as its
documentation advises for this CPU (uint8 activations, int8 weights, per channel), and once more as it comes. Agreement is
with the float model on data that nobody calibrated on.
"""


def machine() -> dict[str, str]:
    """What the figures depend on besides the code."""
    return {"cpu": cpu_model(), "python": platform.python_version()} | {name: version_of(name) for name in PACKAGES}


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu_model() -> str:
    """The processor's name with the integer instructions it has."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in facts.splitlines() if line.startswith("model name")]
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if f" {flag}" in facts]
    return f"{names[0] if names else platform.processor()} ({', '.join(flags)})"


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    made = Table(title="lockstep bench, one thread", title_justify="left")
    for heading in ("model", "runtime", "what", "value", "95 % interval", "bar", "verdict"):
        made.add_column(heading, no_wrap=heading != "model")
    colours = {"met": "green", "missed": "red", "undecided": "yellow"}
    for row in rows:
        made.add_row(*cells(row)[:-1], f"[{colours[row.verdict]}]{row.verdict}[/]")
    return made


def cells(row: Row) -> list[str]:
    """One row as text."""
    value = row.value
    form = "+.4f" if "less" in row.what else ".3f"
    interval = "exact" if value.low == value.high else f"{value.low:{form}} … {value.high:{form}}"
    return [row.case, row.runtime, row.what, f"{value.value:{form}}", interval, row.limit, row.verdict]


def judges(costs: Costs) -> str:
    """For the terminal."""
    return "\n".join(judging(costs)[2:])


def judging(costs: Costs) -> list[str]:
    """What judging costs beside the inference that it judges."""
    lines = [
        "## Judging",
        "",
        f"CPU seconds of judging {BATCHES} batches of {ROWS} answers of the shipped classifier, over the {costs.inference_cpu_s:.2f} "
        "CPU seconds that its int8 artifact takes to give them. Each judge is a process of its own that reads the answers from "
        "the same files; its start and imports count. lockstep binds every metric of the task, Polygraphy's comparator is as it "
        "comes.",
        "",
        "| judge | CPU s | × the inference's own | 95 % interval |",
        "|---|---|---|---|",
    ]
    for one in costs.judges:
        if one.cpu_s is None or one.over_inference is None:
            lines.append(f"| {one.judge} | not installed here: `pip install '.[bench]'` | – | – |")
            continue
        ratio = one.over_inference
        lines.append(f"| {one.judge} | {one.cpu_s:.2f} | {ratio.value:.1f} | {ratio.low:.1f} … {ratio.high:.1f} |")
    return lines


def write(rows: Sequence[Row], contests: Sequence[Contest], costs: Costs, results: Path, page: Path) -> None:
    """`results.json` with everything measured, and the page with the verdicts."""
    document = {
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
        "contests": [asdict(contest) for contest in contests],
        "judging": asdict(costs),
    }
    results.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    page.write_text(
        "\n".join([PREAMBLE, *markdown(rows), "", *standings(contests), "", *judging(costs), "", *long(), *versions()])
        + "\n"
    )


def long() -> list[str]:
    """What `bench.long` measured when it last ran; nothing where it did not."""
    if not LONG.exists():
        return []
    lines = [
        "## Judging beside five minutes of inference",
        "",
        "`make bench-long` writes `bench/long.json`: every metric of the task, judged of as many rows as the int8 artifact answers "
        "in five minutes of CPU.",
        "",
        "| model | rows | inference, CPU s | judging, CPU s | judging over inference |",
        "|---|---|---|---|---|",
    ]
    for one in json.loads(LONG.read_text())["models"]:
        figures = f"{one['rows']:,} | {one['inference_cpu_s']:.0f} | {one['judging_cpu_s']:.1f} | {one['share']:.1%}"
        lines.append(f"| {one['model']} | {figures} |")
    return [*lines, ""]


def markdown(rows: Sequence[Row]) -> list[str]:
    """The verdicts."""
    lines = ["| model | runtime | what | value | 95 % interval | bar | verdict |", "|---|---|---|---|---|---|---|"]
    return lines + ["| " + " | ".join(cells(row)) + " |" for row in rows]


def standings(contests: Sequence[Contest]) -> list[str]:
    """Every contestant's own figures."""
    lines = [
        "## Contestants",
        "",
        "| model | runtime | contestant | ms | agreement: mean, minimum, minimum of 100 | kB |",
        "|---|---|---|---|---|---|",
    ]
    for contest in contests:
        for name, one in contest.standings.items():
            figures = f"{one.latency_s * 1e3:.3f} | {agreement(one)} | {one.size_bytes / 1e3:,.0f}"
            lines.append(f"| {contest.case} | {contest.runtime} | {name} | {figures} |")
    return lines


def agreement(one: Standing) -> str:
    """The mean, and the minima where scores are more than right or wrong."""
    if one.minimum in {0.0, 1.0}:
        return f"{one.mean:.4f}"
    return f"{one.mean:.4f}, {one.minimum:.4f}, {one.minimum_of_100:.4f}"


def versions() -> list[str]:
    """The machine, as a list."""
    return ["## Machine", "", *(f"- {name}: {value}" for name, value in machine().items())]
