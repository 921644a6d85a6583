"""Configs: what is refused, and whether the refusal tells a person where and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile.config import ModelFile, TargetFile, declared, load_model, load_target, names_of
from compile.errors import ConfigError
from compile.project import Project
from compile.yaml_file import load
from parity.policy import load_policy

REPOSITORY = Project(Path(__file__).parent.parent.parent)
GOOD = """source: {onnx: m.onnx}
inputs:
  x: {dtype: float32, shape: [batch, 3]}
outputs:
  y: {dtype: float32, shape: [batch, 2]}
suite: {npz: s.npz}
task: {kind: none}
targets: [cloud-cpu-onnxruntime]
"""


def parse(tmp_path: Path, text: str) -> ModelFile:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    return load(path, ModelFile)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, text)
    return str(caught.value)


def test_every_shipped_config_loads() -> None:
    for name in names_of(REPOSITORY, "models"):
        model = load_model(REPOSITORY, name)
        assert load_policy(REPOSITORY, model.policy).limits
        assert all(load_target(REPOSITORY, use.name) for use in model.uses)


def test_unknown_key_names_file_line_key_and_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("suite:", "siute:"))
    assert f"{tmp_path}/m.yaml:6: unknown key `siute`" in message
    assert "did you mean `suite`?" in message
    assert "`suite` is missing" in message


def test_unknown_nested_key_names_its_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("x: {dtype: float32,", "x: {dtyp: float32,"))
    assert "m.yaml:3: unknown key `inputs.x.dtyp`" in message
    assert "did you mean `dtype`?" in message


def test_wrong_choice_says_found_and_expected(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("kind: none", "kind: classifcation"))
    assert "m.yaml:7" in message
    assert "found 'classifcation'" in message
    assert "did you mean `classification`?" in message


def test_key_written_twice_is_refused(tmp_path: Path) -> None:
    assert "m.yaml:9: `task` is written twice" in refusal(tmp_path, GOOD + "task: {kind: none}\n")


def test_not_yaml_is_refused_with_its_place(tmp_path: Path) -> None:
    assert f"{tmp_path}/m.yaml:9: not valid YAML: " in refusal(tmp_path, GOOD + "\tx: 3\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD.replace("[batch, 3]", "batch"), "m.yaml:3: `inputs.x.shape`: found 'batch'; expected: a list"),
        (
            GOOD.replace("[batch, 3]", "[batch, 3.5]"),
            "`inputs.x.shape.1`: found '3.5'; expected: a whole number or a text",
        ),
        (GOOD + "preprocess: foo\n", "m.yaml:9: `preprocess`: found 'foo'; expected: `module:function`"),
        (GOOD + "axes: {batch: 4}\n", "`axes.batch`: found '4'; expected: keys with values (least, most, typical)"),
        (GOOD.replace("{onnx: m.onnx}", "{mlflow: x}"), "`source.mlflow`: found 'x'; expected: `models:/NAME/VERSION`"),
        (GOOD.replace("[cloud", "[{name: x, requird: no}, cloud"), "m.yaml:8: unknown key `targets.0.requird`"),
        (GOOD.replace("[cloud-cpu-onnxruntime]", "[]"), "m.yaml:8: `targets`: found '[]'; expected: at least 1"),
    ],
)
def test_one_complaint_in_plain_words(tmp_path: Path, text: str, complaint: str) -> None:
    message = refusal(tmp_path, text)
    assert complaint in message
    assert len(message.splitlines()) == 1


def test_empty_file_is_refused(tmp_path: Path) -> None:
    assert "found no keys" in refusal(tmp_path, "")


@pytest.mark.parametrize(
    "source",
    ["{}", "{onnx: a, mlflow: 'models:/a/1'}", "{builder: 'a:b'}", "{weights: w}", "{builder: 'a:b', onnx: o}"],
)
def test_source_must_be_one_of_three_kinds(tmp_path: Path, source: str) -> None:
    assert "`builder` with `weights`" in refusal(tmp_path, GOOD.replace("{onnx: m.onnx}", source))


@pytest.mark.parametrize(
    "source",
    ["{builder: 'a.b:c', weights: w.pt}", "{mlflow: 'models:/a/1'}", "{builder: 'a:b', mlflow: 'runs:/r/m'}"],
)
def test_the_other_sources_are_taken(tmp_path: Path, source: str) -> None:
    assert parse(tmp_path, GOOD.replace("{onnx: m.onnx}", source)).source.onnx is None


def test_state_must_join_an_input_and_an_output(tmp_path: Path) -> None:
    assert "must map an input to an output" in refusal(tmp_path, GOOD + "state: {x: z}\n")


def test_task_output_must_exist(tmp_path: Path) -> None:
    assert "task.output `z` is not an output" in refusal(
        tmp_path, GOOD.replace("{kind: none}", "{kind: none, output: z}")
    )


def test_a_complaint_about_the_whole_names_the_line_of_its_key(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("{kind: none}", "{kind: none, output: z}"))
    assert "m.yaml:7: task.output `z` is not an output" in message
    assert "m.yaml:9: state `x: z` must map" in refusal(tmp_path, GOOD + "state: {x: z}\n")


def test_of_several_outputs_one_is_the_answer(tmp_path: Path) -> None:
    several = GOOD.replace("suite:", "  z: {dtype: float32, shape: [batch, 2]}\nsuite:")
    assert "which of y, z is the answer?" in refusal(tmp_path, several.replace("kind: none", "kind: regression"))
    assert parse(tmp_path, several.replace("kind: none", "kind: regression, output: z")).task.output == "z"


def test_a_config_is_not_called_as_its_source_is(tmp_path: Path) -> None:
    project = a_project(tmp_path, GOOD.replace("{onnx: m.onnx}", "{mlflow: 'models:/m/1'}"))
    with pytest.raises(ConfigError, match=r"m\.yaml:1: source\.mlflow: the source is called `m` as this config is"):
        load_model(project, "m")


def test_a_toolchain_that_is_not_python_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("PACKAGES = ()\ndef probe(:\n")
    with pytest.raises(ConfigError, match=r"broken\.py:2: is not Python"):
        declared(tmp_path / "broken.py", "PACKAGES")


def test_optional_target_needs_a_reason(tmp_path: Path) -> None:
    text = GOOD.replace("[cloud-cpu-onnxruntime]", "[{name: edge-x86-onnxruntime, required: false}]")
    assert "needs a `why`" in refusal(tmp_path, text)


def test_axes_are_ordered(tmp_path: Path) -> None:
    assert "least <= typical <= most" in refusal(tmp_path, GOOD + "axes: {batch: {least: 4, typical: 2}}\n")


def a_project(tmp_path: Path, model: str) -> Project:
    import shutil

    shutil.copytree(REPOSITORY.configs, tmp_path / "configs")
    (tmp_path / "configs" / "models" / "m.yaml").write_text(model)
    return Project(tmp_path)


def test_two_targets_of_one_name_are_refused(tmp_path: Path) -> None:
    project = a_project(tmp_path, GOOD.replace("[cloud-cpu", "[cloud-cpu-onnxruntime, cloud-cpu"))
    with pytest.raises(ConfigError, match="`cloud-cpu-onnxruntime` is listed twice"):
        load_model(project, "m")


def test_unknown_target_lists_what_there_is(tmp_path: Path) -> None:
    project = a_project(tmp_path, GOOD.replace("cloud-cpu-onnxruntime", "cloud-cpu-onxruntime"))
    with pytest.raises(ConfigError, match=r"did you mean `cloud-cpu-onnxruntime`\?"):
        load_model(project, "m")


@pytest.mark.parametrize("more", ["policy: defualt\n", "baseline: [cloud-cpu-onxruntime]\n"])
def test_unknown_names_come_with_the_line_that_says_them(tmp_path: Path, more: str) -> None:
    project = a_project(tmp_path, GOOD + more)
    with pytest.raises(
        ConfigError, match=r"m\.yaml:9: (policy|baseline): .*did you mean `(default|cloud-cpu-onnxruntime)`\?"
    ):
        load_model(project, "m")


def test_baseline_must_be_one_of_the_targets(tmp_path: Path) -> None:
    project = a_project(tmp_path, GOOD + "baseline: [edge-x86-openvino]\n")
    with pytest.raises(ConfigError, match="is not among this model's targets"):
        load_model(project, "m")


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean `fashion-cnn`\?"):
        load_model(REPOSITORY, "fashion-cn")


def test_int8_cannot_come_from_a_float_dialect(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("role: edge\nhardware: x\ntoolchain: onnxruntime\nprecision: int8\ndialect: float32\n")
    with pytest.raises(ConfigError, match="precision int8 cannot be compiled from dialect float32"):
        load(path, TargetFile)


def test_an_option_that_the_toolchain_does_not_take_is_refused_with_its_line(tmp_path: Path) -> None:
    project = a_project(tmp_path, GOOD)
    path = tmp_path / "configs" / "targets" / "cloud-cpu-onnxruntime.yaml"
    path.write_text(path.read_text().replace("options: {threads: 1}", "options:\n  thread: 1"))
    with pytest.raises(
        ConfigError, match=r"yaml:8: options: unknown `thread`; onnxruntime takes threads; did you mean `threads`"
    ):
        load_target(project, "cloud-cpu-onnxruntime")


def test_digest_ignores_spelling_and_hears_meaning(tmp_path: Path) -> None:
    one = parse(tmp_path, GOOD).digest
    assert parse(tmp_path, "# a comment\n" + GOOD).digest == one
    assert parse(tmp_path, GOOD.replace("[batch, 2]", "[batch, 4]")).digest != one
