"""The step that tries the gate: every planted defect and every benign variant on a suite drawn for it.

In: folders of outputs over suite and pool, and what was planted. Out: `selftest.json`: each trial with the oracle's word and
what caught it, and the counts. A defect that the compiler refused was caught by structure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from compile.config import load_model, load_target
from compile.dataset import columns_of, refuse_leakage
from compile.errors import ConfigError
from compile.project import Project
from parity.policy import Policy, load_policy
from parity.selftest import answer_defects, asked
from parity.selftest.bench import ALWAYS, Bench, trial_of
from parity.selftest.gate import PIECES, Caught, Gate
from parity.selftest.oracle import Truth
from parity.selftest.plant import SIZES, Planted
from parity.selftest.tally import Trial, summary
from parity.selftest.witness import (
    Outputs,
    Witness,
    joined_columns,
    kinds_of,
    read_outputs,
    suite_units,
    units_of,
)

PROBES = 8


def judge(
    project: Project,
    made: Path,
    model: str,
    target: str,
    planted: str,
    places: dict[str, str],
    parts: list[str],
    seeds: int,
) -> None:
    """`planted`: the list of what was planted in graphs and inputs, each with the folder of its outputs; `places`: folders of
    source, healthy, baseline outputs over all rows, and of build, timing, float, source for the gate; `parts`: suite and pool."""
    bench = _bench(project, made, model, target, places, parts)
    healthy = read_outputs(Path(places["healthy"]), bench.config.signature)
    refused = [*_compiled(bench, healthy, json.loads(Path(planted).read_text()))]
    trials = [*refused, *_answers(bench, healthy, seeds), *_truncated(bench, healthy, seeds)]
    trials += _leaks(project, made, bench, parts[0], seeds) if bench.config.calibration else []
    trials += asked.otherwise(bench, healthy, seeds)
    trials += [*_labels(bench, healthy, seeds), *_not_numbers(bench, healthy, seeds)]
    document = {
        "model": model,
        "target": target,
        **summary(trials, suite_units(bench.witness, bench.most_units), bench.witness.units, bench.most_units),
    }
    document["rows"] = [asdict(t) for t in trials]
    (made / "selftest.json").write_text(json.dumps(_plain(document), indent=1, sort_keys=True))


def refuse_small_pool(
    project: Project, made: Path, model: str, target: str, places: dict[str, str], parts: list[str]
) -> None:
    """ConfigError where suites as large as the pool allows leave the healthy artifact itself undecided: of such a gate nothing
    is learnt."""
    bench = _bench(project, made, model, target, places, parts)
    units = suite_units(bench.witness, bench.most_units)
    if units == bench.most_units:
        return
    healthy = read_outputs(Path(places["healthy"]), bench.config.signature)
    tried = [bench.tried(Planted("benign", "nothing changed", 0.0, seed), healthy, seed) for seed in range(PROBES)]
    undecided = [one.caught_at for one in tried if one.caught_by == "undecided"]
    if len(undecided) > PROBES // 2:
        raise ConfigError(
            f"selftest: on suites of {units:,} rows or groups, a sixth of the suite and its `pool` together, the healthy artifact "
            f"is undecided in {len(undecided)} of {PROBES} ({undecided[0]}); the suite itself has {bench.most_units:,}: bring a "
            f"`pool` of {5 * bench.most_units:,}"
        )


def _plain(value: Any) -> Any:
    """Infinite distances as text: JSON has no such number."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if np.isfinite(value) else str(float(value))
    return value


def _bench(
    project: Project, made: Path, model: str, target: str, places: Mapping[str, str], parts: Sequence[str]
) -> Bench:
    config, target_file = load_model(project, model), load_target(project, target)
    policy: Policy = load_policy(project, config.policy)
    columns, unit = joined_columns([columns_of(Path(part)) for part in parts])
    baseline = places.get("baseline outputs")
    witness = Witness(
        columns,
        unit,
        read_outputs(Path(places["source outputs"]), config.signature),
        None if baseline is None else read_outputs(Path(baseline), config.signature),
        kinds_of(columns, unit, dict.fromkeys(name for limit in policy.limits for name in limit.by)),
    )
    most = units_of(columns_of(Path(parts[0])))
    folders = {name: Path(places[name]) for name in ("source", "timing", "build", "float") if name in places}
    floors = json.loads((folders["source"] / "floor.json").read_text())["outputs"]
    limits = [limit for limit in policy.limits if target_file.precision in limit.precision]
    gate = Gate(config, target_file, policy, folders, made.parent / "scratch")
    return Bench(config, limits, witness, most, floors, gate, policy.route, policy.source)


