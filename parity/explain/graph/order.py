"""A graph's nodes in the order in which another graph of the same model has those of the same names, or of the same tensors.

In: two ONNX graphs. Out: the second, its nodes as they may stand anyway and as near as that allows to the first's order. The
rule: what is computed stays the same; nodes that are told apart by their number alone get the number of their twin.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING

from parity.explain.graph.decoding import plain

if TYPE_CHECKING:
    import onnx


def in_order_of(sound: onnx.ModelProto, candidate: onnx.ModelProto) -> onnx.ModelProto:
    """The candidate in the sound graph's order; itself where its nodes of common names stand so already."""
    import onnx

    ours = [node for node in sound.graph.node if node.output]
    places = {(node.op_type, name): place for place, node in enumerate(ours) for name in (node.output[0], node.name)}
    nodes = list(candidate.graph.node)
    known = [_place(node, places) for node in nodes]
    twins = [place for place in known if place is not None]
    if twins == sorted(twins):
        return candidate
    copy = onnx.ModelProto()
    copy.CopyFrom(candidate)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes[number] for number in _sorted(candidate, known))
    return copy


def _place(node: onnx.NodeProto, places: Mapping[tuple[str, str], int]) -> int | None:
    """Where the node of this name stands in the other graph, or the one that gives a tensor of this name."""
    for name in (plain(node.name), *node.output[:1]):
        if name and (node.op_type, name) in places:
            return places[node.op_type, name]
    return None


def _sorted(model: onnx.ModelProto, known: list[int | None]) -> list[int]:
    """Numbers of nodes, each after those that it reads; of those that may be next the one whose twin is the first. A node
    without a twin follows what it reads."""
    makers = {name: number for number, node in enumerate(model.graph.node) for name in node.output if name}
    read = [{makers[name] for name in _read(node) if name in makers} for node in model.graph.node]
    followers: dict[int, list[int]] = {}
    for number, before in enumerate(read):
        for one in before:
            followers.setdefault(one, []).append(number)
    waits = [len(before) for before in read]
    place = [-1 if twin is None else twin for twin in known]
    ready = [(place[number], number) for number, count in enumerate(waits) if not count]
    heapq.heapify(ready)
    found: list[int] = []
    while ready:
        _, number = heapq.heappop(ready)
        found.append(number)
        for follower in followers.get(number, ()):
            waits[follower] -= 1
            if known[follower] is None:
                place[follower] = max(place[follower], place[number])
            if not waits[follower]:
                heapq.heappush(ready, (place[follower], follower))
    return found


def _read(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, those that its branches read among them."""
    inner = [one for attribute in node.attribute for one in attribute.g.node]
    return set(node.input).union(*map(_read, inner))
