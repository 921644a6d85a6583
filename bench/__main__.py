"""`python -m bench`: measure the bars, print them, write `bench/results.json` and `docs/bench.md`.

Exits 0 whatever the verdicts: a bench reports, it does not judge a release.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from bench import bars, judging, report
from bench.cases import all_cases
from bench.contest import build, compete

ROUNDS = 60
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Build every case, let the contestants meet on both runtimes, report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds (default %(default)s)")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    contests, costs = [], None
    with tempfile.TemporaryDirectory() as folder:
        for index, case in enumerate(all_cases()):
            built = build(case, Path(folder) / str(index))
            costs = costs or judging.costs(built, Path(folder) / "judged")  # of the shipped model, which comes first
            contests += [compete(built, runtime, rounds=rounds) for runtime in ("ONNX Runtime", "OpenVINO")]
    rows = [row for contest in contests for row in bars.rows(contest)]
    Console(width=150).print(report.table(rows))
    assert costs is not None
    Console(width=150).print(report.judges(costs))
    report.write(rows, contests, costs, ROOT / "bench" / "results.json", ROOT / "docs" / "bench.md")


if __name__ == "__main__":
    main()
