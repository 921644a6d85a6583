"""A candidate that is the line's own graph, edited: which operators were put in, left out or made others.

In: a `Case` with a candidate's graph. Out: those operators, and whether they stand before the model, behind it or inside. The
rule: this speaks only where most operators are the line's, no other one quantizes, and every constant of the line's that the
candidate has is the line's bit for bit: then nothing but those operators can make it answer otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parity.explain.experiment.case import Case
from parity.explain.experiment.exchange import Exchange, share_gone
from parity.explain.experiment.operators import ITS_SHARE, MOST_TRIED
from parity.explain.experiment.structure import quantizes
from parity.explain.graph.points import named_modules, readers

if TYPE_CHECKING:
    import onnx

MOST_LISTED = 4
MOST_EDITED = 0.5
"""Of the line's operators: where more are others, it is another graph."""
BEHIND = "what the model gives passes through"
DRAWS = "draws at random"
DRAWN = frozenset({"Bernoulli", "Dropout", "Multinomial"})


@dataclass(frozen=True, slots=True)
class Edit:
    """The candidate's operators that the line's graph has not, pairs (the line's, its) that differ, and the line's that are
    missing."""

    extra: Sequence[onnx.NodeProto]
    changed: Sequence[tuple[onnx.NodeProto, onnx.NodeProto]]
    missing: Sequence[onnx.NodeProto]

    @property
    def operators(self) -> list[str]:
        """Those of either graph that the other has otherwise."""
        changed = [node for pair in self.changed for node in pair]
        return [node.op_type for node in (*self.extra, *changed, *self.missing)]

    def __len__(self) -> int:
        return len(self.extra) + len(self.changed) + len(self.missing)


def edited(case: Case) -> Exchange | None:
    """What was edited, where nothing else was."""
    if case.found is None or case.stands_in or not _constants_are_the_lines(case.fresh, case.found):
        return None
    edit = _edit(case.fresh, case.found)
    if (
        not len(edit)
        or any(map(quantizes, edit.operators))
        or len(edit.changed) + len(edit.missing) > MOST_EDITED * len(case.fresh.graph.node)
    ):
        return None
    edit = _telling(case, edit)
    around = None if edit.changed or edit.missing else _around(edit, case.found)
    sentence = _inside(edit, case) if around is None else around
    drawn = [n.op_type for n in edit.extra if n.op_type.startswith("Random") or n.op_type in DRAWN]
    more = f"; {drawn[0]} {DRAWS}: the same input is answered otherwise each time" if drawn else ""
    names = named_modules(case.found)
    modules = list(dict.fromkeys(names[node.output[0]] for _, node in edit.changed))
    end = "; without that it is the graph that a build from the source gives, number for number"
    told, remedy = f"{sentence}{more}{end}", "build it again from the source"
    before = around is not None and BEHIND not in around
    return Exchange("export" if around is None else "pre/post-processing", told, remedy, modules, case.fresh, before)


def _constants_are_the_lines(line: onnx.ModelProto, found: onnx.ModelProto) -> bool:
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in found.graph.initializer}
    twins = [(tensor, stored[tensor.name]) for tensor in line.graph.initializer if tensor.name in stored]
    return bool(twins) and all(
        np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other)) for one, other in twins
    )


def _edit(line: onnx.ModelProto, found: onnx.ModelProto) -> Edit:
    pairs = _paired(line.graph.node, found.graph.node)
    theirs = {id(node) for _, node in pairs}
    extra = [node for node in found.graph.node if id(node) not in theirs]
    ours = {id(node) for node, _ in pairs}
    missing = [node for node in line.graph.node if id(node) not in ours]
    twins = {o: our for one, node in pairs for our, o in zip(one.output, node.output, strict=False)}
    put_in = {name for node in extra for name in node.output}
    changed = [
        (one, node)
        for one, node in pairs
        if (one.op_type, one.domain, _settings(one)) != (node.op_type, node.domain, _settings(node))
        or not _reads_alike(one, node, twins, put_in)
    ]
    return Edit(extra, changed, missing)


def _telling(case: Case, edit: Edit) -> Edit:
    """The edit without those other operators that answer as the line's do: put back, they take nothing of the error away."""
    if len(edit) < 2 or len(edit.changed) > MOST_TRIED:
        return edit
    assert case.found is not None
    told = [
        pair for pair in edit.changed if share_gone(case, case.fresh, _put_back(case.found, *pair), None) > ITS_SHARE
    ]
    return Edit(edit.extra, told if told or edit.extra or edit.missing else edit.changed, edit.missing)


