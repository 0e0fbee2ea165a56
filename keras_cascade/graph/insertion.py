"""Inserts tensors into a graph after inner calls, across levels of nesting.

A graph is data: an insertion adds inputs and merging operations to the list of
calls, and the consumers of a call's tensor take the merged tensor instead.
Replayed, the result is a network with the layers of the original. Operations
that only fed a replaced tensor become dead code, which pruning leaves out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_cascade.graph.graph import Graph, Node
from keras_cascade.graph.names import numbered_name
from keras_cascade.graph.paths import Address

Merge = Callable[
    [keras.KerasTensor, list[keras.KerasTensor]], Sequence["MergeStep"]
]
# The tensors that take the place of others, by the ids of these.
_Replaced = dict[int, keras.KerasTensor]


@dataclass(frozen=True)
class MergeStep:
    """An operation that merges: `operation(*args)` gives `output`."""

    name: str
    operation: keras.Operation
    args: tuple
    output: keras.KerasTensor


@dataclass(frozen=True)
class Insertion:
    """Tensors that enter a graph after one of its calls.

    Attributes:
        address: The keys of the calls that lead to the call.
        inputs: The tensors that enter, by the names of their inputs; only
            their shapes and dtypes count.
        merge: Takes the call's tensor and those that enter, and returns the
            steps that merge them, of which the last gives the merged tensor.
            Without steps the first that enters takes the place of the call's.
        index: The position of the tensor among the outputs of the call.
    """

    address: Address
    inputs: Mapping[str, keras.KerasTensor]
    merge: Merge
    index: int = 0


def inject(graph: Graph, insertions: Iterable[Insertion]) -> Graph:
    """Returns a graph into which tensors enter.

    Its inputs are those of the network, in order, and after them one for each
    tensor that enters. Of two insertions at one call, the later merges into
    the result of the earlier.
    """
    insertions, known = list(insertions), len(graph.inputs)
    # Backward: a later insertion at a call comes after the earlier ones.
    for insertion in reversed(insertions):
        graph = _insert(graph, insertion)
    if not insertions:
        return graph
    order = [name for insertion in insertions for name in insertion.inputs]
    own, added = graph.inputs[:known], graph.inputs[known:]
    added.sort(key=lambda x: order.index(graph.sources[id(x)][0].name))
    return replace(graph, input_structure=[*own, *added])


def remove_injections(
    graph: Graph, prefixes: Iterable[str], inputs: Iterable[str]
) -> Graph:
    """Returns a graph without the tensors that were injected into it.

    Tensors that were replaced are not brought back.

    Args:
        graph: A network that `inject` made, read again.
        prefixes: The beginnings of the names of merging operations.
        inputs: The names of the inputs that were added.
    """
    merging, added = tuple(prefixes), set(inputs)
    kept: list[Node] = []
    replaced: _Replaced = {}
    left = [
        x for x in graph.inputs if graph.sources[id(x)][0].name not in added
    ]
    for node in graph.nodes:
        if node.is_input:
            kept += [node] if node.name not in added else []
        elif node.name.startswith(merging):
            first = node.tensors[0]
            replaced[id(node.outputs[0])] = replaced.get(id(first), first)
        else:
            kept.append(
                _removed_inside(_rewire(node, replaced), merging, added)
            )
    return _rebuild(graph, kept, left if len(left) > 1 else left[0], replaced)


def _insert(graph: Graph, insertion: Insertion) -> Graph:
    key, *inside = insertion.address
    target = graph.by_key[key]
    added = [_input_node(n, x) for n, x in insertion.inputs.items()]
    entering = [node.outputs[0] for node in added]
    inner: Graph | None = None
    if inside and target.inner is not None:
        deeper = replace(insertion, address=tuple(inside))
        inner = _insert(target.inner, deeper)
    replaced: _Replaced = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = _rewire(node, replaced)
        if inner is not None and node.name == target.name:
            # All calls of a network get the tensors: it stays one network.
            given = [*node.inner_arguments, *entering]
            nodes.append(_with_inner(node, inner, given))
            continue
        nodes.append(node)
        if node.key == key:
            tensor = node.outputs[insertion.index]
            steps = list(insertion.merge(tensor, entering))
            for step in steps:
                name = numbered_name(step.name, graph.calls)
                given = (name, name, step.operation, step.args, {})
                nodes.append(Node(*given, (step.output,)))
            replaced[id(tensor)] = steps[-1].output if steps else entering[0]
    inputs = [*graph.inputs, *entering]
    return _rebuild(graph, [*added, *nodes], inputs, replaced)


def _with_inner(
    node: Node, inner: Graph, given: Sequence[keras.KerasTensor]
) -> Node:
    """Returns a call of a nested network with another graph and arguments."""
    kwargs = {k: v for k, v in node.kwargs.items() if k != "inputs"}
    args = (list(given), *node.args[1:])
    return replace(node, args=args, kwargs=kwargs, inner=inner)


def _removed_inside(
    node: Node, prefixes: tuple[str, ...], inputs: set[str]
) -> Node:
    """Returns a call without the tensors injected into a nested network."""
    if node.inner is None:
        return node
    inner = remove_injections(node.inner, prefixes, inputs)
    if inner.inputs == node.inner.inputs:
        return replace(node, inner=inner)
    left = {id(x) for x in inner.inputs}
    pairs = zip(node.inner.inputs, node.inner_arguments, strict=True)
    given = [x for own, x in pairs if id(own) in left]
    return _with_inner(node, inner, given)


def _rewire(node: Node, replaced: Mapping[int, keras.KerasTensor]) -> Node:
    if node.is_input or not any(id(x) in replaced for x in node.tensors):
        return node

    def current(x: Any) -> Any:
        return replaced.get(id(x), x)

    return replace(
        node,
        args=keras.tree.map_structure(current, node.args),
        kwargs=keras.tree.map_structure(current, node.kwargs),
    )


def _input_node(name: str, tensor: keras.KerasTensor) -> Node:
    layer = keras.layers.InputLayer(
        batch_shape=tensor.shape, dtype=tensor.dtype, name=name
    )
    output: Any = layer.output
    return Node(name, name, layer, (), {}, (output,), is_input=True)


def _rebuild(
    graph: Graph,
    nodes: Sequence[Node],
    inputs: object,
    replaced: Mapping[int, keras.KerasTensor],
) -> Graph:
    """Returns a graph of other calls, whose outputs may be replaced."""
    outputs = keras.tree.map_structure(
        lambda x: replaced.get(id(x), x), graph.output_structure
    )
    return Graph(graph.name, tuple(nodes), inputs, outputs, graph.network)
