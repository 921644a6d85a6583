"""The gate tests itself: the oracle against figures by hand, every defect really changes something, a blind gate is found out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.config import ModelFile, TaskConfig
from parity.limit import Limit
from parity.selftest import answer_defects, graph_defects, input_defects
from parity.selftest.account import code, printed
from parity.selftest.gate import Gate, caught_by_tolerances
from parity.selftest.oracle import CLEAR, Pair, truth
from parity.selftest.plant import SIZES, Planted, merge
from parity.selftest.trial import Bench, summary
from parity.selftest.witness import Witness, draw, joined_columns, suite_units
from tests.conftest import json_of, run_in
from tests.parity.test_judge import MODEL

CONFIG = ModelFile.model_validate(MODEL)
AGREEMENT = Limit(metric="agreement", at_least=0.98, why="a limit for a test")
CORRECT = Limit(metric="correct", margin=0.01, why="a limit for a test")
SQNR = Limit(metric="sqnr_db", at_least=15, why="a limit for a test")
N, SUITE = 6000, 1000


def scores(seed: int = 0, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def flipped(logits: np.ndarray, share: float) -> np.ndarray:
    """Another class for the first rows."""
    changed = logits.copy()
    count = round(share * len(logits))
    changed[:count] = np.roll(logits[:count], 1, axis=1)
    return changed


def pair(candidate: np.ndarray, labels: np.ndarray | None = None, units: int = SUITE) -> Pair:
    columns = {} if labels is None else {"labels": labels}
    return Pair(CONFIG, {"logits": scores()}, {"logits": candidate}, columns, np.arange(N), units)


def told(candidate: np.ndarray, *limits: Limit, labels: np.ndarray | None = None) -> Any:
    return truth({"source": pair(candidate, labels)}, limits)


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.0, "harmless"), (0.001, "harmless"), (0.02, "grey zone"), (0.025, "grey zone"), (0.04, "must catch")],
)
def test_the_oracle_counts_standard_errors_of_the_suite(share: float, verdict: str) -> None:
    """Of 1,000 rows a rate p has the standard error sqrt(p (1 - p) / 1000): 4 % is 3.2 of them beyond 2 %, 2.5 % is one."""
    found = told(flipped(scores(), share), AGREEMENT)
    assert found.verdict == verdict
    if share > 0:
        rate = round(share * N) / N
        by_hand = (0.02 - rate) / np.sqrt(rate * (1 - rate) / SUITE)
        assert found.holds_by == pytest.approx(by_hand, rel=1e-6)


def test_the_oracle_sees_lost_accuracy_where_agreement_would_do() -> None:
    labels = scores().argmax(1)
    lost = flipped(scores(), 0.018)
    assert told(lost, AGREEMENT, labels=labels).verdict == "grey zone"
    assert told(lost, AGREEMENT, CORRECT, labels=labels).worst == "correct against source"
    assert told(flipped(scores(), 0.03), CORRECT, labels=labels).verdict == "must catch"


def test_the_oracle_sees_noise_by_its_share_of_the_signal() -> None:
    """15 dB allow 3.16 % of the energy: a tenth is far beyond, a thousandth far within."""
    rng = np.random.default_rng(1)
    noisy = [
        scores() + np.float32(np.sqrt(part)) * rng.standard_normal((N, 4)).astype(np.float32) for part in (0.1, 0.001)
    ]
    assert [told(one, SQNR).verdict for one in noisy] == ["must catch", "harmless"]


@pytest.mark.parametrize(
    "candidate",
    [
        scores().astype(np.float16),
        scores()[:, :3],
        np.where(np.arange(N)[:, None] % 50 == 0, np.nan, scores()).astype(np.float32),
    ],
    ids=["half precision", "three classes", "NaN"],
)
def test_what_is_no_answer_must_be_caught(candidate: np.ndarray) -> None:
    assert told(candidate, AGREEMENT).verdict == "must catch"


def test_a_pool_is_five_times_the_suite_and_shares_no_unit() -> None:
    columns, unit = joined_columns(
        [
            {"row": np.arange(300), "group": np.repeat(np.arange(30), 10)},
            {"row": np.arange(600), "group": np.repeat(np.arange(60), 10)},
        ]
    )
    witness = Witness(columns, unit, {}, None)
    assert witness.units == 90, "group 0 of the suite is not group 0 of the pool"
    drawn = draw(witness, 30, seed=1)
    assert len(np.unique(unit[drawn.suite])) == suite_units(witness, 30) == 15
    assert not set(unit[drawn.suite]) & set(unit[drawn.pool])
    assert len(drawn.pool) >= 5 * len(drawn.suite)


def qdq() -> Any:
    """A float graph of two layers and the same with one activation quantized."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    w = [numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), name) for name in ("w1", "w2")]
    s = [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(128), "z")]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "back"),
        helper.make_node("MatMul", ["d", "w2"], ["y"], "second"),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], [*w, *s])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("kind", [*graph_defects.OF_WEIGHTS, *graph_defects.OF_ACTIVATIONS])
