"""A release's dossier in the registry: where MLflow users look, once however often it is published, and compared with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.dossier.document import Dossier, parse
from registry import dossier as dossiers
from registry.location import Location
from tests.conftest import json_of, run_in
from tests.parity.aside import TESTED, lay

EDGE = "edge-x86-openvino-fp32"


def facts_of(root: Path) -> Dossier:
    return parse((root / "out" / "tiny" / "dossier" / "dossier.json").read_text())


def relabel(root: Path) -> None:
    suite = dict(np.load(root / "tiny" / "suite.npz"))
    suite["labels"][3] = (suite["labels"][3] + 1) % 4
    np.savez(root / "tiny" / "suite.npz", **suite)  # type: ignore[arg-type]


def client_of(root: Path) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{root}/.lockstep/registry/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def run_of(root: Path, version: str = "1") -> Any:
    client = client_of(root)
    return client.get_run(client.get_model_version("tiny", version).run_id)


@pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own
def test_metrics_parameters_tables_and_files_lie_where_mlflow_users_look(project: Path) -> None:
    run_in(project, "status", "tiny")  # points the copied database at this folder
    run, facts = run_of(project), facts_of(project)
    target = facts.target(EDGE)
    assert target is not None
    pair = target.pair("source")
    assert pair is not None
    assert target.speed is not None
    metrics = run.data.metrics
    assert metrics[f"{EDGE}/agreement"] == pair.agree
    assert metrics[f"{EDGE}/agreement_low"] == pytest.approx(pair.agree_low)
    assert metrics[f"{EDGE}/size_bytes"] == target.size_bytes
    assert metrics[f"{EDGE}/latency_p50_ms"] == pytest.approx(target.speed.p50_s * 1000)
    assert run.data.params["policy_digest"] == facts.policy.digest
    assert run.data.params["suite_digest"] == facts.suite_digest
    here = {f.path for f in client_of(project).list_artifacts(run.info.run_id, "dossier")}
    assert {"dossier/release.html", f"dossier/{EDGE}.html", "dossier/junit.xml", "dossier/limits.json"} <= here
    there = {f.path for f in client_of(project).list_artifacts(run.info.run_id, "evidence")}
    assert "evidence/dossier.json" in there


@pytest.mark.filterwarnings("ignore")
def test_mlflows_own_reader_reads_the_tables(project: Path) -> None:
    import mlflow

    run_in(project, "status", "tiny")
    run, facts = run_of(project), facts_of(project)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{project}/.lockstep/registry/mlflow.db")
    try:
        table = client_of(project).load_table(run.info.experiment_id, "dossier/limits.json", [run.info.run_id])
    finally:
        mlflow.set_tracking_uri(before)
    assert len(table) == sum(len(target.findings) for target in facts.targets)
    assert set(table["status"]) == {"PASS"}
    named = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert {"path": "dossier/limits.json", "type": "table"} in named


@pytest.mark.filterwarnings("ignore")
def test_publishing_again_leaves_one_point_a_metric_and_one_table(project: Path) -> None:
    from registry import tracking

    run_in(project, "status", "tiny")
    run, client = run_of(project), client_of(project)
    folder = project / "out" / "tiny" / "dossier"
    files = sorted((project / ".lockstep" / "registry" / "artifacts").rglob("dossier/*"))
    before = {path: path.read_bytes() for path in files}
    tracking.record(client, run.info.run_id, folder)
    assert len(client.get_metric_history(run.info.run_id, f"{EDGE}/agreement")) == 1
    assert {path: path.read_bytes() for path in before} == before
    assert sorted((project / ".lockstep" / "registry" / "artifacts").rglob("dossier/*")) == files


@pytest.mark.filterwarnings("ignore")
def test_a_self_test_after_publishing_is_logged_beside_the_release_and_nothing_else_is(project: Path) -> None:
    lay(project, "selftest", TESTED)
    done = run_in(project, "artifacts", "tiny")
    assert "already published, now with its self-test: tiny version 1" in done.stdout
    run, client = run_of(project), client_of(project)
    there = [Path(client.download_artifacts(run.info.run_id, f"{at}/dossier.json")) for at in ("dossier", "evidence")]
    for path in there:
        target = parse(path.read_text()).target(EDGE)
        assert target is not None
        assert (target.selftest.caught, target.selftest.must_catch) == (1, 2)
    assert len(client.get_metric_history(run.info.run_id, f"{EDGE}/agreement")) == 1
    told = [path.read_bytes() for path in there]
    shutil.rmtree(project / "out" / "tiny" / "targets" / EDGE / "selftest")
    assert "self-test" not in run_in(project, "artifacts", "tiny").stdout
    assert [path.read_bytes() for path in there] == told, "a dossier that tells less replaces none"


def test_a_second_release_says_what_changed_since_the_first(project: Path) -> None:
    assert facts_of(project).change.since is None
    relabel(project)
    assert json_of(run_in(project, "artifacts", "tiny", "--json"))["release"]["version"] == 2
    change = facts_of(project).change
    assert (change.since, change.suite, change.source) == ("version 1", True, False)
    assert {c.artifact for c in change.targets} == {"same"}
    assert json_of(run_in(project, "artifacts", "tiny", "--json"))["ran"] == []
    assert facts_of(project).change == change


def test_a_release_whose_dossier_is_gone_or_of_another_schema_is_said_to_be_unread(project: Path) -> None:
    (path,) = (project / ".lockstep" / "registry" / "artifacts").rglob("evidence/dossier.json")
    text = path.read_text()
    relabel(project)
    path.write_text(text.replace("lockstep.dossier/1", "lockstep.dossier/9"))
    assert run_in(project, "check", "tiny").returncode == 0
    assert "schema lockstep.dossier/9" in str(facts_of(project).change.unread)
    path.write_text(text.replace('"ship"', '"shipped"'))
    assert run_in(project, "check", "tiny").returncode == 0
    assert "cannot be compared" in str(facts_of(project).change.unread)
    path.unlink()
    assert run_in(project, "check", "tiny").returncode == 0
    assert "no dossier lies beside it" in str(facts_of(project).change.unread)


def test_a_registry_that_does_not_answer_stops_no_check(project: Path) -> None:
    found, published = dossiers.last_release("tiny", Location(url="http://127.0.0.1:9"), None)
    assert not published
    assert found.text is None
    assert "does not answer" in str(found.unread)
    done = run_in(project, "check", "tiny", "--registry", "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "does not answer" in " ".join(facts_of(project).change.sentences)
