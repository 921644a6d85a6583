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
from parity.policy import Route
from parity.selftest import answer_defects, graph_defects, input_defects
from parity.selftest.account import code, printed
from parity.selftest.bench import Bench
from parity.selftest.gate import Caught, Gate, caught_by_tolerances
from parity.selftest.oracle import CLEAR, Pair, truth
from parity.selftest.plant import SIZES, Planted, merge
from parity.selftest.station import SEEDS, answer_seeds, healthy_draws
from parity.selftest.tally import summary
from parity.selftest.witness import Witness, draw, joined_columns, kinds_of, suite_units
from tests.conftest import json_of, run_in
from tests.parity.judged import MODEL

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


STREAMS, FRAMES = 300, 20
OF_STREAMS = ModelFile.model_validate(
    {**MODEL, "outputs": {"y": {"dtype": "float32", "shape": ["batch", 1]}}, "task": {"kind": "binary_score"}}
)


def streams(candidate: np.ndarray, *limits: Limit, route: Route | None = None, floors: Any = None) -> Any:
    """The truth of streams in which every answer of the source is 0.9; a suite has 60 of the 300, or 1,200 of 6,000 rows."""
    reference = np.full((STREAMS * FRAMES, 1), 0.9, np.float32)
    columns = {"kind": np.repeat(np.arange(STREAMS) % 2, FRAMES)}
    unit = np.repeat(np.arange(STREAMS), FRAMES)
    sides = ({"y": side} for side in (reference, candidate.reshape(-1, 1).astype(np.float32)))
    return truth({"source": Pair(OF_STREAMS, *sides, columns, unit, 60, route, floors or {})}, limits)


def spoken(share: float, answer: float) -> np.ndarray:
    """Whole streams that are answered otherwise: the first ones, of both kinds."""
    found = np.full((STREAMS, FRAMES), 0.9)
    found[: round(share * STREAMS)] = answer
    return found


def test_the_unit_of_the_oracle_is_the_stream() -> None:
    """Where whole streams differ, a rate p has the standard error sqrt(p (1 - p) / 60), not one of 1,200 frames."""
    found = streams(spoken(0.04, 0.1), AGREEMENT)
    assert found.holds_by == pytest.approx(-0.02 / np.sqrt(0.04 * 0.96 / 60), rel=1e-6)
    assert found.verdict == "grey zone"
    by_kind = Limit(metric="worst_slice", by=("kind",), at_least=0.98, why="a limit for a test")
    found = streams(spoken(0.04, 0.1), by_kind)
    assert found.holds_by == pytest.approx(-0.02 / np.sqrt(0.04 * 0.96 / 30), rel=1e-6), "a kind has half the streams"


@pytest.mark.parametrize(
    ("count", "verdict"), [(0, "harmless"), (1, "grey zone"), (45, "grey zone"), (50, "must catch")]
)
def test_a_large_error_must_be_caught_where_a_suite_surely_holds_one(count: int, verdict: str) -> None:
    """A suite is a fifth of the pool: 50 streams with one such frame each are 10 in a suite."""
    answers = spoken(0, 0)
    answers[:count, 3] = 0.9 + 0.05
    limit = Limit(metric="float_error", at_most=10, why="a limit for a test")
    assert streams(answers, limit, floors={"y": 1e-3}).verdict == verdict
    many_frames_of_one = spoken(0, 0)
    many_frames_of_one[0] = 0.95
    assert streams(many_frames_of_one, limit, floors={"y": 1e-3}).verdict == "grey zone"


def test_the_oracle_sees_what_grows_with_time_in_streams() -> None:
    limit = Limit(metric="state_drift", at_most=0.01, why="a limit for a test")
    growing = 0.9 - np.linspace(0, 0.05, FRAMES) * np.ones((STREAMS, 1))
    assert streams(growing, limit).verdict == "must catch", "0.026 more in the later half"
    assert streams(np.full((STREAMS, FRAMES), 0.85), limit).verdict == "harmless", "as far apart all the time"


def test_the_oracle_sees_requests_that_change_sides_of_the_rule() -> None:
    """0.6 is the same answer as 0.9, and is escalated where the edge keeps what is surer than 0.7."""
    route = Route(confidence=0.7, why="a rule for a test")
    flips, change = (
        Limit(metric=metric, at_most=0.02, why="a limit for a test") for metric in ("route_flips", "escalation_change")
    )
    unsure = spoken(0.2, 0.6)
    assert streams(unsure, AGREEMENT, route=route).verdict == "harmless"
    assert streams(unsure, AGREEMENT, flips, route=route).worst == "route flips against source"
    assert streams(unsure, AGREEMENT, change, route=route).worst == "more are escalated against source"
    assert streams(unsure, AGREEMENT, flips, change, route=route).verdict == "must catch"
    by_hand = (0.02 - 0.2) / np.sqrt(0.2 * 0.8 / 60)
    assert streams(unsure, change, route=route).holds_by == pytest.approx(by_hand, rel=1e-6)


