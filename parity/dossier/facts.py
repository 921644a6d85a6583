"""The step that makes a dossier: reads what lies under `out/<model>/`, assembles the facts, writes their renderings.

In: the run's outcomes and the last release's facts. Out: `dossier.json`, `release.html`, a page for each target,
`summary.md` and `junit.xml`. The rule: a target that failed, waits, or could not be built is in the dossier as the others
are, and a section without facts says what makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compile import percent
from compile.artifact import artifact_bytes
from compile.config import ModelFile, TargetFile, load_model, load_target
from compile.dataset import MADE, columns_of
from compile.errors import ConfigError
from compile.project import Project
from parity.dossier import (
    FACTS,
    RELEASE_PAGE,
    advice,
    behaviour,
    change,
    decision,
    figures,
    inputs,
    reading,
    terms,
    words,
)
from parity.dossier.behaviour import Said, Stage
from parity.dossier.document import Answer, Dossier, LimitFact, PolicyFact, Target, parse, write
from parity.dossier.evidence import Cause, SelfTest
from parity.dossier.pair import Pair
from parity.dossier.rows import Rows, Suite, rows_of
from parity.dossier.sureness import streamed
from parity.observed import read_observed
from parity.policy import Policy, load_policy

NOTHING = Answer(word="not yet", sentence="Nothing was assembled yet.")
MISSING = (
    Cause(missing="Nothing to explain: no verdict."),
    SelfTest(missing="Nothing to test: faults are planted in artifacts that pass."),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What every target of a run shares; `suite` and the rest are None where no suite could be prepared."""

    project: Project
    model: str
    config: ModelFile
    policy: Policy
    suite: Suite | None
    stage: Stage | None

    @property
    def out(self) -> Path:
        return self.project.out(self.model)


def make(
    project: Project,
    made: Path,
    model: str,
    outcomes: list[dict[str, Any]],
    digests: dict[str, str | None],
    before: dict[str, str | None],
    judged_before: dict[str, Any] | None,
    suite_before: str | None,
) -> None:
    """The step. `before`: the last release's `version`, `text` of its facts, or why it is `unread`. `suite_before`: the suite of
    the last verdicts, where this run has none."""
    from parity.dossier import junit, page, summary

    earlier = None if judged_before is None else PolicyFact.model_validate(judged_before)
    dossier = assemble(_scene(project, model), outcomes, digests, _before(before), earlier, suite_before)
    (made / FACTS).write_text(write(dossier))
    (made / RELEASE_PAGE).write_text(page.release(dossier))
    for target in dossier.targets:
        (made / target.page).write_text(page.target(dossier, target))
    (made / "summary.md").write_text(summary.markdown(dossier))
    (made / "junit.xml").write_text(junit.xml(dossier))


def _before(before: dict[str, str | None]) -> change.Before:
    """The last release's facts; where they are of another schema, that is what is said of it."""
    text = before["text"]
    try:
        return change.Before(before["version"], None if text is None else parse(text), before["unread"])
    except ConfigError as error:
        return change.Before(before["version"], None, f"its facts cannot be compared: {error}.")


def _scene(project: Project, model: str) -> Scene:
    config = load_model(project, model)
    policy = load_policy(project, config.policy)
    folder = project.out(model) / "suite"
    if not (folder / "columns.npz").is_file():
        return Scene(project, model, config, policy, None, None)
    suite = Suite(config, folder, columns_of(folder))
    smallest = [limit.smallest for limit in policy.limits if limit.metric == "worst_slice"]
    stage = Stage(config.task, suite.columns, behaviour.class_names(suite.columns), min(smallest, default=50))
    return Scene(project, model, config, policy, suite, stage)


