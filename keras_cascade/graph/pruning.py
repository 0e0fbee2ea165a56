"""What some tensors need of a graph: calls, inputs, and what lies inside."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from keras_cascade.graph.graph import Graph, Node, Reference


@dataclass
class Needed:
    """What some tensors need of a graph.

    Attributes:
        inputs: The positions of the inputs, in order.
        nodes: The keys of the calls.
        inside: The references wanted inside nested networks, by the network's
            name.
    """

    inputs: list[int] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    inside: dict[str, dict[Reference, None]] = field(default_factory=dict)


def find_needed(
    graph: Graph, wanted: Iterable[Reference], per_call: bool = False
) -> Needed:
    """Finds what some tensors need of a graph, by walking it backward.

    A nested network that is called several times is one block with the union
    of what its calls are asked for, so the walk is repeated until the demands
    inside nested networks no longer grow.

    Args:
        graph: The network.
        wanted: The tensors.
        per_call: Whether each call of a nested network is asked for its own
            tensors only; `inside` then goes by the call's key. Defaults to
            `False`.
    """
    wanted = list(wanted)
    found = Needed()
    while True:
        before = {name: len(refs) for name, refs in found.inside.items()}
        tensors = {id(graph.tensor(ref)) for ref in wanted if len(ref) == 2}
        taps: dict[str, list[Reference]] = {}
        for ref in wanted:
            if len(ref) > 2:
                taps.setdefault(str(ref[0]), []).append(ref[1:])
        for node in reversed(graph.nodes):
            name = node.key if per_call else node.name
            inside = taps.get(node.key, [])
            _walk_back(node, tensors, inside, found, name, per_call)
        if before == {n: len(refs) for n, refs in found.inside.items()}:
            break
    found.inputs = [i for i, x in enumerate(graph.inputs) if id(x) in tensors]
    return found


def _walk_back(
    node: Node,
    tensors: set[int],
    taps: list[Reference],
    found: Needed,
    name: str,
    per_call: bool,
) -> None:
    used = [i for i, x in enumerate(node.outputs) if id(x) in tensors]
    if not used and not taps:
        return
    found.nodes.add(node.key)
    if node.inner is None:
        tensors.update(map(id, node.tensors))
        return
    inside = found.inside.setdefault(name, {})
    inside.update(dict.fromkeys(_inner_outputs(node.inner, used)))
    inside.update(dict.fromkeys(taps))
    inner_need = find_needed(node.inner, inside, per_call)
    tensors.update(id(node.inner_arguments[i]) for i in inner_need.inputs)


def _inner_outputs(graph: Graph, positions: Iterable[int]) -> list[Reference]:
    return [graph.reference(graph.outputs[i]) for i in positions]
