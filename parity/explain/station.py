"""The station that explains: why an artifact answers otherwise than its source, found by experiment.

In: the line, a target, perhaps an artifact or an observation from elsewhere. Out: `targets/<target>/explain/explain.json`
with every rung's answers beside it, and a suggestion that was tried. The rule: what no experiment explains is
`unexplained`, and unexplained is not fit for failover.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile import build, digest, toolchain
from compile.config import TargetFile, load_target
from compile.errors import ConfigError, nearest
from compile.line import Line, own_code
from compile.step import Step, read_record
from parity import observe
from parity.check import JUDGED_BY, Outcome
from parity.explain.found import Found, found
from parity.policy import load_policy
from parity.verdict import Status

if TYPE_CHECKING:
    from parity.explain.climber import Ran
    from parity.explain.experiment.case import Recipe

DOCUMENT = "explain.json"


@dataclass(frozen=True, slots=True)
class Explained:
    """A finished explanation: its folder, and what `explain.json` says."""

    folder: Path
    document: Mapping[str, Any]

    @property
    def explained(self) -> bool:
        return bool(self.document["explained"])


MINUTES = 5.0


def explain(
    line: Line, name: str, artifact: Path | None = None, observation: Path | None = None, minutes: float = MINUTES
) -> Explained:
    """Walk the ladder for one target and say where and why agreement breaks; hypotheses are tried for so many minutes."""
    names = [use.name for use in line.config.uses]
    if name not in names:
        at = f"configs/models/{line.model}.yaml"
        raise ConfigError(f"{at}: `{name}` is not one of its targets: {', '.join(names)}{nearest(name, names)}")
    question = found(line, name, artifact, observation)
    target = load_target(line.project, name)
    place = "explain" if artifact is None and observation is None else "explain-elsewhere"
    step = Step(
        f"targets/{name}/{place}",
        line.out / "targets" / name / place,
        _inputs(line, name, target, question) | {"minutes": str(minutes)},
    )

    def run(folder: Path, what: str) -> tuple[Path, dict[str, str]]:
        return _walk(line, name, target, question, folder, what, _flags(artifact, observation), minutes)

    line.keep(step, name, run)
    return Explained(step.folder, json.loads((step.folder / DOCUMENT).read_text()))


def read_explained(line: Line, name: str) -> Explained | None:
    """The explanation of what lies there now; None where there is none, or where it is of other bytes."""
    folder = line.out / "targets" / name / "explain"
    record = read_record(folder)
    if record is None or not (line.out / "targets" / name / "build" / "artifact").is_dir():
        return None
    if record.inputs.get("what is explained") != found(line, name, None, None).digest:
        return None
    return Explained(folder, json.loads((folder / DOCUMENT).read_text()))


def failover(status: str, explained: Explained | None, *, equal: bool = False, cloud: str = "PASS") -> tuple[bool, str]:
    """Whether a target may stand in for the cloud, and why: judged PASS, as is the `cloud` beside it, and what still differs is
    explained.

    `equal`: it was shown to answer as the source does but for the noise floor, so that there is nothing to explain.
    """
    if status != Status.PASS:
        return False, f"its verdict is {status}"
    if cloud != Status.PASS:
        return False, f"the verdict of its baseline is {cloud}"
    if equal:
        return True, "every answer of the suite is the source's, within the noise floor of float32"
    if explained is None:
        return False, "what differs from the source was not explained yet (`lockstep explain`)"
    if not explained.explained:
        return False, f"unexplained: {explained.document['sentence']}"
    cause = explained.document["cause"]
    return True, "no difference beyond the noise floor" if cause == "none" else f"what differs is explained: {cause}"


def explain_all(line: Line, outcomes: Sequence[Outcome]) -> None:
    """Explain every target that passed and does not answer as its source: side by side, each once."""
    wanted = [o.name for o in outcomes if o.status == Status.PASS and not answers_equal(o.verdict)]
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        try:
            list(pool.map(lambda name: explain(line, name), wanted))
        except BaseException:
            line.jobs.stop()
            raise


def answers_equal(verdict: Mapping[str, Any]) -> bool:
    """Whether a verdict shows that nothing differs but for the noise floor of float32."""
    floats = [f for f in verdict["findings"] if f["of"] == "float_error"]
    return bool(floats) and all(f["status"] == Status.PASS for f in floats)


def _flags(artifact: Path | None, observation: Path | None) -> str:
    return "".join(f" --{k} {v}" for k, v in (("artifact", artifact), ("observation", observation)) if v is not None)


def _inputs(line: Line, name: str, target: TargetFile, question: Found) -> dict[str, str]:
    inputs = {
        "what is explained": question.digest,
        "artifact": "none" if question.artifact is None else digest.of_tree(digest.of_files(question.artifact)),
        "source": observe.source(line).digest,
        "suite": build.data(line, "suite").digest,
        f"{target.dialect} graph": build.graph(line, target.dialect).digest,
        "policy": load_policy(line.project, line.config.policy).digest,
        "task in the config": line.config.task.digest,
        "postprocess": str(line.config.task.postprocess),
        "lockstep's own code": own_code("compile", "parity"),
        **toolchain.worker_inputs(line, target),
        **{f"version of {package}": toolchain.version(package) for package in JUDGED_BY},
    }
    if target.precision == "int8":
        inputs["calibration"] = build.data(line, "calibration").digest
    return inputs


def _walk(
    line: Line, name: str, target: TargetFile, question: Found, folder: Path, what: str, flags: str, minutes: float
) -> tuple[Path, dict[str, str]]:
    """Climb the runtime's rungs, let the child judge all of them, try the suggestion, write it down."""
    from parity.explain import remedy
    from parity.explain.climber import Climber

    climber = Climber(line, target, folder, what)
    rungs = [*climber.precisions(), *climber.artifacts(question)]
    floats, graph = build.float_graph(line), build.graph(line, target.dialect)
    fetched = build.fetched(line)
    places = {
        "suite": str(build.data(line, "suite").folder),
        "source": str(observe.source(line).folder),
        "float_graph": str(floats.folder),
        "graph": str(graph.folder),
        "fresh": str(climber.place("compiled artifact") / "artifact"),
        "found": str(climber.place("artifact as found") / "artifact"),
        **({} if fetched is None else {"fetched": str(fetched.folder)}),
    }
    arguments = {
        "model": line.model,
        "target": name,
        "places": {k: v if Path(v).exists() else None for k, v in places.items()},
        "rungs": [_document(rung) for rung in rungs],
        "effective": climber.effective,
        "foreign": question.foreign,
        "recipe": _recipe(question, climber.place("compiled artifact") / "artifact"),
        "minutes": minutes,
    }
    made, read = line.child(folder, what, "parity.explain.diagnose:diagnose", arguments)
    document = json.loads((made / DOCUMENT).read_text())
    suggestion = remedy.suggest(climber, document, graph, name)
    document |= {
        "reproduce": _reproduce(line.model, name, document, flags),
        "suggestion": suggestion,
        "note": _note(question),
    }
    (made / DOCUMENT).write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False))
    return made, read


