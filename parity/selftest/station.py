"""The station that tests the gate: plants, compiles and runs what was planted, and lets the trials decide.

In: the line and a target that passed. Out: `targets/<target>/selftest/selftest.json`. Artifacts are planted before they are
compiled and hashed, so that every digest is valid; observations are planted after, so that digests must tell.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from compile import build, digest, toolchain
from compile.build import Made
from compile.config import TargetFile, load_target
from compile.errors import ConfigError, IntegrityError, ToolchainError, nearest
from compile.line import Line, own_code
from compile.project import GRAPH_FILE
from compile.step import Step
from parity import bundle, observe
from parity.check import Outcome, verdict
from parity.selftest.plant import Planted, rebatch, write_inputs
from parity.verdict import Status

DOCUMENT = "selftest.json"
SEEDS = 3
DRAWS = 80
"""On so many drawn suites each benign variant is judged."""
ANSWER_SEEDS = 8
OTHER_ROWS = 7
OTHER_ISA = {"ONEDNN_MAX_CPU_ISA": "AVX2"}


@dataclass(frozen=True, slots=True)
class Work:
    """Where one self-test works, and of what."""

    line: Line
    name: str
    folder: Path
    target: TargetFile
    what: str

    def answered(
        self,
        place: str,
        batches: Path,
        *,
        artifact: Path | None = None,
        graph: Path | None = None,
        env: Mapping[str, str] = {},
        **options: Any,
    ) -> Path:
        """The outputs over `batches` of an artifact, or of what this target's compiler makes of a graph."""
        folder = self.folder / "jobs" / place
        folder.mkdir(parents=True)
        target = self.target.model_copy(update={"options": {**self.target.options, **options}})

        job = toolchain.job_document(
            self.line, target, precision=target.precision, graph=graph, artifact=artifact, batches=batches
        )
        verb = "answer" if graph is None else "try"
        toolchain.run_worker(self.line, target, folder, job, verb, f"{self.what}: {place}", env=env)
        shutil.rmtree(folder / "artifact", ignore_errors=True)
        return folder / "outputs"


def selftest(line: Line, name: str, seeds: int = SEEDS) -> dict[str, Any]:
    """Plant, try and count; ConfigError where the target has not passed: of a gate that says no anyway nothing is learnt."""
    uses = {use.name: use for use in line.config.uses}
    if name not in uses:
        at = f"configs/models/{line.model}.yaml"
        raise ConfigError(f"{at}: `{name}` is not one of its targets: {', '.join(uses)}{nearest(name, uses)}")
    outcome = verdict(line, uses[name])
    if outcome.status != Status.PASS or outcome.built is None:
        raise ConfigError(f"selftest: {name} is {outcome.status}; the gate is tested on an artifact that it passes")
    target = load_target(line.project, name)
    parts = {part: build.data(line, part) for part in ("suite", "pool") if line.config.data(part) is not None}
    inputs = {
        **{part: made.digest for part, made in parts.items()},
        "artifact": build.artifact_digest(outcome.built),
        "policy": outcome.verdict["digests"]["policy"],
        "target config": target.digest,
        "seeds": str(seeds),
        "lockstep's own code": own_code("compile", "parity"),
    }
    step = Step(f"targets/{name}/selftest", line.out / "targets" / name / "selftest", inputs)

    def run(folder: Path, what: str) -> tuple[Path, dict[str, str]]:
        return _run(Work(line, name, folder, target, what), [made.folder for made in parts.values()], outcome, seeds)

    line.keep(step, name, run)
    found: dict[str, Any] = json.loads((step.folder / DOCUMENT).read_text())
    return found


