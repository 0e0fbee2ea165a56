"""Finds whether the maps of a network have their channels first or last."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_cascade.graph.graph import Graph, Node, Reference

FORMATS = ("channels_last", "channels_first")

# The calls of nested networks that lead to a graph, outermost first.
_Frames = tuple[tuple[Graph, Node], ...]


def data_format(graph: Graph) -> str | None:
    """The format in which all layers of a network agree.

    Args:
        graph: The network; networks inside it count as well.

    Returns:
        `"channels_last"`, `"channels_first"`, or None where no layer on maps
        tells, or where they disagree. The format of a single tensor, in such
        a network too, is what `data_format_at` finds.

    Example:
    >>> data_format(read_graph(keras.applications.VGG16(weights=None)))
    'channels_last'
    """
    formats = {_own_format(node) for node in _leaves(graph)} - {None}
    return formats.pop() if len(formats) == 1 else None


def data_format_at(graph: Graph, reference: Reference) -> str | None:
    """The format of one tensor.

    What tells is the nearest layer on maps that has a `data_format`, between
    which and the tensor nothing changes the number of axes: one that the
    tensor comes from, else one that it goes to. Permutations on the way are
    followed. Where there is no such layer, the network's own format, if it
    has one, is the tensor's.

    Args:
        graph: The network.
        reference: The tensor; one inside a nested network too.

    Returns:
        `"channels_last"`, `"channels_first"`, or None where nothing tells
        (`keras.config.image_data_format()` applies then), and for vectors and
        sequences, which have no such format.

    Example:
    >>> graph = read_graph(keras.applications.VGG16(weights=None))
    >>> data_format_at(graph, graph.reference(graph.inputs[0]))
    'channels_last'
    """
    frames: _Frames = ()
    level = graph
    for key in reference[:-2]:
        node = level.by_key[str(key)]
        if node.inner is None:
            raise KeyError(reference)
        frames, level = (*frames, (level, node)), node.inner
    tensor = level.tensor(reference[-2:])
    if len(tensor.shape) < 4:
        return None
    found = _Walk(upstream=True).format_of(level, tensor, frames)
    if found is None:
        found = _Walk(upstream=False).format_of(level, tensor, frames)
    if found is None:
        return data_format(graph)
    return found if found in FORMATS else None


class _Walk:
    """Follows a tensor to layers that know its format, one way."""

    def __init__(self, upstream: bool):
        self.upstream = upstream
        self.seen: set[tuple] = set()

    def format_of(
        self, graph: Graph, tensor: keras.KerasTensor, frames: _Frames
    ) -> str | None:
        rank = len(tensor.shape)
        stack = [(graph, tensor, frames, tuple(range(rank)))]
        while stack:
            graph, tensor, frames, axes = stack.pop()
            key = (id(tensor), *(id(node) for _, node in frames))
            if key in self.seen or len(tensor.shape) != rank:
                continue
            self.seen.add(key)
            steps = self._steps(graph, tensor, frames)
            for node, beyond in reversed(list(steps)):
                own = None if node is None else _own_format(node)
                if own is not None:
                    return _renamed(own, axes, rank)
                order = axes if node is None else self._order(node, axes)
                if order is not None:
                    stack += [(*place, order) for place in reversed(beyond)]
        return None

    def _steps(
        self, graph: Graph, tensor: keras.KerasTensor, frames: _Frames
    ) -> Iterator[tuple[Node | None, list[tuple]]]:
        """Calls beside the tensor, and the places behind them.

        The call is None where only a border between networks is crossed.
        """
        if self.upstream:
            yield _before(graph, tensor, frames)
        else:
            yield from _after(graph, tensor, frames)

    def _order(self, node: Node, axes: tuple) -> tuple | None:
        """`axes` of the first tensor as axes of that behind a call.

        None where the call makes something else of them.
        """
        order = _permutation(node, len(axes))
        if order is None:
            return None
        if self.upstream:
            return tuple(order[axis] for axis in axes)
        return tuple(order.index(axis) for axis in axes)


def _renamed(own: str, axes: tuple, rank: int) -> str:
    """The format of a tensor whose axes are those of a layer's permuted.

    "neither" where the channels are in the middle.
    """
    channels = {"channels_first": 1, "channels_last": rank - 1}
    position = axes.index(channels[own])
    return {axis: name for name, axis in channels.items()}.get(
        position, "neither"
    )


def _before(
    graph: Graph, tensor: keras.KerasTensor, frames: _Frames
) -> tuple[Node | None, list[tuple]]:
    node, index = graph.sources[id(tensor)]
    if node.is_input:
        if not frames:
            return None, []
        outer, call = frames[-1]
        position = [id(x) for x in graph.inputs].index(id(tensor))
        given = call.inner_arguments[position]
        return None, [(outer, given, frames[:-1])]
    if node.inner is not None:
        inner = node.inner.outputs[index]
        return None, [(node.inner, inner, (*frames, (graph, node)))]
    return node, [(graph, x, frames) for x in node.tensors]


def _after(
    graph: Graph, tensor: keras.KerasTensor, frames: _Frames
) -> Iterator[tuple[Node | None, list[tuple]]]:
    for node in graph.nodes:
        if node.is_input or not any(x is tensor for x in node.tensors):
            continue
        if node.inner is None:
            yield node, [(graph, x, frames) for x in node.outputs]
            continue
        deeper = (*frames, (graph, node))
        places = zip(node.inner.inputs, node.inner_arguments, strict=True)
        yield (
            None,
            [(node.inner, inner, deeper) for inner, x in places if x is tensor],
        )
    if frames:
        outer, call = frames[-1]
        pairs = zip(graph.outputs, call.outputs, strict=True)
        yield (
            None,
            [(outer, given, frames[:-1]) for x, given in pairs if x is tensor],
        )


def _own_format(node: Node) -> str | None:
    """The format of the maps that a layer takes or gives, where it says."""
    found = getattr(node.operation, "data_format", None)
    maps = any(len(x.shape) > 3 for x in (*node.tensors, *node.outputs))
    return found if maps and found in FORMATS else None


def _permutation(node: Node, rank: int) -> tuple | None:
    """Which axis of the input each axis of the output is.

    None for what may tear axes apart, as a reshape does.
    """
    operation: Any = node.operation
    if isinstance(operation, keras.layers.Permute):
        return (0, *operation.dims)
    if isinstance(operation, keras.layers.Reshape):
        return None
    # The classes of operations are not public, their names and configs are.
    kind = type(operation).__name__
    if kind == "Transpose":
        axes = operation.get_config().get("axes")
        axes = reversed(range(rank)) if axes is None else axes
        return tuple(axis % rank for axis in axes)
    torn = ("Reshape", "Moveaxis", "Swapaxes", "Einsum", "Tensordot")
    return None if kind in torn else tuple(range(rank))


def _leaves(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        if node.inner is None:
            yield node
        else:
            yield from _leaves(node.inner)