def test_every_defect_of_a_graph_changes_it_and_changes_it_the_same_way_again(kind: str) -> None:
    import onnxruntime as ort

    defect = graph_defects.defects(qdq())[kind]
    x = {"x": np.random.default_rng(1).standard_normal((16, 8)).astype(np.float32)}
    healthy = ort.InferenceSession(qdq().SerializeToString()).run(None, x)[0]
    for size in SIZES[1:]:
        found = []
        for _ in range(2):
            graph = qdq()
            defect(graph, size, Planted("graph", kind, size, 1).random())
            found.append(ort.InferenceSession(graph.SerializeToString()).run(None, x)[0])
        assert (found[0] == found[1]).all()
        assert size < 1 or not np.array_equal(found[0], healthy)


def test_a_float_graph_has_no_activations_to_plant_in() -> None:
    graph = qdq()
    for node in list(graph.graph.node):
        if "Quantize" in node.op_type:
            graph.graph.node.remove(node)
    assert set(graph_defects.defects(graph)) == set(graph_defects.OF_WEIGHTS)


@pytest.mark.parametrize("kind", list(input_defects.DEFECTS))
def test_every_defect_of_inputs_changes_floats_and_leaves_whole_numbers(kind: str) -> None:
    batch = {"x": np.random.default_rng(2).random((32, 6, 6)).astype(np.float32), "ids": np.arange(32)}
    found = input_defects.planted(batch, kind, 1.0, np.random.default_rng(0))
    assert not np.array_equal(found["x"], batch["x"])
    assert found["x"].dtype == np.float32
    assert (found["ids"] == batch["ids"]).all()


@pytest.mark.parametrize("kind", list(answer_defects.DEFECTS))
def test_every_defect_of_answers_changes_them_or_is_not_of_this_task(kind: str) -> None:
    outputs = {"y": np.random.default_rng(3).random((64, 4)).astype(np.float32)}
    changed = 0
    for task in ("classification", "binary_score"):
        config = TaskConfig.model_validate({"kind": task})
        found = answer_defects.DEFECTS[kind](dict(outputs), "y", config, 1.0, np.random.default_rng(0))
        if found is not None:
            changed += 1
            same = "y" in found and found["y"].dtype == np.float32 and np.array_equal(found["y"], outputs["y"])
            assert not same
    assert changed


def test_streams_of_the_pool_do_not_go_on_with_the_state_of_the_suite(tmp_path: Path) -> None:
    for part in ("suite", "pool"):
        (tmp_path / part).mkdir()
        np.savez(tmp_path / part / "00000.npz", x=np.zeros((2, 3), np.float32), stream=np.arange(2))
    merge(tmp_path / "both", [tmp_path / "suite", tmp_path / "pool"])
    streams = [np.load(path)["stream"].tolist() for path in sorted((tmp_path / "both").glob("*.npz"))]
    assert not set(streams[0]) & set(streams[1])


def test_fixed_tolerances_by_hand() -> None:
    one = {"y": np.array([[1.0, 2.0]], np.float32)}
    assert caught_by_tolerances(one, one) == {"1e-5": False, "1e-1": False, "cosine 0.997": False}
    near = {"y": one["y"] + np.float32(1e-3)}
    assert caught_by_tolerances(one, near) == {"1e-5": True, "1e-1": False, "cosine 0.997": False}
    turned = {"y": np.array([[2.0, 1.0]], np.float32)}
    assert caught_by_tolerances(one, turned) == {"1e-5": True, "1e-1": True, "cosine 0.997": True}


class Blind(Gate):
    """A gate that sees nothing."""

    def caught_by(self, *_: Any) -> None:  # type: ignore[override]
        return None


class Nervous(Gate):
    """A gate that refuses everything."""

    def caught_by(self, *_: Any) -> Any:
        return "statistics"


@pytest.mark.parametrize(("kind", "caught", "alarms"), [(Blind, 0, 0), (Nervous, 1, 1)])
def test_a_blind_gate_and_a_nervous_one_are_found_out(kind: type[Gate], caught: int, alarms: int) -> None:
    gate = kind(CONFIG, None, None, {}, Path())  # type: ignore[arg-type]
    witness = Witness({}, np.arange(N), {"logits": scores()}, None)
    bench = Bench(CONFIG, [AGREEMENT], witness, SUITE, {}, gate)
    bad = bench.tried(Planted("answers", "flips", 0.2, 0), {"logits": flipped(scores(), 0.9)}, 0)
    good = bench.tried(Planted("benign", "nothing changed", 0, 0), {"logits": scores()}, 1)
    found = summary(bench, [bad, good])
    assert (found["must_catch"], found["caught"]) == (1, caught)
    assert (found["benign"], found["false_alarms"]) == (1, alarms)