def assemble(
    scene: Scene,
    outcomes: Sequence[dict[str, Any]],
    digests: dict[str, str | None],
    before: change.Before,
    judged_before: PolicyFact | None,
    suite_before: str | None = None,
) -> Dossier:
    """The facts of a run."""
    found = [_target(scene, outcome) for outcome in outcomes]
    rows = _rows(scene, found)
    noun = "requests" if rows is None else inputs.noun(rows.one(0))
    targets = tuple(_told(scene, target, found, rows, noun) for target in found)
    counted = None if scene.suite is None else len(scene.suite.order) - _repeats(scene.suite)
    tried = suite_before
    if counted is not None and digests["suite"] is not None:
        tried = terms.suite_term(counted, digests["suite"])
    policy = policy_fact(scene, tried)
    source, suite = str(digests["source"]), (digests["suite"], digests["suite inputs"])
    columns = () if scene.suite is None else tuple(sorted(set(scene.suite.columns) - set(MADE)))
    recipe = {name: str(value) for name, value in scene.config.quantize.model_dump(mode="json").items()}
    now = change.Now(source, *suite, columns, policy, judged_before, targets, recipe)
    return Dossier(
        model=scene.model,
        description=scene.config.description,
        kind=scene.config.task.kind,
        noun=noun,
        rows=counted,
        source_digest=source,
        suite_digest=suite[0],
        suite_inputs_digest=suite[1],
        suite_columns=columns,
        release_digest=digests["release"],
        policy=policy,
        recipe=recipe,
        judged_before=judged_before,
        exit_code=decision.exit_code(targets),
        ship=decision.ship(targets, scene.model),
        targets=targets,
        change=change.changed(before, now),
        caveats=_caveats(scene, rows, targets),
    )


def policy_fact(scene: Scene, suite: str | None) -> PolicyFact:
    """The effective policy and what decides besides it, so that the next dossier can say what was edited. `suite`: the term that
    names it, where a target was judged on one."""
    project, config, policy = scene.project, scene.config, scene.policy
    limits = tuple(
        LimitFact(
            metric=one.metric,
            kind=one.kind,
            bound=one.bound,
            against=one.pairs,
            precision=one.precision,
            of=one.of,
            by=one.by,
            smallest=one.smallest,
            confidence=one.confidence,
            why=one.why,
        )
        for one in policy.limits
    )
    goal = None if policy.goal is None else f"{policy.goal.kind}: {policy.goal.why}"
    return PolicyFact(
        name=config.policy,
        digest=policy.digest,
        allow_deferred=policy.allow_deferred,
        goal=goal,
        besides=policy.spelled_besides,
        limits=limits,
        judged_as=terms.judged_as(config, {use.name: load_target(project, use.name) for use in config.uses}, suite),
    )


def page_of(target: str) -> str:
    """The file of a target's page."""
    return f"{target}.html" if f"{target}.html" != RELEASE_PAGE else f"target-{target}.html"


def _target(scene: Scene, outcome: dict[str, Any]) -> Target:
    name = outcome["name"]
    config, folder = load_target(scene.project, name), scene.out / "targets" / name
    verdict = reading.read_json(folder / "verdict" / "verdict.json") if outcome["judged"] else {}
    build = reading.read_json(folder / "build" / "build.json") if outcome["built"] else {}
    digests, baseline = verdict.get("digests", {}), verdict.get("baseline") or {}
    summary = verdict.get("summary") or {}
    right = summary.get("correct")
    return Target(
        name=name,
        page=page_of(name),
        role=config.role,
        hardware=config.hardware,
        toolchain=config.toolchain,
        precision=config.precision,
        required=outcome["required"],
        optional_because=outcome["optional_because"],
        deferral_allowed=scene.policy.allows_deferred(name),
        status=outcome["status"],
        why=outcome["error"] or verdict.get("why"),
        observed=verdict.get("observed"),
        baseline_wanted=baseline.get("wanted"),
        baseline_used=baseline.get("used"),
        baseline_why=baseline.get("why"),
        artifact=digests.get("artifact"),
        size_bytes=artifact_bytes(folder / "build") if outcome["built"] else None,
        float_size_bytes=_float_size(folder, config) if summary else None,
        quantized_share=build.get("quantized_share"),
        right=None if right is None else (right["source"], right["candidate"]),
        speed=reading.speed(folder / "timing") if summary else None,
        findings=reading.findings(verdict, scene.policy, config.precision),
        pairs=_pairs(scene, name, verdict) if summary else (),
        stand_in=None,
        cause=reading.cause(folder / "explain", digests, scene.model, name) if verdict else MISSING[0],
        selftest=reading.selftest(folder / "selftest", digests, scene.model, name)
        if outcome["status"] == "PASS"
        else MISSING[1],
    )