def test_a_drawn_suite_has_the_kinds_that_are_judged_apart_in_their_shares() -> None:
    """1,980 streams of 5 languages and 4 noises: 330 of them drawn have 66 and 82 or 83 of each, and never a few by chance."""
    streams = np.arange(1980)
    columns = {
        "language": np.repeat(streams % 5, 3),
        "noise": np.repeat(streams // 5 % 4, 3),
        "labels": np.arange(5940) % 2,
    }
    unit = np.repeat(streams, 3)
    kind = kinds_of(columns, unit, ("labels", "language", "noise", "missing"))
    assert kind is not None
    assert len(np.unique(kind)) == 20, "labels change within a stream and are no kind of it"
    witness = Witness(columns, unit, {}, None, kind)
    seen = np.zeros(1980)
    for seed in range(200):
        suite = draw(witness, 330, seed).suite
        assert len(suite) == 990
        assert (np.abs(np.bincount(columns["language"][suite]) / 3 - 66) <= 1).all()
        assert (np.abs(np.bincount(columns["noise"][suite]) / 3 - 82.5) <= 5).all()
        seen[unit[suite]] += 1
    assert abs(seen.mean() - 200 / 6) < 1e-9
    assert seen.std() < 1.2 * np.sqrt(200 * 1 / 6 * 5 / 6), (
        "every stream has the same chance, as in draws with replacement"
    )
    assert kinds_of(columns, unit, ("labels",)) is None


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
        return Caught("statistics", "everything")


@pytest.mark.parametrize(("kind", "caught", "alarms"), [(Blind, 0, 0), (Nervous, 1, 1)])
def test_a_blind_gate_and_a_nervous_one_are_found_out(kind: type[Gate], caught: int, alarms: int) -> None:
    gate = kind(CONFIG, None, None, {}, Path())  # type: ignore[arg-type]
    witness = Witness({}, np.arange(N), {"logits": scores()}, None)
    bench = Bench(CONFIG, [AGREEMENT], witness, SUITE, {}, gate)
    bad = bench.tried(Planted("answers", "flips", 0.2, 0), {"logits": flipped(scores(), 0.9)}, 0)
    good = bench.tried(Planted("benign", "nothing changed", 0, 0), {"logits": scores()}, 1)
    found = summary([bad, good], SUITE, N, SUITE)
    assert (found["must_catch"], found["caught"]) == (1, caught)
    assert (found["benign"], found["false_alarms"]) == (1, alarms)


def test_suites_that_are_smaller_for_want_of_a_pool_are_said_to_decide_less() -> None:
    row = {
        "place": "benign", "kind": "nothing changed", "size": 0.0, "seed": 1, "oracle": "harmless", "worst": "",
        "caught_by": "undecided", "caught_at": "agreement", "planted": True,
    }  # fmt: skip
    found = {
        "model": "m", "target": "t", "caught": 0, "must_catch": 0, "caught_by": {}, "false_alarms": 1, "benign": 1, "grey": 0,
        "suite": {"units": 833, "pool": 5000, "whole": 5000}, "rows": [row], "fixed_tolerances": {},
    }  # fmt: skip
    told = "833 rows or groups decide less than the 5,000 of the suite itself: a `pool` of 25,000 lets"
    assert told in printed(found)
    assert told not in printed(found | {"suite": {"units": 5000, "pool": 30000, "whole": 5000}})
    assert told not in printed(found | {"rows": [row | {"caught_by": "statistics"}]})


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
    assert found["must_catch"] >= 100
    assert found["caught"] == found["must_catch"]
    assert found["benign"] >= 100
    assert found["false_alarms"] == 0
    assert len({row["kind"] for row in found["rows"] if row["place"] != "benign"}) >= 24
    assert set(found["caught_by"]) == {"integrity", "structure", "statistics", "undecided"}
    assert all(found["caught_by"][how] for how in ("integrity", "structure", "statistics"))
    assert sum(found["caught_by"].values()) == found["caught"]
    assert found["fixed_tolerances"]["cosine 0.997"]["caught"] < found["fixed_tolerances"]["cosine 0.997"]["of"]
    assert found["fixed_tolerances"]["1e-5"]["of"] > 0


def test_what_is_answered_otherwise_alone_or_again_is_caught_by_that_law_alone(tried: Path) -> None:
    """In the suite's own batches these answers are the healthy ones: no other law, and no limit, can tell."""
    found = json.loads((tried / "out/tiny/targets/edge-x86-openvino-fp32/selftest/selftest.json").read_text())
    for way in ("again", "alone"):
        rows = [row for row in found["rows"] if row["kind"] == f"other answers, asked {way}"]
        must = [row for row in rows if row["oracle"] == "must catch"]
        assert must
        assert {row["oracle"] for row in rows} <= {"must catch", "grey zone"}
        assert {(row["caught_by"], row["caught_at"]) for row in must} == {("structure", "steady")}
    healthy = [row["caught_by"] for row in found["rows"] if row["kind"] == "asked in other batches"]
    assert healthy
    assert set(healthy) == {None}


def test_by_default_there_are_as_many_trials_as_the_bars_ask_for() -> None:
    """300 healthy trials and more, of five variants; the shipped models' counts are in docs/selftest.md."""
    assert 5 * healthy_draws(SEEDS) >= 300
    assert answer_seeds(SEEDS) > answer_seeds(1) >= 2


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


def test_a_pool_that_leaves_the_healthy_artifact_undecided_is_said_before_anything_is_planted(project: Path) -> None:
    """A sixth of 600 rows: of a hundred equal answers no more than 97 % are proven, and 98 % is asked."""
    done = run_in(project, "selftest", "tiny", "edge-x86-openvino-fp32", "--seeds", "1")
    assert done.returncode == 2, done.stderr
    assert "on suites of 100 rows or groups" in done.stderr
    assert "undecided in 8 of 8 (agreement" in done.stderr
    assert "the suite itself has 600: bring a `pool` of 3,000" in done.stderr


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
