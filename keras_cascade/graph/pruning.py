"""Finds the calls and inputs of a graph that some tensors depend on.

Tested by `tests/graph/test_copying.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from keras_cascade.graph.graph import Graph, Node, Reference


@dataclass
class Needed:
    """The parts of a graph that some tensors depend on.

    Attributes:
        inputs: The positions of the inputs, in order.
        nodes: The keys of the calls.
        inside: The tensors needed inside nested networks, by the network's
            name, and inside layers that call a network once per step.
    """

    inputs: list[int] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    inside: dict[str, dict[Reference, None]] = field(default_factory=dict)


def find_needed(graph: Graph, wanted: Iterable[Reference]) -> Needed:
    """Finds the parts of a graph that some tensors depend on.

    Args:
        graph: The network.
        wanted: The tensors. All calls of a nested network compute what any
            of them is needed for.
    """
    wanted = list(wanted)
    found = Needed()
    # A network that is called several times has the outputs that any call
    # needs, and these may need more of its inputs: until nothing is added.
    while True:
        before = {name: len(refs) for name, refs in found.inside.items()}
        tensors = {id(graph.tensor(ref)) for ref in wanted if len(ref) == 2}
        for node in reversed(graph.nodes):
            taps = [x[1:] for x in wanted if len(x) > 2 and x[0] == node.key]
            _add_node(node, tensors, taps, found)
        if before == {n: len(refs) for n, refs in found.inside.items()}:
            break
    found.inputs = [i for i, x in enumerate(graph.inputs) if id(x) in tensors]
    return found


def _add_node(
    node: Node,
    tensors: set[int],
    taps: list[Reference],
    found: Needed,
) -> None:
    """Adds a call, and to `tensors` its arguments, if it is needed."""
    used = [i for i, x in enumerate(node.outputs) if id(x) in tensors]
    if not used and not taps:
        return
    found.nodes.add(node.key)
    if node.within is None:
        tensors.update(map(id, node.tensors))
        return
    inside = found.inside.setdefault(node.name, {})
    outputs = [node.within.reference(node.within.outputs[i]) for i in used]
    inside.update(dict.fromkeys([*outputs, *taps]))
    if node.inner is None:
        tensors.update(map(id, node.tensors))
        return
    inputs = find_needed(node.inner, inside).inputs
    tensors.update(id(node.inner_arguments[i]) for i in inputs)
