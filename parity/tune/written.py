"""A found recipe as config: a model's YAML text with another `quantize`, and everything else as its author wrote it.

Text in, text out. Law: the new text loads as the old model but for `quantize` (and a target's name, where the target needs
terms of its own); comments, order and spelling of all else stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import yaml

from compile.config import QuantizeConfig
from compile.recipe import Recipe

Edit = tuple[int, int, str]
"""Where a piece of text starts and ends, and what stands there instead."""


def with_recipe(text: str, recipe: Recipe, renamed: tuple[str, str] | None = None, heading: str = "") -> str:
    """The config's text with this recipe; `renamed`: a target's old and new name; `heading`: comments for its top."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    edits = list(_names(root, *renamed)) if renamed else []
    block = quantize_block(recipe)
    found = [(key, value) for key, value in root.value if key.value == "quantize"]
    for key, value in found:
        edits.append((key.start_mark.index, _end(value), block))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    if not found:
        text = f"{text.rstrip()}\n{block}\n"
    return heading + text


def quantize_block(recipe: Recipe) -> str:
    """`quantize: {…}`, one option a line; the dialect is the target's."""
    options = QuantizeConfig.model_validate(options_of(recipe)).model_dump(mode="json")
    return "\n".join(["quantize:", *(f"  {name}: {_flow(value)}" for name, value in options.items())])


def options_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as `quantize` of a model's config says it."""
    options = asdict(recipe)
    del options["dialect"]
    return options


def with_terms(text: str, terms: dict[str, Any], heading: str) -> str:
    """A target's text with other values for some of its top keys."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    places = {key.value: value for key, value in root.value}
    edits = [(places[k].start_mark.index, _end(places[k]), _flow(v)) for k, v in terms.items() if k in places]
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    added = "".join(f"{name}: {_flow(value)}\n" for name, value in terms.items() if name not in places)
    return f"{heading}{text.rstrip()}\n{added}"


def _flow(value: Any) -> str:
    """A value on one line, quoted where YAML needs it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _names(root: yaml.MappingNode, old: str, new: str) -> Iterator[Edit]:
    """The places under `targets` and `baseline` that name a target."""
    for key, value in root.value:
        if key.value in ("targets", "baseline") and isinstance(value, yaml.SequenceNode):
            for item in value.value:
                named = _name_of(item)
                if named is not None and named.value == old:
                    yield named.start_mark.index, named.end_mark.index, new


def _name_of(item: yaml.Node) -> yaml.ScalarNode | None:
    if isinstance(item, yaml.ScalarNode):
        return item
    assert isinstance(item, yaml.MappingNode)
    return next((v for k, v in item.value if k.value == "name" and isinstance(v, yaml.ScalarNode)), None)


def _end(node: yaml.Node) -> int:
    """Where a value's last character stands; a block's own mark is where the next key begins, behind its comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)
