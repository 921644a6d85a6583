"""The station that judges: one verdict for each target of a model, all targets side by side.

In: the line. Out: `targets/<target>/verdict/verdict.json` and an `Outcome` for each target. A target whose toolchain
fails is an ERROR of its own; the others finish.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from compile import build, digest, toolchain
from compile.build import Made
from compile.config import FunctionName, TargetUse, load_target
from compile.errors import ConfigError, LockstepError, ToolchainError
from compile.line import Line, WouldRun, own_code
from compile.step import Step
from parity import observe
from parity.policy import load_policy

JUDGED_BY = ("numpy", "scipy")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target: its status (or ERROR), its verdict, its artifact, or what went wrong."""

    use: TargetUse
    status: str
    verdict: Mapping[str, Any]
    built: Made | None
    judged: Made | None
    error: LockstepError | None = None

    @property
    def name(self) -> str:
        return self.use.name


@dataclass(frozen=True, slots=True)
class Baseline:
    """Which cloud target stands for the cloud, and why the ones named before it do not."""

    wanted: str | None
    used: str | None
    passed_over: tuple[str, ...]
    observed: Made | None


def check(line: Line) -> list[Outcome]:
    """A verdict for every target of the model, in the order of its config."""
    return side_by_side(line, verdict)


def build_all(line: Line) -> list[Outcome]:
    """Every target compiled, none judged."""
    return side_by_side(line, _built)


def side_by_side(line: Line, station: Callable[[Line, TargetUse], Outcome]) -> list[Outcome]:
    """`station` for every target at once; the jobs inside share the machine's cores."""
    load_policy(line.project, line.config.policy)
    for use in line.config.uses:
        load_target(line.project, use.name)
    with ThreadPoolExecutor(max_workers=len(line.config.uses)) as pool:
        futures = [pool.submit(_caught, line, use, station) for use in line.config.uses]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for failed in (f for f in futures if f.done() and f.exception()):
                failed.result()
            return [future.result() for future in futures]
        except BaseException:
            line.jobs.stop()
            raise


def _caught(line: Line, use: TargetUse, station: Callable[[Line, TargetUse], Outcome]) -> Outcome:
    try:
        return station(line, use)
    except ConfigError:
        raise
    except WouldRun:  # a dry walk: the line keeps the reasons
        return Outcome(use, "NOT JUDGED", {}, None, None)
    except LockstepError as error:
        return Outcome(use, "ERROR", {}, None, None, error)


def _built(line: Line, use: TargetUse) -> Outcome:
    return Outcome(use, "BUILT", {}, build.artifact(line, use.name), None)


def verdict(line: Line, use: TargetUse) -> Outcome:
    """Observe what can be observed here, and judge it; what cannot is DEFERRED, with the reason."""
    built = build.artifact(line, use.name)
    observed, deferred = _observed_or_refused(line, use.name)
    places: dict[str, str | None] = {"suite": str(build.data(line, "suite").folder), "build": str(built.folder)}
    digests = {
        "artifact": build.artifact_digest(built),
        "suite": build.data(line, "suite").digest,
        "policy": load_policy(line.project, line.config.policy).digest,
    }
    baseline = Baseline(None, None, (), None)
    if observed is not None:
        baseline = choose_baseline(line, use.name)
        digests |= _sides(line, use.name, observed, baseline, places)
    arguments = {
        "model": line.model,
        "target": use.name,
        "places": places,
        "digests": digests,
        "deferred": deferred,
        "baseline": {"wanted": baseline.wanted, "used": baseline.used, "why": "; ".join(baseline.passed_over) or None},
        "before": _policy_before(line, use.name),
    }
    task: FunctionName | None = line.config.task.postprocess
    inputs = {
        **digests,
        "task in the config": line.config.task.digest,
        "postprocess": str(task),
        "target config": load_target(line.project, use.name).digest,
        "baseline": digest.of_document(arguments["baseline"]),
        "deferred": str(deferred),
        "lockstep's own code": own_code("compile", "parity"),
        **{f"version of {name}": toolchain.version(name) for name in JUDGED_BY},
    }
    step = Step(f"targets/{use.name}/verdict", line.out / "targets" / use.name / "verdict", inputs)
    judged = build.made_of(step, line.own(step, use.name, "parity.judge:judge", arguments))
    document = json.loads((judged.folder / "verdict.json").read_text())
    return Outcome(use, document["status"], document, built, judged)


def _policy_before(line: Line, name: str) -> dict[str, Any] | None:
    """What the verdict that lies there says of its policy, so that an edit after the fact can be told."""
    try:
        found: dict[str, Any] | None = json.loads(
            (line.out / "targets" / name / "verdict" / "verdict.json").read_text()
        ).get("policy")
    except (OSError, ValueError):
        return None
    return found


def _observed(line: Line, name: str) -> tuple[Made | None, str | None]:
    """The observation made here or carried here, or why there is none yet."""
    observed = observe.observation(line, name)
    reason = observe.unavailable(observed)
    return (observed, None) if reason is None else (None, reason)


def _observed_or_refused(line: Line, name: str) -> tuple[Made | None, str | None]:
    """The same; where a runtime fails on the suite and the source itself cannot answer it either, that is the ConfigError."""
    try:
        return _observed(line, name)
    except ToolchainError:
        with suppress(ToolchainError):
            observe.source(line)
        raise


def _sides(line: Line, name: str, observed: Made, baseline: Baseline, places: dict[str, str | None]) -> dict[str, str]:
    """Fill in where the compared sides lie; give the digests that the verdict speaks of."""
    source, timed = observe.source(line), observe.timing(line, name)
    places |= {"source": str(source.folder), "observation": str(observed.folder), "timing": str(timed.folder)}
    sides = {"source": source.digest, "observation": observed.digest, "timing": timed.digest}
    if load_target(line.project, name).precision == "int8":
        places["float"] = str(build.float_twin(line, name).folder)
    if baseline.observed is not None:
        places["baseline"] = str(baseline.observed.folder)
        sides["baseline"] = baseline.observed.digest
    return sides


def choose_baseline(line: Line, name: str) -> Baseline:
    """The first cloud target of the config's list that can be observed; none for cloud targets themselves."""
    if load_target(line.project, name).role == "cloud":
        return Baseline(None, None, (), None)
    passed_over: list[str] = []
    wanted = line.config.baseline
    for candidate in wanted:
        try:
            observed, reason = _observed(line, candidate)
        except ToolchainError as error:
            observed, reason = None, str(error).splitlines()[0]
        if observed is not None:
            return Baseline(wanted[0], candidate, tuple(passed_over), observed)
        passed_over.append(f"{candidate}: {reason}")
    return Baseline(wanted[0] if wanted else None, None, tuple(passed_over), None)
