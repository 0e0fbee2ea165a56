"""Estimates the floating-point operations of a call from its shapes.

A multiplication and an addition count as two. Layers that multiply by a
kernel are counted exactly, attention with its products of queries, keys and
values, wrapped layers and networks once for each call. A layer that has
others inside counts their kernels once for each position of its output;
everything else counts one operation for each output element.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any, cast

import keras
from keras import layers

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.graph import Graph, Node, Reference, read_graph
from keras_cascade.graph.pruning import find_needed
from keras_cascade.networks.loading import as_functional

# With the batch; open sizes are None.
Shape = Sequence[int | None]

_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)


def flops_up_to(graph: Graph, reference: Reference) -> int | None:
    """Returns the operations for one sample up to a tensor.

    The number is None if a size is open.
    """
    return sum_flops(_flops_of_calls(graph, [reference]))


def _flops_of_calls(
    graph: Graph, wanted: Sequence[Reference]
) -> Iterator[int | None]:
    """Yields the operations of each call that some tensors depend on."""
    for node, times in _needed_calls(graph, wanted):
        inputs = [x.shape for x in node.tensors]
        outputs = [x.shape for x in node.outputs]
        once = flops_of(node.operation, inputs, outputs)
        yield None if once is None or times is None else times * once


def parameters_up_to(graph: Graph, reference: Reference) -> int:
    """Counts the parameters that a tensor depends on, each layer once."""
    layers_used = {
        id(node.operation): node.operation
        for node, _ in _needed_calls(graph, [reference])
        if isinstance(node.operation, keras.Layer)
    }
    return sum(layer.count_params() for layer in layers_used.values())


def _needed_calls(
    graph: Graph, wanted: Sequence[Reference], times: int | None = 1
) -> Iterator[tuple[Node, int | None]]:
    """Yields the calls that some tensors depend on, at every level.

    With each comes the number of steps for which it is made; None if it is
    not known.
    """
    needed = find_needed(graph, wanted, per_call=True)
    for node in graph.nodes:
        if node.key not in needed.nodes or node.is_input:
            continue
        inside = [*needed.inside.get(node.key, ())]
        if node.inner is not None:
            yield from _needed_calls(node.inner, inside, times)
        elif node.step is not None:
            size = node.tensors[0].shape[1]
            known = times is not None and size is not None
            steps = cast(int, times) * cast(int, size) if known else None
            yield from _needed_calls(node.step, inside, steps)
        else:
            yield node, times


def sum_flops(several: Iterable[int | None]) -> int | None:
    """Returns the sum of operations, or None if one of them is not known."""
    found = list(several)
    return None if None in found else sum(x for x in found if x is not None)


def flops_of(
    operation: keras.Operation,
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
) -> int | None:
    """Returns the operations of one call for one sample.

    Args:
        operation: The operation that is called.
        inputs: The shapes of its inputs, with the batch. If a size is open,
            the number is None.
        outputs: The shapes of its outputs, likewise.
    """
    if not outputs or not inputs:
        return 0
    first, out = inner_sizes(inputs[0]), inner_sizes(outputs[0])
    if first is None or out is None:
        return None
    if isinstance(operation, layers.TimeDistributed):
        steps = [[shape[0], *shape[2:]] for shape in (*inputs, *outputs)]
        once = _flops_inside(operation.layer, steps, len(inputs))
        return None if once is None else once * first[0]
    if isinstance(operation, layers.Wrapper):
        return _flops_inside(operation.layer, [*inputs, *outputs], len(inputs))
    if isinstance(operation, _CONVOLUTIONS):
        return 2 * _kernel_size(operation) * _positions(operation, out)
    if isinstance(operation, _TRANSPOSED):
        return 2 * _kernel_size(operation) * _positions(operation, first)
    if isinstance(operation, layers.MultiHeadAttention):
        keys = first if len(inputs) == 1 else inner_sizes(inputs[1])
        if keys is None:
            return None
        return _attention(operation, first, keys, out)
    if isinstance(operation, layers.Dense | layers.EinsumDense):
        return 2 * _kernel_size(operation) * prod(first[:-1])
    if isinstance(operation, layers.Embedding):
        return 0
    if isinstance(operation, layers.RNN | layers.Bidirectional):
        places = _recurrent_positions(operation, first)
        return 2 * operation.count_params() * places
    # Layers of users and KerasHub: each kernel once for each position.
    products = 0
    if isinstance(operation, keras.Layer) and _is_composite(operation):
        products = _kernel_size(operation)
    return 2 * products * prod(out[:-1]) + prod(out)


def _flops_inside(
    layer: keras.Layer, shapes: Sequence[Shape], inputs: int
) -> int | None:
    """Returns the operations of one call of a wrapped layer or network."""
    functional = as_functional(layer)
    if functional is None:
        return flops_of(layer, shapes[:inputs], shapes[inputs:])
    graph = read_graph(functional)
    wanted = [graph.reference(tensor) for tensor in graph.outputs]
    return sum_flops(_flops_of_calls(graph, wanted))


def _recurrent_positions(layer: keras.Layer, shape: Sequence[int]) -> int:
    """Returns the number of steps, in images times that of positions."""
    inner: Any = getattr(layer, "layer", layer)
    sizes = shape[2:] if _is_channels_first(inner) else shape[1:-1]
    return shape[0] * prod(sizes)


def _is_composite(layer: keras.Layer) -> bool:
    return len(list(compat.sublayers(layer))) > 1


def inner_sizes(shape: Shape) -> tuple[int, ...] | None:
    """Returns a shape without its batch, or None if a size is open."""
    sizes = tuple(size for size in shape[1:] if size is not None)
    return sizes if len(sizes) == len(shape[1:]) else None


def _kernel_size(layer: keras.Layer) -> int:
    """Returns the number of products for one position."""
    # By name: a bias may have two axes, as in attention.
    return sum(
        prod(weight.shape)
        for weight in layer.weights
        if weight.name.endswith("kernel")
    )


def _positions(layer: keras.Layer, shape: Sequence[int]) -> int:
    return prod(shape[1:] if _is_channels_first(layer) else shape[:-1])


def _is_channels_first(layer: keras.Layer) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


def _attention(
    layer: keras.Layer,
    first: Sequence[int],
    other: Sequence[int],
    out: Sequence[int],
) -> int:
    """Counts products of queries and keys, and projections of both."""
    queries, keys = prod(first[:-1]), prod(other[:-1])
    config = layer.get_config()
    heads, key_dim = config["num_heads"], config["key_dim"]
    value_dim = config["value_dim"] or key_dim
    # The kernels of query and output; the others are of key and value.
    per_query = heads * (first[-1] * key_dim + out[-1] * value_dim)
    per_key = _kernel_size(layer) - per_query
    products = heads * (key_dim + value_dim) * queries * keys
    return 2 * (queries * per_query + keys * per_key + products)
