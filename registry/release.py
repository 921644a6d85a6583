"""Verdicts -> a release folder: the files of every target that may go out, the manifest, the evidence beside it.

A release holds every target that is PASS, or DEFERRED where the policy allows it. Any other outcome stops the release
unless the model's config says `required: false`; then the manifest lists the target with its reason and no files.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compile import build, digest, toolchain
from compile.config import load_target, toolchain_file
from compile.errors import ConfigError
from compile.line import Line, own_code
from compile.step import Step
from parity import observe
from parity.check import Outcome
from parity.explain.station import answers_equal, failover, read_explained
from parity.policy import Policy, load_policy
from parity.report import complaints
from parity.verdict import Status
from registry import golden, manifest


@dataclass(frozen=True, slots=True)
class Release:
    """A finished release folder: `files/` to publish, `evidence/` to put beside them, the digest of its manifest."""

    name: str
    folder: Path
    digest: str

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def evidence(self) -> Path:
        return self.folder / "evidence"


def assemble(line: Line, outcomes: Sequence[Outcome]) -> Release:
    """The release of these outcomes, written to `out/<model>/release`; ConfigError where one of them forbids it."""
    policy = load_policy(line.project, line.config.policy)
    problems = [f"{o.name}: {why_not(o, policy)}" for o in outcomes if o.use.required and why_not(o, policy)]
    if problems:
        raise ConfigError("nothing was published: " + "; ".join(problems))
    if all(why_not(o, policy) for o in outcomes):
        raise ConfigError(
            "nothing was published: no target is fit; " + "; ".join(str(why_not(o, policy)) for o in outcomes)
        )
    inputs = {f"verdict on {o.name}": o.judged.digest for o in outcomes if o.judged is not None}
    inputs |= {f"artifact of {o.name}": o.built.digest for o in outcomes if o.built is not None}
    inputs |= {
        f"failover of {o.name}": digest.of_document(stand_in(line, o, outcomes))
        for o in outcomes
        if o.built is not None
    }
    inputs |= {
        "targets in the config": digest.of_document([u.model_dump() for u in line.config.uses]),
        "lockstep's own code": own_code("compile", "parity", "registry"),
    }

    def run(folder: Path, what: str) -> tuple[Path, dict[str, str]]:
        made = folder / "made"
        _write(line, outcomes, policy, made)
        return made, {}

    step = Step("release", line.out / "release", inputs)
    line.keep(step, line.model, run)
    data = (step.folder / "files" / manifest.FILE).read_bytes()
    return Release(line.model, step.folder, digest.of_bytes(data))


def why_not(outcome: Outcome, policy: Policy) -> str | None:
    """Why a target may not go out, or None where it may."""
    if outcome.status == Status.PASS or (outcome.status == Status.DEFERRED and policy.allows_deferred(outcome.name)):
        return None
    if outcome.status == Status.DEFERRED:
        return f"DEFERRED ({outcome.verdict['why']}), and the policy's `allow_deferred` does not name it"
    if outcome.error is not None:
        return f"ERROR ({str(outcome.error).splitlines()[0]})"
    findings = [f for f in outcome.verdict.get("findings", []) if f["status"] != Status.PASS]
    worst = [f["sentence"] for f in sorted(findings, key=lambda f: bool(f["status"] != outcome.status))]
    return f"{outcome.status} ({worst[0] if worst else 'not judged'})"


def _found(outcome: Outcome) -> str:
    """Why a target is absent, without the figures and paths that another run of the same inputs would not give again."""
    metrics = [
        f"{f['metric']} against {f['against']}" for f in outcome.verdict.get("findings", []) if f["status"] != "PASS"
    ]
    return f"{outcome.status}: {', '.join(dict.fromkeys(metrics))}" if metrics else outcome.status


def _write(line: Line, outcomes: Sequence[Outcome], policy: Policy, made: Path) -> None:
    files, evidence = made / "files", made / "evidence"
    evidence.mkdir(parents=True)
    absent = [o for o in outcomes if why_not(o, policy)]
    targets = {
        o.name: _target(line, o, files, evidence) | {"failover": stand_in(line, o, outcomes)}
        for o in outcomes
        if o not in absent
    }
    document = {
        "schema": manifest.SCHEMA,
        "name": line.model,
        "source": {"digest": source_digest(line), "kind": _source_kind(line)},
        "suite": {"digest": build.data(line, "suite").digest},
        "policy": {"name": line.config.policy, "digest": policy.digest},
        "tools": tools(line),
        "targets": targets,
        "absent": {o.name: {"status": o.status, "why": o.use.why, "found": _found(o)} for o in absent},
    }
    reasons = {o.name: complaints(o) for o in absent}
    (evidence / "absent.json").write_text(json.dumps(reasons, indent=1, sort_keys=True))
    (files / manifest.FILE).write_bytes(digest.canonical_json(document))


def _target(line: Line, outcome: Outcome, files: Path, evidence: Path) -> dict[str, Any]:
    """Copy one target's files and evidence; give its part of the manifest."""
    built, judged = outcome.built, outcome.judged
    assert built is not None
    assert judged is not None
    target = load_target(line.project, outcome.name)
    place = files / "targets" / outcome.name
    shutil.copytree(built.folder / "artifact", place)
    shutil.copy(toolchain.WORKER, place / "worker.py")
    shutil.copy(toolchain_file(target.toolchain), place / "target.py")
    golden.write(line, outcome, place)
    shutil.copytree(judged.folder, evidence / outcome.name, ignore=shutil.ignore_patterns("step.json"))
    shutil.copy(built.folder / "build.json", evidence / outcome.name)
    if outcome.status != Status.DEFERRED:
        shutil.copy(observe.timing(line, outcome.name).folder / "timing.json", evidence / outcome.name)
    facts = json.loads((built.folder / "build.json").read_text())
    return {
        "role": target.role,
        "hardware": target.hardware,
        "toolchain": target.toolchain,
        "runtime": facts["runtime"],
        "precision": target.precision,
        "dialect": target.dialect,
        "entry": f"targets/{outcome.name}/{facts['entry']}",
        "quantized_share": facts.get("quantized_share"),
        "options": target.options,
        "reproducible": target.reproducible,
        "reason": target.reason,
        "verdict": _verdict(outcome.verdict),
        "files": manifest.files_of(files, outcome.name),
    }