def _run(work: Work, parts: list[Path], outcome: Outcome, seeds: int) -> tuple[Path, dict[str, str]]:
    line, folder = work.line, work.folder
    graph = build.graph(line, work.target.dialect).folder / GRAPH_FILE
    planting = {"model": line.model, "graph": str(graph), "parts": [str(part) for part in parts], "seeds": seeds}
    planted, _ = line.child(_sub(folder, "planting"), work.what, "parity.selftest.plant:plant", planting)
    batches = planted / "batches"
    places = _trusted(work, planted, outcome)
    places["healthy"] = str(work.answered("healthy", batches, artifact=_artifact(outcome.built)))
    first = {"model": line.model, "target": work.name, "places": places, "parts": [str(part) for part in parts]}
    line.child(_sub(folder, "probing"), work.what, "parity.selftest.trial:refuse_small_pool", first)
    with ThreadPoolExecutor(max_workers=line.jobs.slots.count) as pool:
        entries = [*pool.map(lambda job: job(), _jobs(work, planted, graph, outcome, healthy_draws(seeds)))]
    (folder / "entries.json").write_text(json.dumps(entries))
    arguments = {
        "model": line.model,
        "target": work.name,
        "planted": str(folder / "entries.json"),
        "places": places,
        "parts": [str(part) for part in parts],
        "seeds": answer_seeds(seeds),
    }
    made, read = line.child(_sub(folder, "trying"), work.what, "parity.selftest.trial:judge", arguments)
    _add_integrity(work, made / DOCUMENT, answer_seeds(seeds))
    return made, read


