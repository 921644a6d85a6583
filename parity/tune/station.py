"""The station that tunes: searches within a time box, keeps the best, writes it as config, and has the suite judge it once.

In: the line, a target, minutes. Out: a `Tuned`; `trials.json` and `best.yaml` under `targets/<target>/tune/`; the config. The
rule: nothing is chosen by what the suite says. It is asked once, about the one recipe that was chosen, and its word is final.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compile import build, toolchain
from compile.config import TargetFile, load_target
from compile.dialect import recipe as configured
from compile.errors import ConfigError, ToolchainError, nearest
from compile.line import Event, Line, Unavailable, own_code
from compile.project import GRAPH_FILE
from parity import check
from parity.policy import load_policy
from parity.tune import rows as own_rows
from parity.tune.adopt import Adopted, adopt, refuse_foreign
from parity.tune.record import open_record, write_whole
from parity.tune.search import Choices, search
from parity.tune.stand import Stand, TimeOver
from parity.tune.trial import Trial, best
from parity.tune.written import quantize_block
from parity.verdict import Status

FINALISTS = 3
JUDGING = 1.5
"""The last word on the suite takes about as long as so many first trials: quantized, compiled, observed, timed, judged."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found. `ended`: why it stopped; `silent`: limits that the tuning rows cannot speak about; `dropped`: what
    had changed since earlier trials; `verdict`: the judge's on the suite, None where it was not asked."""

    name: str
    rows: str
    trials: Sequence[Trial]
    ended: str
    silent: tuple[str, ...]
    dropped: tuple[str, ...]
    best: Trial | None = None
    adopted: Adopted | None = None
    verdict: check.Outcome | None = None

    @property
    def passed(self) -> bool:
        return self.verdict is not None and self.verdict.status == Status.PASS


def tune(line: Line, name: str, minutes: float, *, in_place: bool = False) -> Tuned:
    """The fastest recipe found for a target that passes the model's policy; the nearest to it where none passes."""
    deadline = time.monotonic() + 60 * minutes
    target = _integer_target(line, name)
    if not in_place:
        refuse_foreign(line)
    stand = _stand(line, name, target, deadline)
    ended = _searched(stand)
    found = best(stand.record.trials)
    if found is not None:
        write_whole(stand.record.place / "best.yaml", quantize_block(found.recipe) + "\n")
    tuned = Tuned(name, stand.rows.said, stand.record.trials, ended, stand.silent, stand.record.dropped, found)
    if found is None or not found.passes:
        return tuned
    if ended == INTERRUPTED:
        return replace(tuned, adopted=adopt(line, name, target, found, in_place=in_place))
    try:
        found = _fastest(stand)
        tuned = replace(tuned, best=found, adopted=(adopted := adopt(line, name, target, found, in_place=in_place)))
        return replace(tuned, verdict=_judged(line, adopted))
    except KeyboardInterrupt:
        adopted = adopt(line, name, target, found, in_place=in_place)
        return replace(tuned, ended=INTERRUPTED, best=found, adopted=adopted)


INTERRUPTED = "interrupted"


def _integer_target(line: Line, name: str) -> TargetFile:
    names = [use.name for use in line.config.uses]
    if name not in names:
        at = f"configs/models/{line.model}.yaml"
        raise ConfigError(f"{at}: `{name}` is not one of its targets: {', '.join(names)}{nearest(name, names)}")
    target = load_target(line.project, name)
    if target.precision != "int8":
        raise ConfigError(f"tune: {name} is a {target.precision} target: only int8 ones have a recipe to tune")
    return target


def _stand(line: Line, name: str, target: TargetFile, deadline: float) -> Stand:
    """Everything that candidates are tried with, built."""
    found, floats, brought = own_rows.rows(line), build.float_graph(line), build.fetched(line)
    policy, twin = load_policy(line.project, line.config.policy), build.float_twin(line, name)
    inputs = {
        **found.digests,
        **build.source_inputs(line),
        **toolchain.worker_inputs(line, target),
        "float graph": floats.digest,
        "float twin": build.artifact_digest(twin),
        "quantize in the config": line.config.quantize.digest,
        "policy": policy.digest,
        "task in the config": line.config.task.digest,
        "postprocess": str(line.config.task.postprocess),
        "baseline in the config": ", ".join(line.config.baseline),
        "lockstep's own code": own_code("compile", "parity"),
    }
    record = open_record(line.out / "targets" / name / "tune", inputs, line.project.root)
    fetched = None if brought is None else brought.folder
    graph, artifact = floats.folder / GRAPH_FILE, twin.folder / "artifact"
    stand = Stand(line, name, target, policy, found, record, graph, fetched, artifact, None, deadline)
    stand.baseline = _baseline(stand)
    _refuse_too_few(stand)
    return stand


