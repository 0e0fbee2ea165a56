"""Lets tensors enter a graph behind inner calls, across levels of nesting.

A graph is data: an entry adds inputs and merging operations to the list of
calls, and what used a call's tensor uses the merged one instead. Replayed,
the result is a network whose layers are the original's. What a replaced
tensor alone was computed from is in nobody's way: `need` leaves it out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_cascade.graph.graph import Graph, Node
from keras_cascade.graph.paths import Address

Merge = Callable[
    [keras.KerasTensor, list[keras.KerasTensor]], Sequence["MergeStep"]
]


@dataclass(frozen=True)
class MergeStep:
    """An operation that merges: `operation(*args)` gives `output`."""

    name: str
    operation: keras.Operation
    args: tuple
    output: keras.KerasTensor


@dataclass(frozen=True)
class Insertion:
    """What enters a graph behind one of its calls.

    Attributes:
        address: The keys of the calls that lead to it.
        feeds: The tensors that are fed, by the names of their inputs: shapes
            and dtypes only.
        merge: Takes the call's tensor and the fed ones, and gives the steps
            that merge them; the last gives the merged tensor. No steps: the
            fed tensor takes the place of the call's.
    """

    address: Address
    feeds: Mapping[str, keras.KerasTensor]
    merge: Merge


def inject(graph: Graph, entries: Iterable[Insertion]) -> Graph:
    """A graph into which tensors enter.

    Args:
        graph: The network; it stays as it is.
        entries: What enters where. Of two at one call, the later merges into
            what the earlier gave.

    Returns:
        A graph with the inputs of the network, in order, and behind them an
        input for each fed tensor.
    """
    entries, known = list(entries), len(graph.inputs)
    # Backward: what enters at a call comes before what entered there already.
    for entry in reversed(entries):
        graph = _with_entry(graph, entry, known={})
    if not entries:
        return graph
    order = [name for entry in entries for name in entry.feeds]
    own, fed = graph.inputs[:known], graph.inputs[known:]
    fed = sorted(fed, key=lambda x: order.index(graph.sources[id(x)][0].name))
    return replace(graph, input_structure=[*own, *fed])


def _with_entry(
    graph: Graph, entry: Insertion, known: dict[int, Graph]
) -> Graph:
    """One entry; nested networks that are called several times stay one."""
    key, *inside = entry.address
    fed = [_input_node(n, x) for n, x in entry.feeds.items()]
    target = graph.by_key[key]
    replaced: dict[int, keras.KerasTensor] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = _rewired(node, replaced)
        if inside and node.name == target.name:
            nodes.append(_with_inner_entry(node, entry, fed, known))
            continue
        nodes.append(node)
        if node.key == key:
            tensor = node.outputs[0]
            steps = list(entry.merge(tensor, [x.outputs[0] for x in fed]))
            nodes += [_node(step, graph) for step in steps]
            merged = steps[-1].output if steps else fed[0].outputs[0]
            replaced[id(tensor)] = merged
    inputs = [*graph.inputs, *(node.outputs[0] for node in fed)]
    return _graph(graph, [*fed, *nodes], inputs, replaced)


def _with_inner_entry(
    node: Node, entry: Insertion, fed: Sequence[Node], known: dict[int, Graph]
) -> Node:
    """A nested network with the entry inside, fed from without."""
    if node.inner is None:
        return node
    given = [*node.inner_arguments, *(x.outputs[0] for x in fed)]
    if id(node.operation) not in known:
        deeper = replace(entry, address=entry.address[1:])
        known[id(node.operation)] = _with_entry(node.inner, deeper, {})
    return replace(
        node,
        args=(given, *node.args[1:]),
        kwargs={k: v for k, v in node.kwargs.items() if k != "inputs"},
        inner=known[id(node.operation)],
    )


def _rewired(node: Node, replaced: Mapping[int, keras.KerasTensor]) -> Node:
    if node.is_input or not any(id(x) in replaced for x in node.tensors):
        return node

    def current(x: Any) -> Any:
        return replaced.get(id(x), x)

    args: Any = keras.tree.map_structure(current, node.args)
    kwargs: Any = keras.tree.map_structure(current, node.kwargs)
    return replace(node, args=args, kwargs=kwargs)


def _input_node(name: str, tensor: keras.KerasTensor) -> Node:
    layer = keras.layers.InputLayer(
        batch_shape=tensor.shape, dtype=tensor.dtype, name=name
    )
    output: Any = layer.output
    return Node(name, name, layer, (), {}, (output,), is_input=True)


def _node(step: MergeStep, graph: Graph) -> Node:
    name, number = step.name, 0
    while name in graph.calls:
        number += 1
        name = f"{step.name}_{number}"
    return Node(name, name, step.operation, step.args, {}, (step.output,))


def _graph(
    graph: Graph,
    nodes: Sequence[Node],
    inputs: Any,
    replaced: Mapping[int, keras.KerasTensor],
) -> Graph:
    outputs: Any = keras.tree.map_structure(
        lambda x: replaced.get(id(x), x), graph.output_structure
    )
    sources = {
        id(tensor): (node, index)
        for node in nodes
        for index, tensor in enumerate(node.outputs)
    }
    network = graph.network
    return Graph(graph.name, tuple(nodes), inputs, outputs, sources, network)


def remove_injections(
    graph: Graph, names: Iterable[str], feeds: Iterable[str]
) -> Graph:
    """A graph without what was injected into it.

    Args:
        graph: A network that `inject` made, read again.
        names: What the names of merging operations begin with.
        feeds: The inputs that were added.

    Returns:
        A graph in which each merged tensor is what it was before. What took
        a tensor's place is not brought back.
    """
    prefixes, fed = tuple(names), set(feeds)
    kept: list[Node] = []
    replaced: dict[int, keras.KerasTensor] = {}
    inputs = [
        x for x in graph.inputs if graph.sources[id(x)][0].name not in fed
    ]
    for node in graph.nodes:
        if node.is_input:
            kept += [node] if node.name not in fed else []
        elif node.name.startswith(prefixes):
            first = node.tensors[0]
            replaced[id(node.outputs[0])] = replaced.get(id(first), first)
        else:
            kept.append(_withdrawn(_rewired(node, replaced), prefixes, fed))
    packed = inputs if len(inputs) > 1 else inputs[0]
    return _graph(graph, kept, packed, replaced)


def _withdrawn(node: Node, prefixes: tuple[str, ...], fed: set[str]) -> Node:
    """A nested network without what was injected into it."""
    if node.inner is None:
        return node
    inner = remove_injections(node.inner, prefixes, fed)
    if inner.inputs == node.inner.inputs:
        return replace(node, inner=inner)
    left = {id(x) for x in inner.inputs}
    pairs = zip(node.inner.inputs, node.inner_arguments, strict=True)
    given = [x for own, x in pairs if id(own) in left]
    return replace(node, args=(given, *node.args[1:]), inner=inner)
