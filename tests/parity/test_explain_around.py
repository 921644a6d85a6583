"""What is done to a whole model's answers, and how what differs is called: by its task, and by the source's own names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compile.config import TaskConfig
from parity.explain.diagnose import Diagnosis, _broken
from parity.explain.experiment.ladder import Rung, Standing
from parity.explain.experiment.rungs import Places
from parity.explain.mistake.hypotheses import Bench, tried
from parity.explain.mistake.postprocessing import suspicions
from tests.parity.foreign import SIGNATURE, WEIGHTS, case, found_for, network

RNG = np.random.default_rng(4)
TIES = [1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 1 + 2.0**-8 + 2.0**-20]
"""Beside bfloat16's step of 2^-7 from 1 on: two ties, one of them below nought, and one just above."""


def behind(*operators: str) -> onnx.ModelProto:
    """`network()` with operators behind it that read nothing else."""
    graph = network()
    graph.graph.node[-1].output[0] = "given_0"
    for place, operator in enumerate(operators):
        given = "y" if place == len(operators) - 1 else f"given_{place + 1}"
        graph.graph.node.append(helper.make_node(operator, [f"given_{place}"], [given], name=f"post_{place}"))
    return graph


@pytest.mark.parametrize(
    ("operators", "said"),
    [
        (("Round",), "the candidate gives `y` rounded to whole numbers"),
        (("Floor",), "the candidate gives `y` rounded down to whole numbers"),
        (("Sin", "Round"), "what the model gives passes through Sin, Round before it is `y`"),
    ],
)
def test_operators_behind_the_whole_model_are_postprocessing_and_no_layers(
    tmp_path: Path, operators: tuple[str, ...], said: str
) -> None:
    cause = found_for(tmp_path, behind(*operators))
    assert (cause.kind, said in cause.sentence) == ("pre/post-processing", True), cause.sentence


def diagnosed(folder: Path, candidate: onnx.ModelProto) -> Diagnosis:
    outputs = folder / "outputs"
    outputs.mkdir()
    one = case(folder, candidate)
    for path, answer in zip(one.files, one.answers_of(candidate), strict=True):
        np.savez(outputs / path.name, **answer)  # type: ignore[arg-type]  # numpy's stub forbids ** of arrays
    broken = Standing(Rung("artifact as found", outputs), None, 0, 128, 1.0, 1.0, 1e5, (), broke=True)
    return _broken(Places(folder, folder, folder, folder, None, None), one, [broken], broken, [])


def test_a_mistake_behind_the_model_names_no_layer_and_one_inside_does(tmp_path: Path) -> None:
    (tmp_path / "behind").mkdir()
    assert not diagnosed(tmp_path / "behind", behind("Round")).diverging
    scaled = network({**WEIGHTS, "v": 1.5 * WEIGHTS["v"]})
    assert [one.module for one in diagnosed(tmp_path, scaled).diverging] == ["net.last"]


def bench(found: np.ndarray, sound: np.ndarray, places: str = "classes") -> Bench:
    inputs = [{"x": np.zeros((len(found), 6), np.float32)}]
    return Bench(SIGNATURE, lambda feeds: feeds, inputs, [{"y": sound}], [{"y": found}], places=places)


def test_answers_stored_as_half_are_told_as_such() -> None:
    sound = RNG.standard_normal((64, 5)).astype(np.float32)
    made = bench(sound.astype(np.float16).astype(np.float32), sound)
    best = tried(made, list(suspicions(made, {})))[0]
    assert (best.name, best.score) == ("the candidate gives `y` rounded to float16", 1)


def test_answers_stored_as_bfloat16_are_told_as_such_ties_to_even() -> None:
    import ml_dtypes

    sound = RNG.standard_normal((64, 5)).astype(np.float32)
    sound[: len(TIES), 0] = sound[: len(TIES), 1] = TIES
    made = bench(sound.astype(ml_dtypes.bfloat16).astype(np.float32), sound)
    best = tried(made, list(suspicions(made, {})))[0]
    assert (best.name, best.score) == ("the candidate gives `y` rounded to bfloat16", 1)


def test_noise_is_no_rounding() -> None:
    sound = RNG.standard_normal((64, 5)).astype(np.float32)
    made = bench(sound + RNG.uniform(-(2.0**-11), 2.0**-11, sound.shape).astype(np.float32), sound)
    assert not any(trial.holds for trial in tried(made, list(suspicions(made, {}))))


def test_a_changed_parameter_is_told_by_the_sources_own_name(tmp_path: Path) -> None:
    zeroed = network({**WEIGHTS, "b": 0 * WEIGHTS["b"]})
    assert "`b` is 0 times the source's" in found_for(tmp_path, zeroed).sentence


def test_two_changed_parameters_of_one_module_are_both_named(tmp_path: Path) -> None:
    both = network({**WEIGHTS, "w": RNG.permutation(WEIGHTS["w"]), "b": RNG.permutation(WEIGHTS["b"])})
    assert "(`w`, `b`)" in found_for(tmp_path, both).sentence


@pytest.mark.parametrize(
    ("kind", "places"), [("classification", "classes"), ("embedding", "dimensions"), ("none", "numbers")]
)
def test_what_is_permuted_is_called_by_the_task(tmp_path: Path, kind: str, places: str) -> None:
    turned = network()
    matrix = next(one for one in turned.graph.initializer if one.name == "v")
    matrix.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(WEIGHTS["v"][:, ::-1]), "v"))
    one = case(tmp_path, turned)
    task = TaskConfig.model_validate({"kind": kind})
    one = replace(one, config=one.config.model_copy(update={"task": task}))
    made = one.bench(one.exact, one.answers_of(turned))
    assert tried(made, list(suspicions(made, {})))[0].name.startswith(f"the candidate's {places} of `y` are permuted")