def _rows(scene: Scene, targets: Sequence[Target]) -> Rows | None:
    """The rows that pages show, and the first, which says what rows are called; nothing else of the suite is held."""
    if scene.suite is None:
        return None
    wanted = {flip.row for target in targets for pair in target.pairs for flip in pair.flips}
    return rows_of(scene.project, scene.suite, wanted | {0})


def _told(scene: Scene, target: Target, targets: Sequence[Target], rows: Rows | None, noun: str) -> Target:
    """A target with the inputs of what differs, with sentences, and with its fitness as a stand-in."""
    pairs: list[Pair] = []
    for pair in target.pairs:
        assert rows is not None
        shown = tuple(flip.model_copy(update={"inputs": rows.one(flip.row)}) for flip in pair.flips)
        sentences = words.in_words(pair, scene.config.task, noun)
        pairs.append(pair.model_copy(update={"flips": shown, "sentences": sentences}))
    told = target.model_copy(update={"pairs": tuple(pairs), "next": advice.next_step(target, scene.model)})
    cloud = next((one for one in targets if one.name == target.baseline_used), None)
    return told if target.role == "cloud" else told.model_copy(update={"stand_in": decision.stand_in(told, cloud)})


def _float_size(folder: Path, config: TargetFile) -> int | None:
    return artifact_bytes(folder / "float") if config.precision == "int8" and (folder / "float").is_dir() else None


def _pairs(scene: Scene, name: str, verdict: dict[str, Any]) -> tuple[Pair, ...]:
    """The target beside the cloud baseline it was judged against, if any, and beside the source."""
    used = (verdict.get("baseline") or {}).get("used")
    found = [_pair(scene, name, "source", "source", scene.out / "source", verdict)]
    if used is not None:
        cloud = scene.out / "targets" / used / "observation"
        found.insert(0, _pair(scene, name, "baseline", used, cloud, verdict))
    return tuple(found)


def _pair(scene: Scene, name: str, against: Any, other: str, folder: Path, verdict: dict[str, Any]) -> Pair:
    assert scene.stage is not None
    ours = read_observed(folder, scene.config)
    theirs = read_observed(scene.out / "targets" / name / "observation", scene.config)
    told, said, sure = streamed(scene.config.task, zip(ours.results(), theirs.results(), strict=True))
    given = reading.given_slices(verdict, against)
    return behaviour.compare(scene.stage, against, other, Said(told, None), Said(said, None), given, sure)


def _repeats(suite: Suite) -> int:
    """Rows that repeat others, which are not counted."""
    return int(suite.columns["copy"].sum()) if "copy" in suite.columns else 0


def _contradicted(columns: Mapping[str, Any]) -> list[str]:
    """What repeated rows say of the labels: the same input with two labels is wrong in one of them, or cannot be told."""
    labels, original = columns.get("labels"), columns.get("original")
    if labels is None or original is None:
        return []
    other = np.flatnonzero((labels != labels[original]).reshape(len(original), -1).any(axis=1))
    if not len(other):
        return []
    which = columns["id"][other[0]] if "id" in columns else other[0]
    return [
        f"{len(other):,} of these have another label than the row that they repeat, the first of them `{which}`: that label is not "
        "counted, and one of the two is wrong."
    ]


def _caveats(scene: Scene, rows: Rows | None, targets: Sequence[Target]) -> tuple[str, ...]:
    """What a reader would otherwise take for more than it is."""
    found = []
    right = next((target.right[0] for target in targets if target.right is not None), None)
    if scene.policy.source is None and right is not None:
        found.append(
            f"The source itself is right on {percent.share(right)} of the rows, and the policy does not say how many it expects "
            "(`source: {at_least: …, why: …}`): labels that are wrong for both sides alike would not be noticed."
        )
    idle = [one for target in targets for one in target.findings if one.tells is False]
    found += figures.telling_nothing((one.of or one.metric, one.kind or "", one.bound or 0.0) for one in idle)
    if scene.suite is not None and bool(copies := _repeats(scene.suite)):
        found.append(f"{copies:,} rows of the suite repeat others, input for input; each is counted once.")
        found += _contradicted(scene.suite.columns)
    if rows is not None and not rows.raw:
        found.append(
            "Inputs are shown as the model gets them, after preprocessing: the raw ones could not be matched to the rows "
            "that were judged."
        )
    return tuple(found)
