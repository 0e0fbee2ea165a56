"""Lists the innermost calls of a network, and which inputs they read.

Tested by `tests/display/picture/test_leaves.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras

from keras_cascade.graph.graph import Graph, Reference
from keras_cascade.graph.pruning import find_needed


@dataclass(frozen=True)
class Leaf:
    """A call of a layer that is no network.

    Attributes:
        path: The keys of the calls that lead to it.
        operation: The layer or operation.
        inputs: The positions of the network's inputs that it reads itself.
    """

    path: tuple[str, ...]
    operation: keras.Operation
    inputs: frozenset[int | None]


def list_leaves(graph: Graph) -> list[Leaf]:
    """Returns the innermost calls of a network in topological order."""
    return list(_leaves(graph, range(len(graph.inputs)), ()))


def _leaves(
    graph: Graph, positions: Sequence[int | None], above: tuple[str, ...]
) -> Iterator[Leaf]:
    """Yields leaves; `positions` are those of the inputs in the outermost."""
    inputs = zip(graph.inputs, positions, strict=True)
    known = {id(tensor): position for tensor, position in inputs}
    for node in graph.nodes:
        path = (*above, node.key)
        if node.inner is not None:
            given = [known.get(id(x)) for x in node.inner_arguments]
            yield from _leaves(node.inner, given, path)
        elif not node.is_input:
            read = {known.get(id(x)) for x in node.tensors} - {None}
            yield Leaf(path, node.operation, frozenset(read))


def path_of(graph: Graph, tensor: keras.KerasTensor) -> tuple[str, ...]:
    """Returns the path of the innermost call that computes a tensor."""
    node, index = graph.sources[id(tensor)]
    if node.inner is None:
        return (node.key,)
    return (node.key, *path_of(node.inner, node.inner.outputs[index]))


def needed_leaves(
    graph: Graph, tensors: Sequence[keras.KerasTensor]
) -> list[Leaf]:
    """Returns the leaves that some tensors of a network depend on."""
    paths = set(_needed_paths(graph, [graph.reference(x) for x in tensors]))
    return [leaf for leaf in list_leaves(graph) if leaf.path in paths]


def _needed_paths(
    graph: Graph, wanted: Sequence[Reference]
) -> Iterator[tuple[str, ...]]:
    needed = find_needed(graph, wanted)
    for node in graph.nodes:
        if node.key not in needed.nodes:
            continue
        if node.inner is None:
            yield (node.key,)
        else:
            inside = list(needed.inside[node.name])
            for path in _needed_paths(node.inner, inside):
                yield (node.key, *path)


def needed_inputs(
    graph: Graph, tensors: Sequence[keras.KerasTensor]
) -> list[int]:
    """Returns the positions of the inputs that some tensors depend on."""
    return find_needed(graph, [graph.reference(x) for x in tensors]).inputs
