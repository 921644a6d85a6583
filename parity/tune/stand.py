"""The stand: where one candidate is quantized, compiled, run on the tuning rows, judged, and timed beside float.

In: the line, a target, the rows and a deadline. Out: trials, remembered in the record; a recipe that was tried is not tried
again. The rule: nothing under `out/` but the stand's own folder is written, and the suite is not among what it is given.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compile import digest, toolchain
from compile.config import LimitsConfig, TargetFile
from compile.errors import ToolchainError
from compile.line import OWN_LIMITS, Event, Line, Unavailable
from compile.project import GRAPH_FILE
from compile.recipe import Recipe
from compile.share import compiled_share
from parity.limit import Limit
from parity.policy import Policy
from parity.tune.record import Record, read_quality
from parity.tune.rows import Rows
from parity.tune.trial import Met, Trial, best, described, gave, met
from parity.tune.written import options_of
from parity.verdict import Finding, Measured, decide

LEAST_S = 1.0
"""A job is given at least this long, so that it ends by its own fault or by the clock's, never by a limit of nothing."""


class TimeOver(Exception):
    """The minutes are spent; what was found stays."""


@dataclass(slots=True)
class Stand:
    """Tries recipes for one target until `deadline` (by `time.monotonic`). `floats`: the float graph; `twin`: its artifact."""

    line: Line
    name: str
    target: TargetFile
    policy: Policy
    rows: Rows
    record: Record
    floats: Path
    fetched: Path | None
    twin: Path
    baseline: Path | None
    deadline: float
    silent: tuple[str, ...] = ()
    bounded: bool = False
    """Whether the clock ends jobs: what lies before the search, and its first trial, are done whatever they take."""

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def place(self, trial: Trial | int) -> Path:
        number = trial if isinstance(trial, int) else trial.number
        return self.record.place / "trials" / f"{number:03d}"

    def tried(self, recipe: Recipe) -> Trial:
        """The recipe's trial: the one that was made, or one made now."""
        known = self.record.of(recipe)
        if known is None:
            longest = max((trial.took_s for trial in self.record.trials), default=0.0)
            if self.record.trials and self.left_s < longest:
                raise TimeOver
            known = self._try(recipe)
            self.record.add(known)
            self._tell(known)
        return known

    def ranked(self, trial: Trial) -> Sequence[str]:
        """The trial's layers by what restoring each alone gives back on the calibration rows, the worst first."""
        if trial.graph not in self.record.rankings:
            self._say("ranking", "layers by measured damage")
            place = self._fresh(self.record.place / "ranking")
            arguments = {
                "model": self.line.model,
                "float_graph": str(self.floats),
                "graph": str(self.place(trial) / GRAPH_FILE),
                "calibration": str(self.rows.calibration),
            }
            try:
                made = self._child(place, "parity.explain.damage:rank", arguments)
                layers = json.loads((made / "ranking.json").read_text())["layers"]
            except ToolchainError as error:
                self._say("ranking", f"cannot be had: {str(error).splitlines()[0]}")
                layers = []
            self.record.rankings[trial.graph] = [layer["module"] for layer in layers if layer["sqnr_gain_db"] > 0]
            self.record.save()
        return self.record.rankings[trial.graph]

    def answered(self, target: TargetFile, artifact: Path, place: Path) -> Path:
        """The folder of what an artifact answers on the tuning rows."""
        self._work(target, place, "answer", artifact=artifact, precision=target.precision)
        return place

    def beside(self, challenger: Trial, champion: Trial) -> Measured:
        """Time of one artifact over another's, call by call in alternation."""
        from parity.measure import latency_ratio

        place = self._fresh(self.record.place / "duel")
        both = {"artifact": self.place(challenger) / "artifact", "twin": self.place(champion) / "artifact"}
        timed = self._work(self.target, place, "time", alone=True, precision=self.target.precision, **both)
        return latency_ratio(timed["seconds"], 0.95)

    def source_room(self) -> tuple[Met, ...]:
        """What each limit gives for the source itself in a candidate's place: what these rows can show at best."""
        found, self.silent = self._quality(self._fresh(self.record.place / "source"), self.rows.source, None)
        return found

    def _try(self, recipe: Recipe) -> Trial:
        number, start = len(self.record.trials) + 1, time.monotonic()
        self._say(f"trial {number}", described(recipe, self.record.trials[0].recipe if self.record.trials else None))
        place = self._fresh(self.place(number))
        try:
            trial = self._measured(Trial(number, recipe, 0.0), place)
        except Unavailable:
            raise
        except ToolchainError as error:
            trial = Trial(number, recipe, 0.0, failed=str(error).splitlines()[0])
        return replace(trial, took_s=time.monotonic() - start)

    def _measured(self, trial: Trial, place: Path) -> Trial:
        """Quantized, compiled, answered and judged; timed where nothing else is missed. A graph seen before is not run twice."""
        arguments = {
            "model": self.line.model,
            "dialect": trial.recipe.dialect,
            "float_graph": str(self.floats),
            "fetched": None if self.fetched is None else str(self.fetched),
            "calibration": str(self.rows.calibration),
            "options": options_of(trial.recipe),
        }
        made = self._child(place, "compile.dialect:derive", arguments)
        graph = (made / GRAPH_FILE).rename(place / GRAPH_FILE)
        same = self.record.of_graph(sha := digest.of_file(graph))
        if same is not None:
            shutil.rmtree(place)
            shutil.copytree(self.place(same), place)
            return replace(same, number=trial.number, recipe=trial.recipe)
        share = self._compiled(place, graph, made)
        self.answered(self.target, place / "artifact", place)
        found, self.silent = self._quality(place, place, place)
        shutil.rmtree(place / "outputs")
        trial = replace(trial, met=found, share=share, graph=sha)
        return self._timed(trial, place) if trial.passes else trial

    def _compiled(self, place: Path, graph: Path, made: Path) -> float:
        """Compile; the share of the work that is integer, in the graph and in what the runtime made of it."""
        built = self._work(self.target, place, "build", graph=graph, precision=self.target.precision)["built"]
        counted = json.loads((made / "coverage.json").read_text())
        macs = {layer["name"]: layer["macs"] for layer in counted["layers"]}
        share = min(compiled_share(built["layers"], macs), counted["share"])
        (place / "build.json").write_text(json.dumps({"quantized_share": share}))
        return float(share)

    def _quality(self, place: Path, observed: Path, built: Path | None) -> tuple[tuple[Met, ...], tuple[str, ...]]:
        places = {
            "suite": self.rows.tuning,
            "source": self.rows.source,
            "observation": observed,
            "float": self.twin.parent,
        }
        places |= {} if built is None else {"build": built}
        places |= {} if self.baseline is None else {"baseline": self.baseline}
        arguments = {"model": self.line.model, "target": self.name, "places": {k: str(v) for k, v in places.items()}}
        return read_quality(self._child(place, "parity.tune.quality:judge", arguments))

    def _timed(self, trial: Trial, place: Path) -> Trial:
        """With the time over float's, and how that meets the policy's limit."""
        from parity.measure import latency_ratio

        timed = self._work(
            self.target,
            place,
            "time",
            alone=True,
            precision=self.target.precision,
            artifact=place / "artifact",
            twin=self.twin,
        )
        bound = [limit for limit in self.policy.limits if limit.metric == "latency_ratio" and "int8" in limit.precision]
        for limit in bound if self.policy.goal is None or self.policy.goal.kind != "size" else []:
            trial = replace(trial, met=(*trial.met, _met(limit, latency_ratio(timed["seconds"], limit.confidence))))
        ratio = latency_ratio(timed["seconds"], 0.95)
        return replace(trial, ratio=(ratio.value, ratio.low, ratio.high))

    def _work(self, target: TargetFile, place: Path, verb: str, *, alone: bool = False, **at: Any) -> dict[str, Any]:
        """One verb of the target's worker, on the tuning rows, ended when the minutes are."""
        bounded = target.model_copy(update={"limits": self._limits(target.limits)})
        job = toolchain.job_document(self.line, target, batches=self.rows.tuning / "batches", **at)
        with self._in_time():
            return toolchain.run_worker(
                self.line, bounded, place, job, verb, f"{self.line.model}: tune/{place.name}", alone=alone
            )

    def _child(self, place: Path, function: str, arguments: Mapping[str, object]) -> Path:
        shutil.rmtree(place / "made", ignore_errors=True)
        what = f"{self.line.model}: tune/{place.name}"
        with self._in_time():
            made, read = self.line.child(place, what, function, arguments, self._limits(OWN_LIMITS))
        self.record.read |= read
        return made

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """What fails when the minutes are over has failed of that."""
        try:
            yield
        except ToolchainError as error:
            if self.bounded and self.left_s <= 0:
                raise TimeOver from error
            raise

    def _limits(self, limits: LimitsConfig) -> LimitsConfig:
        if not self.bounded:
            return limits
        return limits.model_copy(update={"time_s": min(limits.time_s, max(self.left_s, LEAST_S))})

    def _fresh(self, place: Path) -> Path:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def _tell(self, trial: Trial) -> None:
        """What a trial gave, and what is best so far."""
        found = best(self.record.trials)
        leads = " (best so far)" if found == trial and trial.number > 1 else ""
        self._say(f"trial {trial.number}", f"{gave(trial)}{leads}")

    def _say(self, who: str, what: str) -> None:
        self.line.notify(Event(who, what, ran=True, until=self.deadline))


def _met(limit: Limit, measured: Measured) -> Met:
    """The limit on latency as a candidate met or missed it."""
    from parity.judge import said

    status = decide(measured, limit.sense, limit.threshold)
    sentence = said("latency ratio", "float", measured, limit.sense, limit.threshold, status)
    return met(
        Finding(
            "latency ratio", "float", status, limit.sense, limit.threshold, measured, sentence, limit.metric, limit.why
        )
    )
