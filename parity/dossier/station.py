"""The station that reports: one dossier for each run, kept like every other step and made again only for a reason.

In: the line, its outcomes, the last release's facts as text. Out: `out/<model>/dossier/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compile import build, digest, toolchain
from compile.build import Made
from compile.config import load_target
from compile.line import Line, own_code
from compile.step import Step
from parity.check import Outcome
from parity.dossier import FACTS, RELEASE_PAGE, SCHEMA, SUPERSEDED
from parity.dossier.terms import SUITE, judged_as, unchanged, with_suite
from parity.policy import load_policy

DRAWN_BY = ("jinja2", "numpy", "scipy")
ASIDE = ("explain/explain.json", "explain/step.json", "selftest/selftest.json", "selftest/step.json")


VOIDED = {"summary.md", "junit.xml", RELEASE_PAGE}
"""What lies there after a run that could not be judged."""


@dataclass(frozen=True, slots=True)
class Before:
    """The last release: its name, the text of its `dossier.json`, or why that could not be read."""

    version: str | None = None
    text: str | None = None
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Decides:
    """What decides this run: the policy by its digest, the terms besides, and the suite by its digest where a target was judged."""

    policy: str
    terms: dict[str, str]
    suite: str | None

    def same(self, fact: dict[str, Any]) -> bool:
        return bool(
            fact["digest"] == self.policy and unchanged(fact.get("judged_as") or self.terms, self.terms, self.suite)
        )


def dossier(
    line: Line, outcomes: Sequence[Outcome], before: Before, release: str | None, *, published: bool = False
) -> Made:
    """The dossier of these outcomes; `release` is the digest of the release they make, if they make one, and `published`
    whether it has gone out already."""
    folder = line.out / "dossier"
    policy = load_policy(line.project, line.config.policy)
    told = [_told(line, outcome) for outcome in outcomes]
    suite = build.data(line, "suite") if any(o.judged is not None for o in outcomes) else None
    inputs_digest = None if suite is None else build.batches_digest(suite)
    suite_digest = None if suite is None else suite.digest
    asked = judged_as(line.config, {use.name: load_target(line.project, use.name) for use in line.config.uses})
    source = digest.of_document(build.source_inputs(line))
    last = _last(folder)
    judged_before = _judged_before(last, Decides(policy.digest, asked, suite_digest), before.text, published)
    carried = (last["policy"].get("judged_as") or {}).get(SUITE) if last is not None and suite is None else None
    arguments = {
        "model": line.model,
        "outcomes": told,
        "digests": {"source": source, "suite": suite_digest, "suite inputs": inputs_digest, "release": release},
        "before": asdict(before),
        "judged_before": judged_before,
        "suite_before": carried,
    }
    inputs = {
        **{f"outcome of {o.name}": digest.of_document(one) for o, one in zip(outcomes, told, strict=True)},
        **{f"verdict on {o.name}": o.judged.digest for o in outcomes if o.judged is not None},
        **{f"artifact of {o.name}": o.built.digest for o in outcomes if o.built is not None},
        **{f"{aside} of {o.name}": _digest(line, o.name, aside) for o in outcomes for aside in ASIDE},
        **{f"target config {o.name}": load_target(line.project, o.name).digest for o in outcomes},
        "model config": digest.of_document(line.config.model_dump(mode="json")),
        "source": source,
        "suite": str(suite_digest),
        "release": str(release),
        "policy": policy.digest,
        "last release": digest.of_document(asdict(before)),
        "policy judged before": digest.of_document(judged_before),
        "suite judged before": str(carried),
        "page templates": _templates(),
        "lockstep's own code": own_code("compile", "parity"),
        **{f"version of {name}": toolchain.version(name) for name in DRAWN_BY},
    }
    step = Step("dossier", folder, inputs)
    return build.made_of(step, line.own(step, line.model, "parity.dossier.facts:make", arguments))


def void(folder: Path, model: str, why: str) -> None:
    """A run that could not be judged says so to CI; what an earlier one said is no answer to it, and goes.

    Nothing where no run came so far as to make the model's folder (a mistyped name), or where something else lies.
    """
    from parity.dossier import junit, page, summary

    facts = next((folder / name for name in (FACTS, SUPERSEDED) if (folder / name).is_file()), None)
    if facts is not None:
        facts.rename(folder / SUPERSEDED)
        for path in folder.iterdir():
            if path.name != SUPERSEDED and not path.is_dir():
                path.unlink()
    elif not folder.parent.is_dir() or (folder.is_dir() and {path.name for path in folder.iterdir()} - VOIDED):
        return
    folder.mkdir(exist_ok=True)
    (folder / "summary.md").write_text(summary.not_judged(model, why))
    (folder / "junit.xml").write_text(junit.not_judged(model, why))
    (folder / RELEASE_PAGE).write_text(page.not_judged(model, why))


def _told(line: Line, outcome: Outcome) -> dict[str, Any]:
    """An outcome without paths: a dossier is read on other machines."""
    error = None if outcome.error is None else str(outcome.error).replace(f"{line.project.root}/", "")
    return {
        "name": outcome.name,
        "status": outcome.status,
        "required": outcome.use.required,
        "optional_because": outcome.use.why,
        "error": error,
        "built": outcome.built is not None,
        "judged": outcome.judged is not None,
    }


def _digest(line: Line, target: str, aside: str) -> str:
    path = line.out / "targets" / target / aside
    return digest.of_file(path) if path.is_file() else "nothing"


def _templates() -> str:
    folder = Path(__file__).parent / "templates"
    return digest.of_tree(digest.of_files(folder))


def _last(folder: Path) -> dict[str, Any] | None:
    """The dossier that lies there, of a judged run; None where there is none that can be read."""
    try:
        found = json.loads((folder / (FACTS if (folder / FACTS).is_file() else SUPERSEDED)).read_text())
        return _with_suite(found) if found["schema"] == SCHEMA else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_suite(document: dict[str, Any]) -> dict[str, Any]:
    """A dossier whose policy says the suite too, as older ones do not."""
    policy = document["policy"]
    if policy.get("judged_as") is None:
        return document
    said = with_suite(policy["judged_as"], document.get("rows"), document.get("suite_digest"))
    return {**document, "policy": {**policy, "judged_as": said}}


def _judged_before(
    last: dict[str, Any] | None, decides: Decides, released: str | None, published: bool
) -> dict[str, Any] | None:
    """What decided the verdicts before these, where it was another policy or other terms besides and no release went out
    under these: neither the last one, nor this very one before somebody tried other terms.

    The `last` dossier says it: either it was made under others, or it carries what it was told.
    """
    if last is None:
        return None
    try:
        seen = last["judged_before"] if decides.same(last["policy"]) else None if published else last["policy"]
        settled = released is not None and decides.same(_with_suite(json.loads(released))["policy"])
    except (ValueError, KeyError, TypeError):
        return None
    return None if settled or seen is None or decides.same(seen) else dict(seen)