def _baseline(stand: Stand) -> Path | None:
    """What the cloud side answers on the tuning rows: the first of the config's baselines that runs here."""
    line = stand.line
    if stand.target.role == "cloud":
        return None
    for name in line.config.baseline:
        place = stand.record.place / "baseline"
        place.mkdir(parents=True, exist_ok=True)
        try:
            artifact = build.artifact(line, name).folder / "artifact"
            return stand.answered(load_target(line.project, name), artifact, place)
        except (Unavailable, ToolchainError):
            continue
    return None


def _refuse_too_few(stand: Stand) -> None:
    """ConfigError where even the source itself could not be shown to pass on these rows."""
    missed = [one for one in stand.source_room() if not one.passed]
    if missed:
        raise ConfigError(
            f"tune: these rows cannot decide: the source itself, in a candidate's place, gives {missed[0].sentence}. "
            f"({stand.rows.said}.) Give the model `tuning` data with more rows, or more calibration rows"
        )


def _searched(stand: Stand) -> str:
    """Search until nothing is left to try, the minutes are spent, or somebody stops it; says which."""
    base = configured(stand.line.config, stand.target.dialect)
    choices = Choices(bool(stand.rows.facts["smoothing"]), bool(stand.rows.facts["embeddings"]))
    try:
        first = stand.tried(base)
        stand.deadline -= JUDGING * first.took_s
        stand.bounded = True
        search(base, choices, stand.tried, stand.ranked)
    except TimeOver:
        return "the minutes are spent"
    except KeyboardInterrupt:
        return INTERRUPTED
    return "nothing is left to try"


def _fastest(stand: Stand) -> Trial:
    """Of the fastest that pass, the one that still is when they are timed against each other; of equals the one with most room."""
    passing = sorted((t for t in stand.record.trials if t.passes), key=lambda t: t.ratio[0] if t.ratio else 0.0)
    finalists = list({trial.graph: trial for trial in reversed(passing[:FINALISTS])}.values())
    finalists.sort(key=lambda trial: -(trial.worst.room if trial.worst is not None else 0.0))
    stand.bounded = False
    champion = finalists[0]
    for challenger in finalists[1:]:
        ratio = stand.beside(challenger, champion)
        said = f"trial {challenger.number} takes {ratio.value:.3f} × trial {champion.number}'s time"
        stand.line.notify(Event("side by side", f"{said} [{ratio.low:.3f}, {ratio.high:.3f}]", ran=True))
        champion = challenger if ratio.high < 1 else champion
    return champion


def _judged(line: Line, adopted: Adopted) -> check.Outcome:
    """The ordinary verdict on the suite, of the config as it was written."""
    line.notify(Event("suite", "the judge's last word, on rows that chose nothing", ran=True))
    other = Line.open(line.project, adopted.model, line.notify, line.tracking_uri)
    use = next(use for use in other.config.uses if use.name == adopted.target)
    if adopted.model == line.model:
        return check.verdict(other, use)
    with other.locked():
        _lend(line, other, adopted)
        return check.verdict(other, use)


def _lend(line: Line, other: Line, adopted: Adopted) -> None:
    """Give the new config's line what this one has finished; each step looks at its key, and makes anew what does not fit."""
    places = ["suite", "calibration", "fetched", "source", "graphs/float32", f"targets/{adopted.target}/float"]
    places += [f"targets/{name}/{step}" for name in line.config.baseline for step in ("build", "observation")]
    for place in places:
        if (line.out / place).is_dir():
            shutil.rmtree(other.out / place, ignore_errors=True)
            shutil.copytree(line.out / place, other.out / place)
