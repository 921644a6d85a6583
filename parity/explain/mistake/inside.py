"""What a device may compute otherwise inside the network, told from its answers alone: operators that often go wrong.

In: a bench with the sound graph. Out: trials, each of the sound graph with one kind of operator otherwise, in one module, in
modules of one kind, or in all. The rule: a few rows pick, all sampled rows decide; operators that are much alike (SiLU, Mish)
are told apart by what little each leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from parity.explain.graph.points import named_modules
from parity.explain.graph.simulate import Batch, answered, opened, output_names
from parity.explain.mistake.attention import attentions
from parity.explain.mistake.hypotheses import FITTED, Bench, Hypothesis, Trial
from parity.explain.mistake.otherwise import Otherwise, ways
from parity.explain.mistake.screening import screened
from parity.explain.mistake.written import written_out

NUMBER = re.compile(r"\d+")
MOST_TOLD_APART = 24
"""Where more modules have such an operator, all of them are tried at once only."""


def suspicions(bench: Bench, enough: float = FITTED) -> list[Trial]:
    """The mistakes inside that a few rows do not rule out, tried on all sampled rows; the best first.

    `enough`: the share of the error that they must explain.
    """
    if bench.graph is None:
        return []
    return screened(bench, lambda some: (replace(one, enough=enough) for one in _all(some)), "operators inside")


def _all(bench: Bench) -> Iterator[Hypothesis]:
    assert bench.graph is not None
    nodes, names = list(bench.graph.graph.node), named_modules(bench.graph)
    groups: dict[tuple[str, str], dict[int, Otherwise]] = {}
    single = ((place, way) for place, node in enumerate(nodes) for way in ways(node))
    for place, way in (*single, *written_out(bench.graph), *attentions(bench.graph)):
        groups.setdefault((way.of or nodes[place].op_type, way.said), {})[place] = way
    for (op, said), group in groups.items():
        alike: dict[str, dict[int, Otherwise]] = {}
        for place, way in group.items():
            module = names[nodes[place].output[0]]
            alike.setdefault(NUMBER.sub("*", module), {})[place] = way
            if len(group) <= MOST_TOLD_APART:
                yield _hypothesis(bench, f"{op} of `{module}`", said, {place: way})
        if len(alike) > 1 and len(group) > len(alike):
            yield from (
                _hypothesis(bench, f"{op} of `{stem}`", said, own) for stem, own in alike.items() if len(own) > 1
            )
        if len(group) > 1:
            yield _hypothesis(bench, f"every {op}", said, group)


def _hypothesis(bench: Bench, whose: str, said: str, group: dict[int, Otherwise]) -> Hypothesis:
    kind = next(iter(group.values())).kind
    name = f"the candidate computes {whose} {said}"
    return Hypothesis(name, "compute it as the source does", partial(_answers, bench, group), kind=kind)


def _answers(bench: Bench, group: dict[int, Otherwise]) -> list[Batch]:
    import onnx

    assert bench.graph is not None
    copy = onnx.ModelProto()
    copy.CopyFrom(bench.graph)
    del copy.graph.node[:]
    for place, node in enumerate(bench.graph.graph.node):
        copy.graph.node.extend(group[place].nodes() if place in group else [node])
    if not any(one.domain == "com.microsoft" for one in copy.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return answered(opened(copy, output_names(bench.signature)), bench.batches, bench.signature)
