"""The source model, opened from what the config names: a torch builder with weights, an ONNX file, an MLflow URI.

The rule: nothing is unpickled. Weights come from safetensors or a `weights_only` checkpoint and must fit the module
name by name; a model that only a pickle could bring is refused unread, saying how to save it instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile import user_code
from compile.config import SourceConfig
from compile.errors import ConfigError, nearest
from compile.project import Project
from compile.yaml_file import line_of

if TYPE_CHECKING:
    import onnx
    import torch

PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
SAVE_INSTEAD = (
    "save it as `safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')` and name a `builder`, "
    "or log it to MLflow with `serialization_format='pt2'`, or export it to ONNX"
)

ONNX_STARTS = frozenset(
    bytes([byte]) for byte in (0x08, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA, 0xD2)
)
"""The tags of ModelProto's fields (onnx.proto: 1 to 8, 14, 20, 25, 26): what a serialized one can begin with."""
CHECKPOINT_STARTS = (b"PK", b"\x80\x02")
"""A zip archive, as torch has saved since 1.6, or the older format's pickle of protocol 2."""


@dataclass(frozen=True, slots=True)
class Source:
    """Exactly one is set: a module, a program that `torch.export` made, or an ONNX graph."""

    module: torch.nn.Module | None = None
    program: torch.export.ExportedProgram | None = None
    graph: onnx.ModelProto | None = None


OUT_OF_ORDER = "topologically sorted"
"""What the checker says of a graph whose nodes stand in another order than they are computed in."""


def file_of(project: Project, config: SourceConfig) -> Path | None:
    """The file whose bytes are the model, where the config names one."""
    name = config.weights or config.onnx
    return None if name is None else project.root / name


def file_key(config: SourceConfig) -> str:
    """The key of the config that names that file."""
    return "weights" if config.weights else "onnx"


def refuse_no_model(project: Project, model: str, config: SourceConfig) -> None:
    """ConfigError, naming the config's line, where that file is missing or begins as no model does; its rest is not read."""
    path, key = file_of(project, config), file_key(config)
    if path is None:
        return
    at = f"{line_of(project.config_of(model), 'source', key)}: source.{key}"
    if not path.is_file():
        raise ConfigError(f"{at}: no such file: {path}")
    with path.open("rb") as stream:
        head = stream.read(9)
    if not _begins_as_model(path, key, head):
        kind = "ONNX" if key == "onnx" else "safetensors" if path.suffix == ".safetensors" else "checkpoint"
        raise ConfigError(f"{at}: {path} is no {kind} file, by its first bytes")


def _begins_as_model(path: Path, key: str, head: bytes) -> bool:
    if key == "onnx":
        return head[:1] in ONNX_STARTS
    if path.suffix == ".safetensors":  # the length of its header, then the header, which is JSON
        return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    return head[:2] in CHECKPOINT_STARTS


def fetch(project: Project, made: Path, uri: str, tracking_uri: str) -> None:
    """The step that brings an MLflow model's files; a version or a run, so that the same URI means the same bytes."""
    if "@" in uri or uri.endswith("/latest"):
        raise ConfigError(f"source.mlflow: found `{uri}`, which moves; expected a version (models:/name/1) or a run")
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    try:
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(made / "model"))
    except (MlflowException, OSError) as error:
        raise ConfigError(f"source.mlflow: `{uri}` cannot be fetched from {tracking_uri}: {error}") from error


def open_source(project: Project, config: SourceConfig, fetched: Path | None) -> Source:
    """The model behind a config; `fetched` is the folder of an MLflow model's files."""
    if config.builder is not None:
        return Source(module=_module(project, config, fetched))
    if config.onnx is not None:
        return Source(graph=read_onnx(project.root / config.onnx))
    assert fetched is not None
    return _from_mlflow(_model_folder(fetched))


def _module(project: Project, config: SourceConfig, fetched: Path | None) -> torch.nn.Module:
    import torch

    assert config.builder is not None
    module = user_code.function(config.builder, "source.builder")()
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(f"source.builder `{config.builder}` gave {type(module).__name__}; expected a torch.nn.Module")
    if fetched is None:
        assert config.weights is not None
        weights = read_weights(project.root / config.weights)
    else:
        weights = _program(_model_folder(fetched)).state_dict
    fit(module, weights)
    return module.eval()


