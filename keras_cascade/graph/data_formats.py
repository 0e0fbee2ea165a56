"""Finds whether the maps of a network have their channels first or last."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import Graph, Reference, at_one_step
from keras_cascade.graph.program import Program

FORMATS = ("channels_last", "channels_first")


def data_format(graph: Graph) -> str | None:
    """Returns the data format on which all layers of a network agree.

    It is None if no layer on maps has a format, or if they disagree.
    `data_format_at` finds the format of a single tensor, also then.
    """
    calls = [nodes[-1] for nodes in graph.walk() if nodes[-1].inner is None]
    formats = {
        _layer_format(
            call.operation,
            [len(x.shape) for x in (*call.tensors, *call.outputs)],
        )
        for call in calls
    } - {None}
    return formats.pop() if len(formats) == 1 else None


def data_format_at(graph: Graph, reference: Reference) -> str | None:
    """Returns the data format of one tensor.

    It is that of the nearest layer on maps that has a `data_format`: one that
    the tensor comes from, else one that it goes to. Permutations on the way
    are followed; operations that change the number of axes end it. Without
    such a layer the tensor has the network's own format, if that has one.

    Returns:
        `"channels_last"`, `"channels_first"`, or None if no layer decides
        (`keras.config.image_data_format()` applies then), and for vectors and
        sequences, which have no such format.
    """
    graph, reference = at_one_step(graph, reference)
    program = flatten(graph)
    tensor = program.resolve(reference)
    if len(program.shapes[tensor]) < 4:
        return None
    found = _nearest_format(program, tensor, upstream=True)
    found = found or _nearest_format(program, tensor, upstream=False)
    if found is None:
        return data_format(graph)
    return found if found in FORMATS else None


def _nearest_format(
    program: Program, start: Reference, upstream: bool
) -> str | None:
    """Follows a tensor in one direction to a layer that has a format."""
    rank = len(program.shapes[start])
    seen: set[Reference] = set()
    # Each tensor with the axes of it that are those of the first tensor.
    stack = [(start, tuple(range(rank)))]
    while stack:
        tensor, axes = stack.pop()
        if tensor in seen or len(program.shapes[tensor]) != rank:
            continue
        seen.add(tensor)
        producer = program.producers.get(tensor)
        calls = [producer] if producer else []
        calls = calls if upstream else program.data_consumers.get(tensor, [])
        for call in reversed(calls):
            given = [x for x in call.data_inputs if x is not None]
            ranks = [len(program.shapes[x]) for x in (*given, *call.outputs)]
            own = _layer_format(call.operation, ranks)
            if own is not None:
                return _permuted_format(own, axes)
            order = _permutation(call.operation, rank)
            if order is None:
                continue
            if upstream:
                moved = tuple(order[axis] for axis in axes)
            else:
                moved = tuple(order.index(axis) for axis in axes)
            following = given if upstream else call.outputs
            stack += [(x, moved) for x in reversed(following)]
    return None


def _layer_format(
    operation: keras.Operation, ranks: Sequence[int]
) -> str | None:
    """Returns the format of a layer, if one of its ranks is that of maps."""
    found = getattr(operation, "data_format", None)
    return found if max(ranks, default=0) > 3 and found in FORMATS else None


def _permuted_format(own: str, axes: tuple[int, ...]) -> str:
    """Returns the format of a tensor whose axes are a layer's, permuted."""
    channels = {"channels_first": 1, "channels_last": len(axes) - 1}
    names = {axis: name for name, axis in channels.items()}
    # The channels may be in the middle.
    return names.get(axes.index(channels[own]), "neither")


def _permutation(
    operation: keras.Operation, rank: int
) -> tuple[int, ...] | None:
    """Returns the axis of the input that each axis of the output is."""
    # None if the operation may split or merge axes, as a reshape does.
    if isinstance(operation, keras.layers.Permute):
        return (0, *operation.dims)
    if isinstance(operation, keras.layers.Reshape):
        return None
    # The classes of operations are not public, their names and configs are.
    kind = type(operation).__name__
    if kind == "Transpose":
        axes: Any = operation.get_config().get("axes")
        axes = reversed(range(rank)) if axes is None else axes
        return tuple(axis % rank for axis in axes)
    torn = ("Reshape", "Moveaxis", "Swapaxes", "Einsum", "Tensordot")
    return None if kind in torn else tuple(range(rank))
