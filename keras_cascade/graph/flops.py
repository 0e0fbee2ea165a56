"""Estimates the floating-point operations of a call from its shapes.

A multiplication and an addition count as two. Layers that multiply by a
kernel are counted exactly, attention with its products of queries, keys and
values; for everything else an operation for each element that goes out.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import keras

from keras_cascade.graph.graph import Graph, Node, Reference
from keras_cascade.graph.pruning import find_needed

layers = keras.layers

# With the batch; open sizes are None.
Shape = Sequence[Any]

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
    """Operations for one sample, up to a tensor; `None` where a size is open.

    Args:
        graph: The network.
        reference: The tensor.
    """
    return _sum(graph, [reference])


def parameters_up_to(graph: Graph, reference: Reference) -> int:
    """The parameters that a tensor depends on, each layer counted once."""
    found: dict[int, int] = {}
    _collect_parameters(graph, [reference], found)
    return sum(found.values())


def _sum(graph: Graph, wanted: Sequence[Reference]) -> int | None:
    demand = find_needed(graph, wanted, per_call=True)
    total = 0
    for node in graph.nodes:
        if node.key not in demand.nodes or node.is_input:
            continue
        flops = (
            _flops(node)
            if node.inner is None
            else _sum(node.inner, list(demand.inside[node.key]))
        )
        if flops is None:
            return None
        total += flops
    return total


def _collect_parameters(
    graph: Graph, wanted: Sequence[Reference], found: dict[int, int]
) -> None:
    demand = find_needed(graph, wanted, per_call=True)
    for node in graph.nodes:
        if node.key not in demand.nodes:
            continue
        if node.inner is not None:
            inside = list(demand.inside[node.key])
            _collect_parameters(node.inner, inside, found)
        elif isinstance(node.operation, keras.Layer):
            found[id(node.operation)] = node.operation.count_params()


def flops_of(
    operation: Any, given: Sequence[Shape], gives: Sequence[Shape]
) -> int | None:
    """Operations of one call for one sample; `None` where a size is open.

    Args:
        operation: What is called.
        given: The shapes of the tensors that it works on, with the batch.
        gives: The shapes of those that it gives, likewise.
    """
    if not gives or not given:
        return 0
    first, out = given[0][1:], gives[0][1:]
    if None in first or None in out:
        return None
    if isinstance(operation, _CONVOLUTIONS):
        return 2 * _kernel_size(operation) * _positions(operation, out)
    if isinstance(operation, _TRANSPOSED):
        return 2 * _kernel_size(operation) * _positions(operation, first)
    if isinstance(operation, layers.MultiHeadAttention):
        return _attention(operation, given, out)
    if isinstance(operation, (layers.Dense, layers.EinsumDense)):
        return 2 * _kernel_size(operation) * prod(first[:-1])
    if isinstance(operation, layers.Embedding):
        return 0
    if isinstance(operation, layers.RNN | layers.Bidirectional):
        return 2 * operation.count_params() * first[0]
    return prod(out)


def _flops(node: Node) -> int | None:
    return flops_of(
        node.operation,
        [x.shape for x in node.tensors],
        [x.shape for x in node.outputs],
    )


def _kernel_size(layer: keras.Layer) -> int:
    """How many products a position costs: the sizes of the kernels."""
    # By name: a bias may have two axes, as in attention.
    return sum(
        prod(weight.shape)
        for weight in layer.weights
        if weight.name.endswith("kernel")
    )


def _positions(layer: keras.Layer, shape: Sequence[int]) -> int:
    if layer.data_format == "channels_first":
        return prod(shape[1:])
    return prod(shape[:-1])


def _attention(
    layer: Any, given: Sequence[Shape], out: Sequence[int]
) -> int | None:
    """Queries meet the keys; both are projected, each for its own tokens."""
    first, other = given[0][1:], (given[1] if len(given) > 1 else given[0])[1:]
    if None in other:
        return None
    queries, keys = prod(first[:-1]), prod(other[:-1])
    config: Any = layer.get_config()
    per_query, per_key = _projections(layer, config, first[-1], out[-1])
    products = config["key_dim"] + (config["value_dim"] or config["key_dim"])
    products *= config["num_heads"] * queries * keys
    return 2 * (queries * per_query + keys * per_key + products)


def _projections(
    layer: Any, config: dict, width: int, out: int
) -> tuple[int, int]:
    """The kernels' sizes: of query and output, of key and value."""
    value_dim = config["value_dim"] or config["key_dim"]
    query, output = width * config["key_dim"], out * value_dim
    per_query = config["num_heads"] * (query + output)
    return per_query, _kernel_size(layer) - per_query
