"""The constants of OpenVINO's IR, which no graph tells about, beside those of the same name in another.

In: the folders of two artifacts. Out: one `Gap` for each constant that differs. The rule: they are compared as stored.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from parity.explain.gaps import Gap, difference
from parity.explain.weights import Array, Weight

IR_KINDS = {"f32": "<f4", "f16": "<f2", "i8": "i1", "u8": "u1", "i32": "<i4", "i64": "<i8", "f64": "<f8"}


def ir_constants(folder: Path) -> dict[str, Array]:
    """The constants of an OpenVINO IR by name, read from its two files."""
    [description] = sorted(folder.glob("*.xml"))[:1]
    data = description.with_suffix(".bin").read_bytes()
    return dict(_constants(ElementTree.parse(description).getroot(), data))


def _constants(root: ElementTree.Element, data: bytes) -> Iterator[tuple[str, Array]]:
    for layer in root.iter("layer"):
        facts = layer.find("data")
        if layer.get("type") == "Const" and facts is not None and facts.get("element_type") in IR_KINDS:
            start, size = int(facts.get("offset", 0)), int(facts.get("size", 0))
            kind = np.dtype(IR_KINDS[facts.get("element_type", "")])
            yield str(layer.get("name")), np.frombuffer(data[start : start + size], kind)


def ir_gaps(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], names: Mapping[str, str]
) -> list[tuple[Gap, bool]]:
    """The constants of one IR that differ from those of the same name in another, and whether each holds many numbers.

    `names`: whose each one is.
    """
    found = []
    for name, array in candidate.items():
        if name in reference and reference[name].shape == array.shape and array.size:
            ours, theirs = (Weight(names.get(name, name), name, a, 0.0) for a in (reference[name], array))
            if (gap := difference(ours, theirs)) is not None:
                found.append((gap, array.size > 1))
    return found