def read_weights(path: Path) -> Mapping[str, Any]:
    """A state dict from `.safetensors`, or from a checkpoint that holds tensors alone."""
    if not path.is_file():
        raise ConfigError(f"source.weights: no such file: {path}")
    if path.suffix in PICKLES:
        raise ConfigError(f"source.weights: {path} is a pickle, which can run code; it was not read. {SAVE_INSTEAD}")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors alike
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"source.weights: {path} holds more than tensors, or is damaged, and was not loaded ({first}). {SAVE_INSTEAD}"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ConfigError(f"source.weights: {path} is no state dict (name -> tensor). {SAVE_INSTEAD}")
    return found


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"source.weights: {path} is damaged or no safetensors file: {error}") from error


def fit(module: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    """Load `weights` into `module`; every name and shape must fit, and every number must be finite."""
    import torch

    wanted = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in weights.items()}
    missing, strange = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
    shapes = [f"{k} {found[k]} for {wanted[k]}" for k in wanted.keys() & found.keys() if found[k] != wanted[k]]
    if missing or strange or shapes:
        raise ConfigError(
            "source.weights: these are the weights of another model: "
            f"missing {missing[:4] or 'none'}, unknown {strange[:4] or 'none'}, other shapes {shapes[:4] or 'none'}"
        )
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ConfigError(f"source.weights: `{name}` holds NaN or infinite numbers; expected finite weights")
    module.load_state_dict(weights, strict=True)


def read_onnx(path: Path, where: str = "source.onnx") -> onnx.ModelProto:
    """A checked ONNX model; says so where the file is damaged or of an opset that nothing here reads."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ConfigError(f"{where}: no such file: {path}")
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ConfigError(f"{where}: {path} is damaged or no ONNX file: {error}") from error
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise ConfigError(
                f"{where}: {path} uses opset {entry.version}; the newest that is read here is {newest}. "
                f"Export it with `opset_version={min(newest, 20)}`"
            )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        if OUT_OF_ORDER in str(error) and (ordered := _in_order(model)) is not None:
            return ordered
        raise ConfigError(f"{where}: {path} is damaged: {str(error).splitlines()[0]}") from error
    return model


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The same graph with each node after those that it reads, as runtimes order it themselves; None where none is in order."""
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import TopologicalSortPass

    try:
        ordered = onnx_ir.to_proto(TopologicalSortPass()(onnx_ir.from_proto(model)).model)
        onnx.checker.check_model(ordered)
    except (ValueError, onnx_ir.passes.PassError, onnx.checker.ValidationError):
        return None
    return ordered


def _model_folder(fetched: Path) -> Path:
    """The folder with the `MLmodel` file."""
    for path in sorted(fetched.rglob("MLmodel")):
        return path.parent
    raise ConfigError("source.mlflow: what the URI names holds no `MLmodel` file; expected an MLflow model")


def _from_mlflow(folder: Path) -> Source:
    import yaml

    flavors = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    if "onnx" in flavors:
        return Source(graph=read_onnx(folder / flavors["onnx"]["data"]))
    if "pytorch" in flavors:
        return Source(program=_program(folder))
    known = nearest(next(iter(flavors)), ("onnx", "pytorch"))
    raise ConfigError(f"source.mlflow: found flavours {', '.join(flavors)}; expected onnx or pytorch{known}")


def _program(folder: Path) -> torch.export.ExportedProgram:
    """The exported program of a torch flavour in `pt2` format, once MLflow has found no pickle in the archive."""
    paths = sorted(folder.rglob("*.pt2"))
    if not paths:
        raise ConfigError(
            f"source.mlflow: the torch model in it is a pickle, which can run code; not read. {SAVE_INSTEAD}"
        )
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    import mlflow.pytorch
    import torch
    from mlflow.exceptions import MlflowException

    try:
        mlflow.pytorch.load_model(str(folder))
        return torch.export.load(paths[0])
    except MlflowException as error:
        raise ConfigError(f"source.mlflow: refused: {error.message.splitlines()[0]} {SAVE_INSTEAD}") from error
