"""The configs a person writes: one file per model and per target. Strict; read once, at the door."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from compile.digest import of_document
from compile.errors import ConfigError, nearest
from compile.project import Project
from compile.signature import BATCH, Axis, DType, Signature, Tensor
from compile.yaml_file import line_of, load


def _spelled(pattern: str, words: str) -> AfterValidator:
    """A text of one spelling; `words` tell a person what it is."""

    def checked(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(checked)


FunctionName = Annotated[str, _spelled(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "`module:function`, as `examples.net:build`")]
Name = Annotated[str, _spelled(r"[a-z0-9][a-z0-9._-]*", "a name of lower-case letters, digits, `.`, `_` and `-`")]
MlflowUri = Annotated[str, _spelled(r"(models|runs):/.+", "`models:/NAME/VERSION` or `runs:/RUN/PATH`")]
Kind = Literal["models", "targets", "policies"]
Precision = Literal["float32", "float16", "int8"]
Dialect = Literal["float32", "float16", "uint8-asymmetric", "int8-symmetric"]
TaskKind = Literal["classification", "binary_score", "regression", "embedding", "sequence", "detection", "none"]


class Strict(BaseModel):
    """Unknown keys are refused and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def digest(self) -> str:
        """Digest of the meaning, not of the spelling: comments and key order do not count."""
        return of_document(self.model_dump(mode="json"))


class SourceConfig(Strict):
    """Exactly one of: a torch builder with weights, an ONNX file, or an MLflow URI."""

    builder: FunctionName | None = None
    weights: str | None = None
    onnx: str | None = None
    mlflow: MlflowUri | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        torch = self.builder is not None and (self.weights is None) == (self.mlflow is not None)
        alone = self.builder is None and self.weights is None and (self.onnx is None) != (self.mlflow is None)
        if not (alone or (torch and self.onnx is None)):
            raise ValueError("`builder` with `weights` (or with `mlflow` to read them from), or `onnx`, or `mlflow`")
        return self


class TensorConfig(Strict):
    dtype: DType
    shape: tuple[int | str, ...]


class AxisConfig(Strict):
    """Sizes a named axis may take; `typical` is what latency is measured at."""

    least: int = Field(default=1, ge=1)
    typical: int = Field(default=1, ge=1)
    most: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> AxisConfig:
        if not self.least <= self.typical <= self.most:
            raise ValueError("least <= typical <= most")
        return self


class DataConfig(Strict):
    """An `.npz` file, or a `module:function` that yields batches (dicts of arrays)."""

    npz: str | None = None
    function: FunctionName | None = None
    files: tuple[str, ...] = ()
    batch: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _one_origin(self) -> DataConfig:
        if (self.npz is None) == (self.function is None):
            raise ValueError("exactly one of `npz` or `function`")
        return self


class TaskConfig(Strict):
    """What the model's answers mean. `output` is needed where there are several outputs."""

    kind: TaskKind
    output: str | None = None
    threshold: float = 0.5
    tolerance: float = Field(default=0.1, gt=0)
    postprocess: FunctionName | None = None


class QuantizeConfig(Strict):
    """How to calibrate; every target of one dialect shares the graph that this gives."""

    algorithm: Literal["minmax", "kl"] = "minmax"
    smoothing: float | None = Field(default=0.75, ge=0, le=1)
    embeddings: bool = True
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    keep_float: tuple[str, ...] = ()


class TargetUse(Strict):
    """One target of a model; `required: false` lets a release go out without it, for the reason in `why`."""

    name: Name
    required: bool = True
    why: str | None = None

    @model_validator(mode="after")
    def _reason(self) -> TargetUse:
        if not self.required and not self.why:
            raise ValueError("`required: false` needs a `why`")
        return self