def _verdict(verdict: Any) -> dict[str, Any]:
    """The part of a verdict that the same inputs give again: statuses, limits, rows; no timings, no decimals."""
    keep = ("metric", "against", "status", "sense", "limit")
    findings = [
        {k: f[k] for k in keep} | ({} if f["against"] == "float" else {"n": f["measured"]["n"]})
        for f in verdict["findings"]
    ]
    baseline = {k: verdict["baseline"][k] for k in ("wanted", "used")}
    return {"status": verdict["status"], "why": verdict["why"], "baseline": baseline, "findings": findings}


def stand_in(line: Line, outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Whether the target may stand in for the cloud, or fail over to it: what differs has to be explained, and the cloud itself
    has to pass."""
    cloud = (outcome.verdict.get("baseline") or {}).get("used")
    status = Status.PASS if cloud is None else next(o.status for o in outcomes if o.name == cloud)
    equal = answers_equal(outcome.verdict)
    explained = None if equal or outcome.status != Status.PASS else read_explained(line, outcome.name)
    fit, why = failover(outcome.status, explained, equal=equal, cloud=status)
    return {"fit": fit, "why": why}


def source_digest(line: Line) -> str:
    """Digest of the source model: its config, its bytes, and the project's files that building it loaded."""
    read = build.record_of(build.float_graph(line)).read
    return digest.of_document({**build.source_inputs(line), **read})


def _source_kind(line: Line) -> str:
    source = line.config.source
    return "torch" if source.builder else "onnx" if source.onnx else "mlflow"


def tools(line: Line) -> dict[str, str]:
    """Versions of what built this release."""
    names = {*build.QUANTIZED_BY, *(p for use in line.config.uses for p in _packages(line, use.name))}
    found = {name: toolchain.version(name) for name in sorted(names)}
    return {
        "lockstep": importlib.metadata.version("lockstep"),
        **{k: v for k, v in found.items() if v != "not installed"},
    }


def _packages(line: Line, target: str) -> dict[str, str]:
    return toolchain.packages_of(toolchain_file(load_target(line.project, target).toolchain))
