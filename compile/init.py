"""A first config for a model, written from the model's own inputs and outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from compile.errors import ConfigError
from compile.project import Project
from compile.signature import DTYPES

TARGETS = ("cloud-cpu-onnxruntime", "edge-x86-onnxruntime", "edge-x86-openvino-fp32")
Row = tuple[str, str, list[int | str]]
Rows = list[Row]


def write_config(project: Project, name: str, origin: Path) -> Path:
    """Write `configs/models/NAME.yaml`; ConfigError where it exists or the file is of no known kind."""
    path = project.configs / "models" / f"{name}.yaml"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ConfigError(f"`{name}`: expected lower-case letters, digits, dot, dash, underscore")
    if path.exists():
        raise ConfigError(f"{path}: exists already; nothing was overwritten")
    if not origin.is_file():
        raise ConfigError(f"{origin}: no such file")
    if origin.suffix != ".onnx":
        raise ConfigError(
            f"{origin}: expected an .onnx file; for a torch module copy {project.configs}/models/fashion-cnn.yaml"
        )
    inputs, outputs = _of_onnx(origin)
    path.write_text(_text(_relative(project, origin), inputs, outputs))
    return path


def _relative(project: Project, origin: Path) -> str:
    absolute = origin.resolve()
    return absolute.relative_to(project.root).as_posix() if absolute.is_relative_to(project.root) else str(absolute)


def _of_onnx(origin: Path) -> tuple[Rows, Rows]:
    import onnx

    from compile.source import read_onnx

    graph = read_onnx(origin).graph
    constants = {tensor.name for tensor in graph.initializer}

    def rows(values: list[onnx.ValueInfoProto]) -> Rows:
        found: Rows = []
        for value in values:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
            if dtype not in DTYPES:
                raise ConfigError(f"{origin}: `{value.name}` is {dtype}; expected one of {', '.join(DTYPES)}")
            dims = value.type.tensor_type.shape.dim
            shape: list[int | str] = [
                d.dim_value if d.HasField("dim_value") else ("batch" if i == 0 else _axis(value.name, i, d.dim_param))
                for i, d in enumerate(dims)
            ]
            found.append((value.name, dtype, shape))
        return found

    return rows([v for v in graph.input if v.name not in constants]), rows(list(graph.output))


def _axis(tensor: str, index: int, name: str) -> str:
    """An axis name as YAML takes it; one of its own for each axis that the graph gives no name (some write `?`)."""
    plain = re.sub(r"\W", "_", name)
    return plain if re.match(r"[A-Za-z]", plain) else re.sub(r"\W", "_", f"{tensor}_{index}")


def _text(origin: str, inputs: Rows, outputs: Rows) -> str:
    named = sorted({part for _, _, shape in (*inputs, *outputs) for part in shape if isinstance(part, str)} - {"batch"})
    axes = [f"  {axis}: {{least: 1, typical: 64, most: 512}}   # TODO: the sizes that really occur" for axis in named]
    return "\n".join(
        [
            "source:",
            f"  onnx: {json.dumps(origin, ensure_ascii=False)}",
            "inputs:",
            *(_row(*row) for row in inputs),
            "outputs:",
            *(_row(*row) for row in outputs),
            *(["axes:", *axes] if axes else []),
            "suite: {npz: TODO.npz}         # TODO: arrays named like the inputs; `labels` say what is right, `id` names rows",
            "calibration: {npz: TODO.npz}   # TODO: other rows than the suite's, inputs alone",
            "# TODO: when are two answers the same? Keep the line that is true (docs/configs.md)",
            *_tasks(outputs[0]),
            "policy: default   # TODO: the limits; those of default.yaml are nobody's, copy it and write why (docs/verdicts.md)",
            "baseline: [cloud-cpu-onnxruntime]",
            "targets:",
            *(f"  - {target}" for target in TARGETS),
            "",
        ]
    )


def _tasks(output: Row) -> list[str]:
    """The strictest meaning of an answer as it stands, and as comments those that its shape allows."""
    name, dtype, shape = output
    last, output_key = shape[-1] if shape else 1, f"output: {_key(name)}"
    found = [("none", "", "a relative error of at most 10 %")]
    if dtype.startswith("float") and len(shape) <= 2 and last == 1:
        found += [("binary_score", ", threshold: 0.5", "the same side of the threshold")]
        found += [("regression", ", tolerance: 0.1", "a relative error of at most 10 %, and labels are numbers")]
    elif dtype.startswith("float") and len(shape) == 2:
        found += [("classification", "", f"the same largest of {last} scores")]
        found += [("embedding", "", "the same nearest neighbour")]
    elif dtype.startswith("float") and len(shape) == 3:
        found += [("sequence", "", f"the same largest of {last} scores at every step")]
        found += [("detection", ", threshold: 0.5", "the same boxes")] if last == 6 else []
    lines = [f"task: {{kind: {kind}, {output_key}{more}}}   # {meaning}" for kind, more, meaning in found]
    return [lines[0], *(f"# {line}" for line in lines[1:])]


def _row(name: str, dtype: str, shape: list[int | str]) -> str:
    return f"  {_key(name)}: {{dtype: {dtype}, shape: [{', '.join(str(part) for part in shape)}]}}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w.]*", name) else json.dumps(name, ensure_ascii=False)