def answer_seeds(seeds: int) -> int:
    """Defects of answers cost no compiling: more of each kind and size than of graphs."""
    return max(2, ANSWER_SEEDS * seeds // SEEDS)


def healthy_draws(seeds: int) -> int:
    return max(16, DRAWS * seeds // SEEDS)


def _sub(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _artifact(built: Made | None) -> Path:
    assert built is not None
    return built.folder / "artifact"


def _trusted(work: Work, planted: Path, outcome: Outcome) -> dict[str, str]:
    """Folders that the gate reads, and what source and baseline answer over all rows."""
    line, name = work.line, work.name
    brought = build.fetched(line)
    arguments = {
        "model": line.model,
        "suite": str(planted),
        "fetched": None if brought is None else str(brought.folder),
    }
    source, _ = line.child(_sub(work.folder, "source"), work.what, "compile.reference:observe_source", arguments)
    places = {
        "source": str(observe.source(line).folder),
        "timing": str(observe.timing(line, name).folder),
        "build": str(outcome.built.folder) if outcome.built is not None else "",
        "source outputs": str(source / "outputs"),
    }
    if work.target.precision == "int8":
        places["float"] = str(build.float_twin(line, name).folder)
    used = outcome.verdict["baseline"]["used"]
    if used is not None:
        other = Work(line, used, work.folder, load_target(line.project, used), work.what)
        artifact = _artifact(build.artifact(line, used))
        places["baseline outputs"] = str(other.answered("baseline", planted / "batches", artifact=artifact))
    return places


Job = Callable[[], dict[str, Any]]


def _jobs(work: Work, planted: Path, graph: Path, outcome: Outcome, draws: int) -> Iterator[Job]:
    """One job for each planted artifact, planted input and benign variant; each gives its entry."""
    for place, facts in enumerate(json.loads((planted / "planted.json").read_text())):
        yield partial(_planted, work, planted, outcome, Planted(**facts), f"planted-{place:04d}")
    artifact, batches = _artifact(outcome.built), planted / "batches"
    variants: dict[str, Callable[[str], Path]] = {
        "nothing changed": lambda place: work.answered(place, batches, artifact=artifact),
        "built again": lambda place: work.answered(place, batches, graph=graph),
        "two threads": lambda place: work.answered(place, batches, artifact=artifact, threads=2),
        "another instruction set": lambda place: work.answered(place, batches, artifact=artifact, env=OTHER_ISA),
        f"batches of {OTHER_ROWS}": lambda place: _rebatched(work, place, batches, artifact),
    }
    for kind, answer in variants.items():
        if kind == "two threads" and "threads" not in work.target.options:
            continue
        if kind.startswith("batches") and any(t.batch_axis != 0 for t in work.line.config.signature.data_inputs):
            continue
        yield partial(_variant, kind, answer, draws)


def _variant(kind: str, answer: Callable[[str], Path], draws: int) -> dict[str, Any]:
    return _entry(Planted("benign", kind, 0.0, 0), answer(f"benign {kind}"), draws)


def _planted(work: Work, planted: Path, outcome: Outcome, one: Planted, place: str) -> dict[str, Any]:
    batches = planted / "batches"
    try:
        if one.place == "graph":
            return _entry(one, work.answered(place, batches, graph=planted / "graphs" / f"{one.number:04d}.onnx"))
        changed = work.folder / "inputs" / place
        write_inputs(batches, changed, one)
        outputs = work.answered(place, changed, artifact=_artifact(outcome.built))
        shutil.rmtree(changed)
        return _entry(one, outputs)
    except ToolchainError:
        return _entry(one, None)


def _rebatched(work: Work, place: str, batches: Path, artifact: Path) -> Path:
    changed = work.folder / "inputs" / place
    rebatch(batches, changed, OTHER_ROWS)
    return work.answered(place, changed, artifact=artifact)


def _entry(one: Planted, outputs: Path | None, draws: int = 1) -> dict[str, Any]:
    return {**asdict(one), "outputs": None if outputs is None else str(outputs), "draws": draws}


def _add_integrity(work: Work, path: Path, seeds: int) -> None:
    """Observations that are not of this artifact, this suite, or not what their run listed: digests must tell."""
    document = json.loads(path.read_text())
    for kind in INTEGRITY:
        for seed in range(seeds):
            folder = work.folder / "carried" / f"{kind} {seed}"
            _carried(work, folder)
            INTEGRITY[kind](folder, seed)
            try:
                bundle.verified(work.line, folder)
                caught = None
            except (IntegrityError, ConfigError):
                caught = "integrity"
            document["rows"].append(
                {
                    "kind": kind,
                    "place": "observation",
                    "size": 1.0,
                    "seed": seed,
                    "oracle": "must catch",
                    "holds_by": None,
                }
                | {"worst": "by definition", "agreement": None, "tolerances": {}}
                | {"caught_by": caught, "caught_at": None if caught is None else "digest"}
            )
            document["planted"] += 1
            document["must_catch"] += 1
            document["caught"] += caught is not None
            document["caught_by"]["integrity"] += caught is not None
    path.write_text(json.dumps(document, indent=1, sort_keys=True))


def _carried(work: Work, folder: Path) -> None:
    """The healthy observation as it would come back from other hardware; `verified` takes it as it is."""
    observed = observe.observation(work.line, work.name)
    shutil.copytree(observed.folder / "outputs", folder / "outputs")
    document = {
        "model": work.line.model,
        "target": work.name,
        "digests": observe.digests(work.line, work.name),
        "outputs": digest.of_files(folder / "outputs"),
        "seconds": {"artifact": [1e-3]},
        "fingerprint": {"cpu": "another machine"},
    }
    (folder / "observation.json").write_text(json.dumps(document))
    bundle.verified(work.line, folder)


def _other_digest(what: str) -> Callable[[Path, int], None]:
    def change(folder: Path, seed: int) -> None:
        document = json.loads((folder / "observation.json").read_text())
        document["digests"][what] = digest.of_bytes(f"another {what} {seed}".encode())
        (folder / "observation.json").write_text(json.dumps(document))

    return change


def _flipped_bit(folder: Path, seed: int) -> None:
    path = sorted((folder / "outputs").glob("*.npz"))[0]
    data = bytearray(path.read_bytes())
    data[(seed + 1) * len(data) // (ANSWER_SEEDS + 2)] ^= 1
    path.write_bytes(bytes(data))


def _lost_file(folder: Path, seed: int) -> None:
    paths = sorted((folder / "outputs").glob("*.npz"))
    paths[seed % len(paths)].unlink()


INTEGRITY: Mapping[str, Callable[[Path, int], None]] = {
    "observation of another artifact": _other_digest("artifact"),
    "observation of another suite": _other_digest("suite inputs"),
    "bit flipped in an observation": _flipped_bit,
    "file lost from an observation": _lost_file,
}