class ModelFile(Strict):
    """`configs/models/NAME.yaml`."""

    description: str = ""
    source: SourceConfig
    inputs: dict[str, TensorConfig] = Field(min_length=1)
    outputs: dict[str, TensorConfig] = Field(min_length=1)
    axes: dict[str, AxisConfig] = {}
    state: dict[str, str] = {}
    preprocess: FunctionName | None = None
    suite: DataConfig
    calibration: DataConfig | None = None
    pool: DataConfig | None = None
    tuning: DataConfig | None = None
    quantize: QuantizeConfig = QuantizeConfig()
    task: TaskConfig
    policy: Name = "default"
    baseline: tuple[Name, ...] = ()
    targets: tuple[Name | TargetUse, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> ModelFile:
        for given, fed_by in self.state.items():
            if given not in self.inputs or fed_by not in self.outputs:
                raise ValueError(f"state `{given}: {fed_by}` must map an input to an output")
        answers = [name for name in self.outputs if name not in self.state.values()]
        if len(answers) > 1 and self.task.kind != "none" and self.task.output is self.task.postprocess is None:
            raise ValueError(f"task.output is missing: which of {', '.join(answers)} is the answer?")
        if self.task.output is not None and self.task.output not in self.outputs:
            raise ValueError(
                f"task.output `{self.task.output}` is not an output{nearest(self.task.output, self.outputs)}"
            )
        return self

    def data(self, part: str) -> DataConfig | None:
        """Where the rows of the suite, the calibration, the pool or the tuning come from."""
        parts = {"suite": self.suite, "calibration": self.calibration, "pool": self.pool, "tuning": self.tuning}
        return parts[part]

    @property
    def uses(self) -> tuple[TargetUse, ...]:
        return tuple(t if isinstance(t, TargetUse) else TargetUse(name=t) for t in self.targets)

    @property
    def classes(self) -> int | None:
        """How many classes a classifier's answer scores; None where it does not say: bare answers, a `postprocess`, a free axis."""
        named = [t for t in self.signature.answers if self.task.output in (None, t.name)]
        if self.task.kind != "classification" or self.task.postprocess or not named or named[0].dtype.startswith("int"):
            return None
        size = named[0].shape[-1] if len(named[0].shape) > 1 else None
        return size if isinstance(size, int) and size > 1 else None

    @property
    def signature(self) -> Signature:
        tensors = {k: Tensor(k, v.dtype, v.shape) for k, v in (self.inputs | self.outputs).items()}
        named = {part for tensor in tensors.values() for part in tensor.shape if isinstance(part, str)}
        axes = {BATCH: AxisConfig()} | self.axes
        return Signature(
            inputs=tuple(Tensor(k, v.dtype, v.shape) for k, v in self.inputs.items()),
            outputs=tuple(Tensor(k, v.dtype, v.shape) for k, v in self.outputs.items()),
            axes={name: _axis(axes.get(name, AxisConfig())) for name in sorted(named)},
            state=dict(self.state),
        )


def _axis(config: AxisConfig) -> Axis:
    return Axis(config.least, config.typical, config.most)


class LimitsConfig(Strict):
    """What one job of this target may take before it is ended."""

    time_s: float = Field(default=600, gt=0)
    memory_gib: float = Field(default=8, gt=0)
    memory: Literal["address-space", "resident"] = "address-space"


class TargetFile(Strict):
    """`configs/targets/NAME.yaml`: one piece of hardware with its runtime and precision."""

    description: str = ""
    role: Literal["cloud", "edge"]
    hardware: str
    toolchain: Name
    precision: Precision
    dialect: Dialect
    options: dict[str, int | float | str | bool | tuple[int, ...]] = {}
    limits: LimitsConfig = LimitsConfig()
    quantized_share: float = Field(default=0.9, ge=0, le=1)
    reproducible: bool = True
    reason: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TargetFile:
        if not self.reproducible and not self.reason:
            raise ValueError("`reproducible: false` needs a `reason`")
        if (self.precision == "int8") != self.dialect.endswith("symmetric"):
            raise ValueError(f"precision {self.precision} cannot be compiled from dialect {self.dialect}")
        return self


def load_model(project: Project, name: str) -> ModelFile:
    """The config of one model; refuses targets and policies that do not exist, and names used twice."""
    path = _file(project, "models", name)
    model = load(path, ModelFile)
    if (model.source.mlflow or "").startswith(f"models:/{name}/"):
        at = line_of(path, "source", "mlflow")
        raise ConfigError(
            f"{at}: source.mlflow: the source is called `{name}` as this config is, and releases are published under the "
            "config's name: give the config another name"
        )
    names = [use.name for use in model.uses]
    for index, target in enumerate(names):
        _refuse_unknown(project, "targets", target, path, ("targets", index))
        if target in names[:index]:
            at = line_of(path, "targets", index)
            raise ConfigError(f"{at}: targets: `{target}` is listed twice; keep one of the two")
    for index, target in enumerate(model.baseline):
        if target not in names:
            at = line_of(path, "baseline", index)
            raise ConfigError(f"{at}: baseline: `{target}` is not among this model's targets{nearest(target, names)}")
        if load_target(project, target).role != "cloud":
            at = line_of(path, "baseline", index)
            raise ConfigError(f"{at}: baseline: `{target}` is an edge target; expected one whose role is cloud")
    _refuse_unknown(project, "policies", model.policy, path, ("policy",))
    return model


def load_target(project: Project, name: str) -> TargetFile:
    """The config of one target; its toolchain must be a file in `compile/targets/`."""
    path = _file(project, "targets", name)
    target = load(path, TargetFile)
    known = toolchains()
    if target.toolchain not in known:
        found = f"found `{target.toolchain}`; expected one of {', '.join(known)}"
        raise ConfigError(f"{line_of(path, 'toolchain')}: toolchain: {found}{nearest(target.toolchain, known)}")
    options = declared(toolchain_file(target.toolchain), "OPTIONS")
    for option in target.options:
        if option not in options:
            found = f"unknown `{option}`; {target.toolchain} takes {', '.join(options)}"
            raise ConfigError(f"{line_of(path, 'options', option)}: options: {found}{nearest(option, options)}")
    return target


def toolchains() -> list[str]:
    """Every toolchain: the leaf files in `compile/targets/`."""
    return sorted(p.stem for p in toolchain_file("x").parent.glob("[a-z]*.py"))


def toolchain_file(name: str) -> Path:
    return Path(__file__).parent / "targets" / f"{name}.py"


@cache
def declared(toolchain: Path, what: Literal["PACKAGES", "OPTIONS"]) -> tuple[str, ...]:
    """What a toolchain's file says of itself at its top."""
    return tuple(_literal(toolchain, what) or ())


def declared_options(
    toolchain: Path, what: Literal["PINNED", "DEFAULTS"]
) -> dict[str, int | float | str | bool] | None:
    """The options that pin a runtime's float precision, or leave it to the runtime; None where its file names none."""
    found = _literal(toolchain, what)
    return None if found is None else dict(found)


def _literal(toolchain: Path, what: str) -> Any:
    """What a toolchain's file assigns to a name at its top; read without importing it."""
    try:
        tree = ast.parse(toolchain.read_text())
    except SyntaxError as error:
        raise ConfigError(f"{toolchain}:{error.lineno}: is not Python: {error.msg}") from error
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == what]
    return ast.literal_eval(values[0]) if values else None


def names_of(project: Project, kind: Kind) -> list[str]:
    return sorted(p.stem for p in (project.configs / kind).glob("*.yaml"))


def _file(project: Project, kind: Kind, name: str) -> Path:
    path = project.configs / kind / f"{name}.yaml"
    if not path.is_file():
        known = names_of(project, kind)
        raise ConfigError(f"{path}: no such config; {kind} here: {', '.join(known) or 'none'}{nearest(name, known)}")
    return path


def _refuse_unknown(project: Project, kind: Kind, name: str, path: Path, where: tuple[int | str, ...]) -> None:
    known = names_of(project, kind)
    if name not in known:
        found = f"found `{name}`; {kind} here: {', '.join(known) or 'none'}{nearest(name, known)}"
        raise ConfigError(f"{line_of(path, *where)}: {where[0]}: {found}")