def _recipe(question: Found, fresh: Path) -> Recipe:
    """Whether the line's recipe now is the one that gave the artifact, by what was recorded when it was built."""
    built = _recorded(question)
    if question.artifact is None or built is None or not fresh.is_dir():
        return "unknown"
    if built == digest.of_files(fresh):
        return "same"
    return "other" if built == digest.of_files(question.artifact) else "unknown"


def _recorded(question: Found) -> dict[str, str] | None:
    """The files of the artifact as they were when it was built; None where nobody recorded them."""
    record = None if question.artifact is None else read_record(question.artifact.parent)
    if question.artifact is None or record is None:
        return None
    folder = question.artifact.name + "/"
    return {name.removeprefix(folder): sha for name, sha in record.outputs.items() if name.startswith(folder)}


def _note(question: Found) -> str | None:
    """What a reader must know beside the cause: files that are not those that were built, answers that were left out."""
    built = _recorded(question)
    now = {} if built is None or question.artifact is None else digest.of_files(question.artifact)
    changed = sorted(name for name in now if built is not None and built.get(name) != now[name])
    told = f"{', '.join(changed)} changed after the artifact was built" if changed else None
    return "; ".join(one for one in (told, question.note) if one) or None


def _document(rung: Ran) -> dict[str, Any]:
    outputs = None if rung.outputs is None else str(rung.outputs)
    return {"name": rung.name, "outputs": outputs, "why": rung.why, "leads": rung.leads, "rule": rung.rule}


def _reproduce(model: str, name: str, document: Mapping[str, Any], flags: str) -> str:
    """One line that shows the two answers side by side for the rows that flip (or the first rows)."""
    ran = [rung["name"] for rung in document["rungs"] if rung["agreement"]]
    broken = [rung["name"] for rung in document["rungs"] if rung["status"] == "ran" and not rung["agreement"]]
    if document["step"] in broken:  # its answers break a law: there is nothing to lay side by side
        return f"lockstep explain {model} {name}{flags}"
    step = document["step"] if document["step"] in ran else ran[-1]
    rows = ",".join(str(flip["row"]) for flip in document["flips"][:5]) or "0,1,2"
    return f'lockstep explain {model} {name}{flags} --rung "{step}" --rows {rows}'
