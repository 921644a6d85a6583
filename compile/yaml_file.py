"""A YAML file parsed into a strict pydantic model.

Every complaint names the file, the line, the key, what was found, what was expected, and the nearest known
name. Keys written twice are refused: YAML itself would silently keep the last.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from compile.errors import ConfigError

Document = TypeVar("Document", bound=BaseModel)
Where = tuple[int | str, ...]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(path: Path, kind: type[Document]) -> Document:
    """Parse `path` as `kind`; raises ConfigError with every complaint, one paragraph each."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=LOADER)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: found no keys; expected a mapping such as `{next(iter(kind.model_fields))}: …`")
    lines: dict[Where, int] = {}
    content = _value(node, (), lines, path)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        complaints = [_complaint(path, kind, lines, detail) for detail in error.errors()]
        raise ConfigError("\n".join(complaints)) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the closest known name, else the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""


def _value(node: yaml.Node, where: Where, lines: dict[Where, int], path: Path) -> object:
    lines[where] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, where, lines, path)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*where, index), lines, path) for index, item in enumerate(node.value)]
    return yaml.SafeLoader("").construct_object(node)


def _mapping(node: yaml.MappingNode, where: Where, lines: dict[Where, int], path: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        if key in found:
            at = key_node.start_mark.line + 1
            raise ConfigError(f"{path}:{at}: `{key}` is written twice; keep one of the two")
        found[key] = _value(value_node, (*where, key), lines, path)
        lines[(*where, key)] = key_node.start_mark.line + 1
    return found


def _complaint(path: Path, kind: type[BaseModel], lines: dict[Where, int], detail: ErrorDetails) -> str:
    where = detail["loc"]
    line = next((lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in lines), 1)
    key = ".".join(str(part) for part in where)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(kind, where[:-1])
        hint = nearest(str(where[-1]), known)
        return f"{path}:{line}: unknown key `{key}`; expected one of {', '.join(sorted(known))}{hint}"
    if detail["type"] == "missing":
        return f"{path}:{line}: `{key}` is missing; expected it here"
    found = repr(detail["input"])[:80]
    hint = nearest(str(detail["input"]), _choices(detail))
    return f"{path}:{line}: `{key}`: found {found}; expected: {detail['msg']}{hint}"


def _choices(detail: ErrorDetails) -> list[str]:
    expected = str(detail.get("ctx", {}).get("expected", ""))
    return [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]


def _fields_at(kind: type[BaseModel], where: Where) -> set[str]:
    """The field names that the model at `where` knows; follows nested models through containers."""
    kinds = [kind]
    for part in where:
        annotations = [k.model_fields[part].annotation for k in kinds if part in k.model_fields]
        kinds = [m for a in annotations for m in _models_in(a)] or kinds
    return {name for k in kinds for name in k.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
