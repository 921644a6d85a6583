"""The dossier of a real run: its figures are those of the files, it is there when the run fails, and made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from parity.dossier.document import Dossier, parse
from tests.conftest import json_of, run_in
from tests.parity.aside import EDGE, EXPLAINED, TESTED, lay

CLOUD, INT8 = "cloud-cpu-onnxruntime", "edge-x86-onnxruntime"


def facts_of(root: Path) -> Dossier:
    return parse((root / "out" / "tiny" / "dossier" / "dossier.json").read_text())


def answers(root: Path, place: str) -> np.ndarray:
    files = sorted((root / "out" / "tiny" / place / "outputs").glob("*.npz"))
    return np.concatenate([np.load(path)["logits"].argmax(1) for path in files])


def rewritten(root: Path, old: str, new: str) -> None:
    path = root / "configs" / "policies" / "default.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_run_leaves_a_page_for_the_release_and_for_each_target(mixed: Path) -> None:
    folder = mixed / "out" / "tiny" / "dossier"
    facts = facts_of(mixed)
    pages = {"release.html", *(f"{target.name}.html" for target in facts.targets)}
    assert {path.name for path in folder.iterdir()} == {
        *pages, "dossier.json", "summary.md", "junit.xml", "step.json",
    }  # fmt: skip
    assert facts.exit_code == 0
    assert facts.ship.word == "yes"


def test_the_figures_are_those_of_the_files(mixed: Path) -> None:
    target = facts_of(mixed).target(INT8)
    assert target is not None
    ours, theirs = answers(mixed, "source"), answers(mixed, f"targets/{INT8}/observation")
    pair = target.pair("source")
    assert pair is not None
    assert (pair.n, pair.differ) == (600, int((ours != theirs).sum()))
    labels = np.load(mixed / "tiny" / "suite.npz")["labels"]
    assert target.right == pytest.approx(((ours == labels).mean(), (theirs == labels).mean()))
    timing = json.loads((mixed / "out" / "tiny" / "targets" / INT8 / "timing" / "timing.json").read_text())["seconds"]
    assert target.speed is not None
    assert target.speed.p50_s == pytest.approx(np.median(timing["artifact"]))
    assert target.speed.p99_s == pytest.approx(np.percentile(timing["artifact"], 99))
    files = (mixed / "out" / "tiny" / "targets" / INT8 / "build" / "artifact").rglob("*")
    assert target.size_bytes == sum(path.stat().st_size for path in files if path.is_file())
    verdict = json.loads((mixed / "out" / "tiny" / "targets" / INT8 / "verdict" / "verdict.json").read_text())
    assert [f.sentence for f in target.findings] == [f["sentence"] for f in verdict["findings"]]
    assert all(f.why for f in target.findings if f.unit != "breaches")


def test_that_nobody_asked_the_source_is_said_unless_the_policy_asks(mixed: Path, tmp_path: Path) -> None:
    labels, root = np.load(mixed / "tiny" / "suite.npz")["labels"], tmp_path / "asked"
    right = (answers(mixed, "source") == labels).mean()
    said = [one for one in facts_of(mixed).caveats if "the policy does not say how many it expects" in one]
    assert len(said) == 1
    assert f"right on {100 * right:.2f} % of the rows" in said[0]
    shutil.copytree(mixed, root)
    rewritten(root, "limits:\n", "source: {at_least: 0.5, why: random labels are right less often}\nlimits:\n")
    assert run_in(root, "check", "tiny").returncode == 0
    assert not [one for one in facts_of(root).caveats if "expects" in one]


def test_a_repeated_row_with_another_label_and_a_limit_that_tells_nothing_are_said(mixed: Path, tmp_path: Path) -> None:
    root = tmp_path / "twice"
    shutil.copytree(mixed, root)
    suite = dict(np.load(root / "tiny" / "suite.npz"))
    twice = {name: np.concatenate([values, values[:2]]) for name, values in suite.items()}
    twice["labels"][-1] = (twice["labels"][-1] + 1) % 3
    np.savez(root / "tiny" / "suite.npz", **twice)
    idle = "limits:\n  - {metric: agreement, at_least: 0.05, why: nothing is asked here}\n"
    rewritten(root, "limits:\n", idle)
    told = "policy's limit `agreement at least 0.05` tells nothing here: answers of other rows would keep it too"
    assert told in run_in(root, "check", "tiny").stdout
    caveats = facts_of(root).caveats
    assert [one for one in caveats if told in one]
    assert any("1 of these have another label than the row that they repeat" in one for one in caveats)
    assert not [one for one in facts_of(mixed).caveats if "tells nothing" in one or "another label" in one]


def test_every_limit_of_every_verdict_is_a_case_of_the_report(mixed: Path) -> None:
    root = ElementTree.parse(mixed / "out" / "tiny" / "dossier" / "junit.xml").getroot()
    for suite in root.findall("testsuite"):
        name = str(suite.get("name")).split(" / ")[1]
        verdict = json.loads((mixed / "out" / "tiny" / "targets" / name / "verdict" / "verdict.json").read_text())
        assert int(str(suite.get("tests"))) == max(len(verdict["findings"]), 1)
    assert (root.get("failures"), root.get("errors")) == ("0", "0")


def test_no_file_of_a_dossier_names_a_path_of_this_machine(mixed: Path) -> None:
    for path in (mixed / "out" / "tiny" / "dossier").iterdir():
        assert str(mixed) not in path.read_text(), path.name
        assert str(Path.home()) + "/" not in path.read_text(), path.name


def test_the_same_run_elsewhere_gives_the_same_bytes_but_for_what_was_timed(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(project, other)
    shutil.rmtree(other / "out" / "tiny" / "dossier")
    assert json_of(run_in(other, "report", "tiny", "--json"))["ran"] == ["dossier"]
    for path in (project / "out" / "tiny" / "dossier").iterdir():
        if path.name != "step.json":
            assert (other / "out" / "tiny" / "dossier" / path.name).read_bytes() == path.read_bytes(), path.name


def test_report_says_where_the_dossier_lies_and_makes_it_once(project: Path) -> None:
    done = run_in(project, "report", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("dossier: out/tiny/dossier/release.html")
    document = json_of(run_in(project, "report", "tiny", "--json"))
    assert document["ran"] == []
    assert Path(document["dossier"]) == project / "out" / "tiny" / "dossier"
    for verb in ("check", "artifacts"):
        assert json_of(run_in(project, verb, "tiny", "--json"))["ran"] == []


def test_a_dossier_that_was_tampered_with_is_made_again(project: Path) -> None:
    page = project / "out" / "tiny" / "dossier" / "release.html"
    whole = page.read_text()
    page.write_text(whole.replace("May this be shipped?", "This may be shipped."))
    assert json_of(run_in(project, "report", "tiny", "--json"))["ran"] == ["dossier"]
    assert page.read_text() == whole


def test_a_run_that_fails_has_a_dossier_that_says_no(project: Path) -> None:
    rewritten(project, "at_most: 10\n", "at_most: 1.0e-9\n")
    (project / "configs" / "targets" / f"{CLOUD}.yaml").write_text(
        (project / "configs" / "targets" / f"{EDGE}.yaml").read_text().replace("role: edge", "role: cloud")
    )
    done = run_in(project, "artifacts", "tiny", "--json")
    facts = facts_of(project)
    assert (done.returncode, facts.exit_code, facts.ship.word) == (1, 1, "no")
    assert facts.release_digest is None
    assert "float error" in facts.ship.sentence
    assert facts.change.since == "version 1"
    assert any("Limit tightened since version 1" in one for one in facts.change.sentences)
    assert any("PASS → FAIL" in one for one in facts.change.sentences)


def test_a_limit_that_was_loosened_after_a_refusal_is_shown_until_a_release_goes_out_under_it(project: Path) -> None:
    shutil.rmtree(project / ".lockstep")
    rewritten(project, "at_least: 0.98", "at_least: 0.999")
    assert run_in(project, "artifacts", "tiny").returncode == 4
    rewritten(project, "at_least: 0.999", "at_least: 0.97")
    assert run_in(project, "artifacts", "tiny").returncode == 0
    facts = facts_of(project)
    assert facts.change.since is None
    (edit,) = facts.change.policy_since_judged
    assert (edit.direction, edit.before) == ("loosened", "at least 0.999")
    assert (
        "Limit loosened since the last verdict" in (project / "out" / "tiny" / "dossier" / "release.html").read_text()
    )
    assert json_of(run_in(project, "artifacts", "tiny", "--json"))["ran"] == []


def test_another_suite_after_a_refusal_is_shown_too(project: Path) -> None:
    """A second suite is a second try, whether it is smaller or longer; a run that judges nothing between hides none."""
    shutil.rmtree(project / ".lockstep")
    rewritten(project, "at_least: 0.98", "at_least: 0.9999")
    assert run_in(project, "check", "tiny").returncode == 4
    assert not facts_of(project).change.judged_as_since_judged
    whole = np.load(project / "tiny" / "suite.npz")
    np.savez(project / "tiny" / "suite.npz", **{name: whole[name][:400] for name in whole.files})

    def edit() -> list[str]:
        (found,) = facts_of(project).change.judged_as_since_judged
        return [found.limit, *(str(side).partition(" ")[2] for side in (found.before, found.after))]

    configs = [project / "configs" / "targets" / f"{name}.yaml" for name in (EDGE, "cloud-cpu-onnxruntime")]
    for nothing_between in (True, False):
        texts = [config.read_text() for config in configs]
        for config, text in zip(configs, texts, strict=True):
            config.write_text(text + "limits: {time_s: 0.05}\n" if nothing_between else text)
        assert run_in(project, "check", "tiny").returncode == (3 if nothing_between else 4)
        for config, text in zip(configs, texts, strict=True):
            config.write_text(text)
        assert run_in(project, "check", "tiny").returncode == 4
        assert edit() == ["suite", "(600 rows)", "(400 rows)"]


def test_a_target_that_cannot_be_built_is_in_the_dossier_with_its_error(project: Path) -> None:
    config = project / "configs" / "targets" / f"{EDGE}.yaml"
    config.write_text(config.read_text() + "limits: {time_s: 0.05}\n")
    done = run_in(project, "artifacts", "tiny", "--json")
    assert done.returncode == 3, done.stdout
    facts = facts_of(project)
    target = facts.target(EDGE)
    assert target is not None
    assert (target.status, facts.ship.word, target.pairs) == ("ERROR", "no", ())
    assert str(project) not in (project / "out" / "tiny" / "dossier" / f"{EDGE}.html").read_text()


def test_cause_and_self_test_are_taken_up_when_they_appear_and_why_says_so(project: Path) -> None:
    lay(project, "explain", EXPLAINED)
    lay(project, "selftest", TESTED)
    assert any("explain.json" in r for r in json_of(run_in(project, "why", "tiny", "--json"))["would_run"]["dossier"])
    assert json_of(run_in(project, "report", "tiny", "--json"))["ran"] == ["dossier"]
    target = facts_of(project).target(EDGE)
    assert target is not None
    assert (target.cause.sentence, target.cause.rungs[0].n) == ("A fused kernel rounds once less.", 600)
    assert target.cause.second is not None
    assert target.cause.second.sentence == "One range is narrow."
    assert target.selftest.caught == 1
    assert target.selftest.sizes == [0.05, 0.2]
    gross = target.selftest.by_kind["scale"][0.2]
    assert (gross.planted, gross.must_catch, gross.caught, gross.missed) == (2, 2, 1, 1)
    assert set(target.selftest.by_kind) == {"scale"}
    assert "1 of 2 planted faults caught" in (project / "out" / "tiny" / "dossier" / "summary.md").read_text()
    assert "1 missed" in (project / "out" / "tiny" / "dossier" / f"{EDGE}.html").read_text()
    shown = (project / "out" / "tiny" / "dossier" / f"{EDGE}.html").read_text()
    assert "A fused kernel rounds once less." in shown
    assert "A second cause remains: <strong>quantization</strong>: One range is narrow." in shown


def test_a_cause_of_an_earlier_artifact_is_not_shown_as_one_of_this(project: Path) -> None:
    lay(project, "explain", EXPLAINED, stale=True)
    assert run_in(project, "report", "tiny").returncode == 0
    target = facts_of(project).target(EDGE)
    assert target is not None
    assert target.cause.sentence is None
    assert "earlier artifact" in str(target.cause.missing)


def test_a_run_that_cannot_be_judged_leaves_no_yes_of_an_earlier_one(project: Path) -> None:
    """The suite holds a NaN now: the pages of the good run go, and come back with the good suite, edits of limits still told."""
    folder, suite = project / "out" / "tiny" / "dossier", project / "tiny" / "suite.npz"
    assert run_in(project, "report", "tiny").returncode == 0
    kept = suite.read_bytes()
    with np.load(suite) as arrays:
        broken = {name: arrays[name] for name in arrays.files}
    name = next(name for name, array in broken.items() if array.dtype == np.float32)
    broken[name] = broken[name].copy()
    broken[name].flat[0] = np.nan
    np.savez(suite, **broken)
    assert run_in(project, "check", "tiny").returncode == 2
    assert "no verdict" in (folder / "summary.md").read_text()
    assert {path.name for path in folder.iterdir()} == {"summary.md", "junit.xml", "superseded.json", "release.html"}
    assert "No verdict" in (folder / "release.html").read_text()
    root = ElementTree.fromstring((folder / "junit.xml").read_text())
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    suite.write_bytes(kept)
    rewritten(project, "0.98", "0.97")
    assert run_in(project, "report", "tiny").returncode == 0
    assert not (folder / "superseded.json").exists()
    assert "at least 0.97" in (folder / "release.html").read_text()
    assert facts_of(project).change.policy_since_judged


def test_a_release_judged_by_less_says_what_was_taken_away(project: Path) -> None:
    config, suite = project / "configs" / "models" / "tiny.yaml", project / "tiny" / "suite.npz"
    config.write_text(config.read_text().replace(f"baseline: [{CLOUD}]\n", ""))
    rows = dict(np.load(suite))
    np.savez(suite, **{name: rows[name] for name in rows if name != "labels"})
    assert run_in(project, "artifacts", "tiny").returncode == 0
    told = facts_of(project).change.sentences
    assert f"Judged otherwise since version 1 and since the last verdict: baseline: {CLOUD} → none." in told
    assert "The suite's inputs are the same, its labels or columns are others." in told
    assert "The suite no longer has labels." in told
    assert any(one.startswith(f"{EDGE}: no longer judged: ") and "against baseline" in one for one in told)