def _put_back(found: onnx.ModelProto, ours: onnx.NodeProto, theirs: onnx.NodeProto) -> onnx.ModelProto:
    """The candidate with one operator of the line's in the place of its own."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(found)
    node = next(node for node in copy.graph.node if node.output[0] == theirs.output[0])
    read, given = list(theirs.input)[: len(ours.input)], list(theirs.output)
    node.CopyFrom(ours)
    for place, name in enumerate(read):
        node.input[place] = name
    for place, name in enumerate(given):
        node.output[place] = name
    return copy


def _paired(
    ours: Sequence[onnx.NodeProto], theirs: Sequence[onnx.NodeProto]
) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Operators of one name, else those that write the same tensor."""
    counts = [Counter(node.name for node in side) for side in (ours, theirs)]
    named = {node.name: node for node in theirs if node.name and counts[1][node.name] == 1}
    found = [(one, named[one.name]) for one in ours if one.name in named and counts[0][one.name] == 1]
    done = {id(node) for pair in found for node in pair}
    written = {node.output[0]: node for node in theirs if node.output and id(node) not in done}
    return found + [
        (one, written[one.output[0]]) for one in ours if id(one) not in done and one.output and one.output[0] in written
    ]


def _settings(node: onnx.NodeProto) -> list[bytes]:
    return sorted(a.SerializeToString(deterministic=True) for a in node.attribute)


def _reads_alike(one: onnx.NodeProto, other: onnx.NodeProto, twins: dict[str, str], put_in: set[str]) -> bool:
    """Whether an operator reads what its twin reads, but for what was put in between."""
    pairs = zip(one.input, other.input, strict=False)
    return len(one.input) == len(other.input) and all(b in put_in or twins.get(b, b) == a for a, b in pairs)


def _around(edit: Edit, found: onnx.ModelProto) -> str | None:
    """Operators put in before the first of the line's or behind the last, told; None where some stand inside."""
    put_in = {name for node in edit.extra for name in node.output}
    inputs = {value.name for value in found.graph.input}
    outputs = {value.name for value in found.graph.output}
    known = inputs | {tensor.name for tensor in found.graph.initializer} | {""}
    before, behind = set(known), set[str]()
    for node in edit.extra:
        if all(name in before for name in node.input):
            before |= set(node.output)
    reading = readers(found)
    for node in reversed(edit.extra):
        read = [reader for name in node.output for reader in reading.get(name, [])]
        if all(set(one.output) <= behind for one in read) and (read or set(node.output) & outputs):
            behind |= set(node.output)
    if not put_in <= before | behind:
        return None
    first = [node for node in edit.extra if not set(node.output) <= behind]
    last = [node for node in edit.extra if set(node.output) <= behind]
    touched = sorted({name for node in first for name in node.input} & inputs)
    told = (
        [f"in the artifact {_ticked(touched)} passes through {_listed(first)} before it reaches the model"]
        if first
        else []
    )
    given = sorted({name for node in last for name in node.output} & outputs)
    told += [f"in the artifact {BEHIND} {_listed(last)} before it is {_ticked(given)}"] if last else []
    return " and ".join(told)


def _inside(edit: Edit, case: Case) -> str:
    assert case.found is not None
    names = named_modules(case.fresh) | named_modules(case.found)
    told = list(_told(edit, names))
    more = f"; and {len(told) - MOST_LISTED} more" if len(told) > MOST_LISTED else ""
    return "; ".join(told[:MOST_LISTED]) + more


def _told(edit: Edit, names: dict[str, str]) -> Iterator[str]:
    for one, node in edit.changed:
        module = names[node.output[0]]
        if one.op_type != node.op_type:
            yield f"`{module}` is computed by {node.op_type}, in the source's graph by {one.op_type}"
        elif _settings(one) != _settings(node):
            yield f"`{module}`: {node.op_type} has other settings than the source's graph"
        else:
            yield f"`{module}`: {node.op_type} reads {_ticked(node.input)}, the source's graph's {_ticked(one.input)}"
    if edit.extra:
        read = next((names[n] for node in edit.extra for n in node.input if n in names), None)
        at = f" behind `{read}`" if read is not None else ""
        yield f"{_listed(edit.extra)} put in{at}, in the source's graph nothing"
    if edit.missing:
        yield f"{_listed(edit.missing)} of `{names[edit.missing[0].output[0]]}` left out"


def _listed(nodes: Sequence[onnx.NodeProto]) -> str:
    kinds = Counter(node.op_type for node in nodes)
    return ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in kinds.items())


def _ticked(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names if name)