def _compiled(bench: Bench, healthy: Outputs, planted: Sequence[dict[str, Any]]) -> Iterator[Trial]:
    """Defects of graphs and inputs, and benign variants, as their artifacts answered."""
    for number, entry in enumerate(planted):
        folder, draws = entry.pop("outputs"), entry.pop("draws")
        one = Planted(**entry)
        if folder is None:
            yield trial_of(
                one,
                Truth("must catch", "the compiler refused it", float("-inf"), 0.0),
                Caught("structure", "build"),
                {},
            )
            continue
        outputs = read_outputs(Path(folder), bench.config.signature)
        for again in range(draws):
            yield bench.tried(replace(one, seed=one.seed + 1000 * again), outputs, 10_000 * again + number)
        if one.kind.startswith("batches of"):
            yield from asked.in_other_batches(bench, healthy, outputs, draws)


def _answers(bench: Bench, healthy: Outputs, seeds: int) -> Iterator[Trial]:
    """Defects of outputs: made here, of what the healthy artifact answered."""
    for kind, defect in answer_defects.DEFECTS.items():
        for size in SIZES:
            for seed in range(seeds):
                one = Planted("answers", kind, size, seed)
                changed = defect(healthy, bench.answer, bench.config.task, size, one.random())
                if changed is not None:
                    yield bench.tried(one, changed, seed + 100 * round(size * 100))


def _truncated(bench: Bench, healthy: Outputs, seeds: int) -> Iterator[Trial]:
    """The last batch of answers is lost, or a batch is answered twice: fewer or more batches than the suite has."""
    for kind, pieces in (("truncated answers", PIECES - 1), ("duplicated answers", PIECES + 1)):
        for seed in range(seeds):
            one = Planted("answers", kind, 1.0, seed)
            drawn = bench.draw(seed)
            part = drawn.suite[: len(drawn.suite) // 2] if pieces < PIECES else np.append(drawn.suite, drawn.suite[:50])
            outputs = {name: array[part] for name, array in healthy.items()}
            caught = bench.gate.caught_by(bench.witness, drawn.suite, outputs, pieces)
            yield trial_of(one, Truth("must catch", ALWAYS, float("-inf"), 0.0), caught, {})


def _not_numbers(bench: Bench, healthy: Outputs, seeds: int) -> Iterator[Trial]:
    """NaN or infinity in one sample of the suite, or in a share of them."""
    for kind, value in answer_defects.NOT_NUMBERS.items():
        for size in (0.0, *SIZES):
            for seed in range(seeds):
                one = Planted("answers", kind, size, seed)
                drawn = bench.draw(seed)
                suite = {name: array[drawn.suite] for name, array in healthy.items()}
                changed = answer_defects.with_value(suite, bench.answer, value, size, one.random())
                if changed is not None:
                    caught = bench.gate.caught_by(bench.witness, drawn.suite, changed, PIECES)
                    yield trial_of(one, Truth("must catch", ALWAYS, float("-inf"), 0.0), caught, {})


def _labels(bench: Bench, healthy: Outputs, seeds: int) -> Iterator[Trial]:
    """Labels that belong to other rows: of all of them a suite that says nothing; of some where the policy says how many the
    source is expected to get right."""
    if "labels" not in bench.witness.columns or bench.config.task.kind not in ("classification", "binary_score"):
        return
    for seed in range(seeds):
        for share in SIZES if bench.expected is not None else SIZES[-1:]:
            one = Planted("suite", "labels of other rows", share, seed)
            drawn, random = bench.draw(seed), one.random()
            labels = bench.witness.columns["labels"].copy()
            for rows in (drawn.suite, drawn.pool):
                moved = random.choice(rows, round(share * len(rows)), replace=False)
                labels[moved] = labels[random.permutation(moved)]
            strange = replace(
                bench, witness=replace(bench.witness, columns={**bench.witness.columns, "labels": labels})
            )
            suite = {name: array[drawn.suite] for name, array in healthy.items()}
            caught = bench.gate.caught_by(strange.witness, drawn.suite, suite, PIECES)
            always = Truth("must catch", ALWAYS, float("-inf"), 0.0)
            yield trial_of(one, always if share == SIZES[-1] else strange.truth(healthy, drawn), caught, {})


def _leaks(project: Project, made: Path, bench: Bench, suite: str, seeds: int) -> list[Trial]:
    """Rows of the suite in the calibration data, from one row up: through the check that refuses them."""
    signature = bench.config.signature
    paths = sorted((Path(suite) / "batches").glob("*.npz"))
    trials = []
    for seed in range(seeds):
        one = Planted("suite", "leakage into calibration", 1.0, seed)
        folder = made.parent / f"leak-{seed}"
        (folder / "batches").mkdir(parents=True)
        with np.load(paths[int(one.random().integers(len(paths)))], allow_pickle=False) as batch:
            rows = slice(0, seed + 1)
            np.savez(folder / "batches" / "00000.npz", **{name: batch[name][rows] for name in batch.files})
        try:
            refuse_leakage(Path(suite), folder, signature)
            caught = None
        except ConfigError:
            caught = Caught("structure", "leakage")
        trials.append(trial_of(one, Truth("must catch", ALWAYS, float("-inf"), 0.0), caught, {}))
    return trials
