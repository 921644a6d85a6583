"""A YAML file parsed into a strict pydantic model.

Every complaint names the file, the line, the key, what was found, what was expected, and the nearest known
name. Keys written twice are refused: YAML itself would silently keep the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from compile.errors import ConfigError, nearest

Document = TypeVar("Document", bound=BaseModel)
Where = tuple[int | str, ...]
Lines = dict[Where, int]
WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "string_type": "a text",
    "tuple_type": "a list",
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(path: Path, kind: type[Document]) -> Document:
    """Parse `path` as `kind`; raises ConfigError with every complaint, one paragraph each."""
    node = _composed(path)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: found no keys; expected a mapping such as `{next(iter(kind.model_fields))}: …`")
    lines: Lines = {}
    content = _value(node, (), lines, path)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaints(path, kind, lines, error))) from error


def line_of(path: Path, *where: int | str) -> str:
    """`path:line` of a key or a list's item in a file that loads; of the nearest key above it where it is not there."""
    node, lines = _composed(path), Lines()
    assert node is not None
    _value(node, (), lines, path)
    return f"{path}:{next(lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in lines)}"


def _composed(path: Path) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(path.read_text(encoding="utf-8"), Loader=LOADER)
        return node
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{at}: not valid YAML: {error.context or 'here'}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def _value(node: yaml.Node, where: Where, lines: Lines, path: Path) -> object:
    lines[where] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, where, lines, path)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*where, index), lines, path) for index, item in enumerate(node.value)]
    return yaml.SafeLoader("").construct_object(node)


def _mapping(node: yaml.MappingNode, where: Where, lines: Lines, path: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        if key in found:
            at = key_node.start_mark.line + 1
            raise ConfigError(f"{path}:{at}: `{key}` is written twice; keep one of the two")
        found[key] = _value(value_node, (*where, key), lines, path)
        lines[(*where, key)] = key_node.start_mark.line + 1
    return found


def _complaints(path: Path, kind: type[BaseModel], lines: Lines, error: ValidationError) -> list[str]:
    """One a place. Where a value may be of several kinds, what is said of the kind that it resembles."""
    found: dict[Where, list[ErrorDetails]] = {}
    for detail in error.errors():
        found.setdefault(_written(detail, lines), []).append(detail)
    inner = {where[:n] for where in found for n in range(len(where))}
    return [_complaint(path, kind, lines, where, found[where]) for where in found if where not in inner or not where]


def _written(detail: ErrorDetails, lines: Lines) -> Where:
    """Where in the file, without the names of the kinds that pydantic tried there."""
    where: Where = ()
    for part in detail["loc"]:
        if (*where, part) in lines:
            where = (*where, part)
    return (*where, detail["loc"][-1]) if detail["type"] == "missing" else where


def _complaint(path: Path, kind: type[BaseModel], lines: Lines, where: Where, details: list[ErrorDetails]) -> str:
    detail = details[0]
    at = f"{path}:{lines.get(where) or lines[where[:-1]]}"
    key = ".".join(str(part) for part in where)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(kind, where[:-1])
        hint = nearest(str(where[-1]), known)
        return f"{at}: unknown key `{key}`; expected one of {', '.join(sorted(known))}{hint}"
    if detail["type"] == "missing":
        return f"{at}: `{key}` is missing; expected it here"
    expected = " or ".join(dict.fromkeys(_expected(kind, where, detail) for detail in details))
    if not where:  # said of the whole document; such a sentence starts with the key that it is about
        about: Where = tuple(expected.split(" ")[0].split("."))
        return f"{path}:{lines.get(about, lines[where])}: {expected}"
    hint = nearest(str(detail["input"]), _choices(detail))
    return f"{at}: `{key}`: found {str(detail['input'])[:80]!r}; expected: {expected}{hint}"


def _expected(kind: type[BaseModel], where: Where, detail: ErrorDetails) -> str:
    """What should stand there, in the words of a person who writes YAML."""
    if detail["type"] in ("model_type", "dict_type"):
        known = _fields_at(kind, where) if detail["type"] == "model_type" else set()
        return "keys with values" + (f" ({', '.join(sorted(known))})" if known else "")
    if detail["type"] in WORDS:
        return WORDS[detail["type"]]
    if detail["type"] == "too_short":
        return f"at least {detail['ctx']['min_length']}"
    return detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


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