@pytest.fixture(scope="module")
def tried(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with an int8 target and a pool, after its self-test."""
    import shutil

    root = tmp_path_factory.mktemp("tried") / "project"
    shutil.copytree(built, root)
    (root / "tiny" / "pool.py").write_text(POOL)
    config = root / "configs" / "models" / "tiny.yaml"
    config.write_text(config.read_text() + "pool: {function: tiny.pool:pool}\n")
    done = run_in(root, "selftest", "tiny", "edge-x86-openvino-fp32", "--seeds", "1", "--json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return root


POOL = """
import numpy as np
import torch
from safetensors.torch import load_file
from tiny.model import build


def pool():
    model = build()
    model.load_state_dict(load_file("tiny/weights.safetensors"))
    x = np.random.default_rng(5).standard_normal((4000, 16)).astype(np.float32)
    labels = model(torch.from_numpy(x)).argmax(1).numpy()
    labels[::10] = 0
    yield {"x": x, "labels": labels, "id": np.arange(len(x))}
"""


def test_the_gate_catches_what_it_must_and_nothing_else(tried: Path) -> None:
    found = json.loads((tried / "out/tiny/targets/edge-x86-openvino-fp32/selftest/selftest.json").read_text())
    assert found["must_catch"] >= 300
    assert found["caught"] == found["must_catch"]
    assert found["benign"] >= 300
    assert found["false_alarms"] == 0
    assert len({row["kind"] for row in found["rows"] if row["place"] != "benign"}) >= 24
    assert set(found["caught_by"]) == {"integrity", "structure", "statistics", "undecided"}
    assert all(found["caught_by"][how] for how in ("integrity", "structure", "statistics"))
    assert sum(found["caught_by"].values()) == found["caught"]
    assert found["fixed_tolerances"]["cosine 0.997"]["caught"] < found["fixed_tolerances"]["cosine 0.997"]["of"]
    assert found["fixed_tolerances"]["1e-5"]["of"] > 0


def test_the_counts_are_those_of_the_rows(tried: Path) -> None:
    found = json.loads((tried / "out/tiny/targets/edge-x86-openvino-fp32/selftest/selftest.json").read_text())
    planted = [row for row in found["rows"] if row["place"] != "benign"]
    must = [row for row in planted if row["oracle"] == "must catch"]
    assert (found["planted"], found["must_catch"]) == (len(planted), len(must))
    assert found["caught"] == sum(row["caught_by"] is not None for row in must)
    assert code(found) == 0
    assert code({**found, "caught": found["caught"] - 1}) == 1
    assert code({**found, "false_alarms": 1}) == 1
    assert f"{found['caught']:,} of {found['must_catch']:,}" in printed(found)


def test_a_second_self_test_of_the_same_does_nothing(tried: Path) -> None:
    done = run_in(tried, "selftest", "tiny", "edge-x86-openvino-fp32", "--seeds", "1")
    assert done.returncode == 0
    assert "selftest" not in done.stderr


def test_a_target_that_did_not_pass_is_not_tested(project: Path) -> None:
    policy = project / "configs" / "policies" / "default.yaml"
    policy.write_text(policy.read_text().replace("at_least: 0.98", "at_least: 0.9999"))
    done = run_in(project, "selftest", "tiny", "edge-x86-openvino-fp32")
    assert done.returncode == 2
    assert "is INCONCLUSIVE; the gate is tested on an artifact that it passes" in done.stderr


def test_too_little_data_is_said_and_an_unknown_target_is_named(project: Path) -> None:
    done = run_in(project, "selftest", "tiny", "edge-x86-openvino-fp3")
    assert done.returncode == 2
    assert "did you mean `edge-x86-openvino-fp32`" in done.stderr
    suite = project / "tiny" / "suite.npz"
    with np.load(suite) as arrays:
        np.savez(suite, **{name: arrays[name][:100] for name in arrays.files})
    policy = project / "configs" / "policies" / "default.yaml"
    policy.write_text(policy.read_text().replace("0.98", "0.9").replace("margin: 0.01", "margin: 0.1"))
    done = run_in(project, "selftest", "tiny", "edge-x86-openvino-fp32", "--json")
    assert done.returncode == 2, done.stderr
    assert "name more data under `pool`" in json_of(done)["error"]["message"]


def test_rows_of_the_pool_that_are_also_in_the_suite_are_refused(project: Path) -> None:
    config = project / "configs" / "models" / "tiny.yaml"
    config.write_text(config.read_text() + "pool: {npz: tiny/suite.npz}\n")
    done = run_in(project, "selftest", "tiny", "edge-x86-openvino-fp32")
    assert done.returncode == 2
    assert "pool: 600 of its rows are also in the evaluation suite" in done.stderr


def test_harmless_is_farther_from_the_limit_than_a_gate_can_miss() -> None:
    """One-sided 95 % bounds pass a rate that is k standard errors within with probability Phi(k - 1.645)."""
    from scipy.stats import norm

    assert norm.sf(CLEAR - norm.ppf(0.95)) < 1e-4
    assert replace(Planted("a", "b", 0.1, 1), seed=2).random().random() != Planted("a", "b", 0.1, 1).random().random()
