"""A found recipe written down where it takes effect: as a config beside the model's own, or in it.

In: the trial that was chosen. Out: the files written, and which other targets the recipe is shared with. The rule: a config
that a person wrote is touched only when asked for, and then only where the recipe stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compile.config import TargetFile, load_model, load_target
from compile.errors import ConfigError
from compile.line import Line
from compile.project import Project
from parity.tune.record import write_whole
from parity.tune.trial import Trial
from parity.tune.written import with_recipe, with_terms

MARK = "# Written by `lockstep tune"
SHARE_STEP = 100
"""A lower `quantized_share` is written in whole hundredths, rounded down."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The model and target to judge, the files written, and the targets that share the recipe (`refused`: those that will
    not be built with it, for their `quantized_share`)."""

    model: str
    target: str
    files: tuple[Path, ...]
    shared: tuple[str, ...]
    refused: tuple[str, ...]


def tuned_name(model: str) -> str:
    return f"{model}-tuned"


def refuse_foreign(line: Line) -> None:
    """ConfigError where the name of the config to be written is that of one which a person wrote."""
    _refuse_written_by_hand(_model_file(line.project, tuned_name(line.model)))


def _refuse_written_by_hand(path: Path) -> None:
    if path.is_file() and not path.read_text().startswith(MARK):
        raise ConfigError(f"{path}: exists and was not written by `lockstep tune`; rename it, or tune with --in-place")


def adopt(line: Line, name: str, target: TargetFile, found: Trial, *, in_place: bool) -> Adopted:
    """Write the recipe as config; a target that needs another dialect or a lower share gets a config of its own."""
    project = line.project
    heading = (
        f"{MARK} {line.model} {name}`, from configs/models/{line.model}.yaml; what that says is kept but `quantize`.\n"
    )
    terms = _terms(target, found)
    own_name = f"{name}-for-{line.model}" if terms else name
    files: list[Path] = []
    if terms:
        files.append(project.configs / "targets" / f"{own_name}.yaml")
        _refuse_written_by_hand(files[0])
        of_target = (project.configs / "targets" / f"{name}.yaml").read_text()
        write_whole(files[0], with_terms(of_target, terms, f"{MARK} {line.model} {name}`: {name} for this model.\n"))
    text = _model_file(project, line.model).read_text()
    model = line.model if in_place else tuned_name(line.model)
    renamed = (name, own_name) if terms else None
    files.append(_model_file(project, model))
    body = text.removeprefix(text.splitlines(keepends=True)[0]) if text.startswith(MARK) and not in_place else text
    write_whole(files[-1], with_recipe(body, found.recipe, renamed, "" if in_place else heading))
    load_model(project, model)
    shared = [u.name for u in line.config.uses if u.name != name and _speaks(project, u.name, found)]
    refused = [other for other in shared if load_target(project, other).quantized_share > found.share]
    return Adopted(model, own_name, tuple(files), tuple(shared), tuple(refused))


def _terms(target: TargetFile, found: Trial) -> dict[str, float | str]:
    """What the target's config must say otherwise for this recipe."""
    terms: dict[str, float | str] = {}
    if found.recipe.dialect != target.dialect:
        terms["dialect"] = found.recipe.dialect
    if found.share < target.quantized_share:
        terms["quantized_share"] = int(found.share * SHARE_STEP) / SHARE_STEP
    return terms


def _speaks(project: Project, name: str, found: Trial) -> bool:
    return load_target(project, name).dialect == found.recipe.dialect


def _model_file(project: Project, model: str) -> Path:
    return project.configs / "models" / f"{model}.yaml"
