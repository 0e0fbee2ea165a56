"""Estimates the floating-point operations of a call from its shapes.

A multiplication and an addition count as two. Layers that multiply by a
kernel are counted exactly, attention with its products of queries, keys and
values, wrapped layers and networks once for each call. A layer that has
others inside counts their kernels once for each position of its output;
everything else counts one operation for each output element.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import prod
from operator import or_
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.graph import Graph, Node, Reference, read_graph
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


class Costs:
    """The cost of each tensor of a network, from one walk over its calls.

    Each tensor has the set of calls and layers that it depends on, as the
    bits of an integer: the work grows all but linearly with the network.

    Args:
        graph: The network.

    Example:
    >>> inputs = keras.Input((4,), name="x")
    >>> network = keras.Model(inputs, layers.Dense(3, name="fc")(inputs))
    >>> costs = Costs(read_graph(network))
    >>> costs.parameters(("fc", 0)), costs.flops(("fc", 0))
    (15, 24)
    """

    def __init__(self, graph: Graph):
        # Each call has a bit, and each layer, whose parameters count once.
        self._bits: list[tuple[int | None, int]] = []
        self._layers: dict[int, int] = {}
        self._needs: dict[Reference, int] = {}
        self._visit(graph, (), [0] * len(graph.inputs), 1)
        # An open size makes the operations of a call -1.
        costs = [(-1 if x is None else x, n) for x, n in self._bits]
        self._costs = np.array(costs, "int64").reshape(-1, 2)

    def flops(self, *references: Reference) -> int | None:
        """Returns the operations for one sample up to some tensors.

        The number is None if a size is open.
        """
        needed = self._costs[self._needed(references), 0]
        return None if (needed < 0).any() else int(needed.sum())

    def parameters(self, *references: Reference) -> int:
        """Counts the parameters that tensors depend on, each layer once."""
        return int(self._costs[self._needed(references), 1].sum())

    def _needed(self, references: Iterable[Reference]) -> np.ndarray:
        """Returns whether each call or layer is needed for some tensors."""
        needs = reduce(or_, (self._needs[x] for x in references))
        data = needs.to_bytes(len(self._bits) // 8 + 1, "little")
        bits = np.unpackbits(np.frombuffer(data, "uint8"), bitorder="little")
        return bits[: len(self._bits)].astype(bool)

    def _visit(
        self,
        graph: Graph,
        address: Reference,
        given: Iterable[int],
        times: int | None,
    ) -> list[int]:
        """Adds the calls of a network; returns the needs of its outputs.

        Args:
            graph: The network.
            address: The keys of the calls that lead to it.
            given: The needs of its inputs.
            times: The number of steps for which it is called; None if it is
                not known.
        """
        needs = dict(zip(map(id, graph.inputs), given, strict=True))
        for node in graph.nodes:
            found = self._visit_call(node, (*address, node.key), needs, times)
            needs |= zip(map(id, node.outputs), found, strict=True)
            for index, x in enumerate(node.outputs):
                self._needs[(*address, node.key, index)] = needs[id(x)]
        return [needs[id(x)] for x in graph.outputs]

    def _visit_call(
        self,
        node: Node,
        address: Reference,
        needs: Mapping[int, int],
        times: int | None,
    ) -> list[int]:
        """Adds a call; returns the needs of its outputs."""
        if node.is_input:
            return [needs[id(x)] for x in node.outputs]
        if node.inner is not None:
            given = [needs[id(x)] for x in node.inner_arguments]
            return self._visit(node.inner, address, given, times)
        every = reduce(or_, (needs[id(x)] for x in node.tensors), 0)
        if node.step is not None:
            steps = _times(times, node.tensors[0].shape[1])
            given = [every] * len(node.step.inputs)
            return self._visit(node.step, address, given, steps)
        own = self._add_call(node, times) | self._add_layer(node.operation)
        return [every | own] * len(node.outputs)

    def _add_call(self, node: Node, times: int | None) -> int:
        inputs = [x.shape for x in node.tensors]
        outputs = [x.shape for x in node.outputs]
        once = flops_of(node.operation, inputs, outputs)
        return self._add_bit(_times(times, once), 0)

    def _add_layer(self, operation: keras.Operation) -> int:
        if not isinstance(operation, keras.Layer):
            return 0
        if id(operation) not in self._layers:
            bit = self._add_bit(0, operation.count_params())
            self._layers[id(operation)] = bit
        return self._layers[id(operation)]

    def _add_bit(self, flops: int | None, parameters: int) -> int:
        self._bits.append((flops, parameters))
        return 1 << (len(self._bits) - 1)


def _times(times: int | None, number: int | None) -> int | None:
    return None if times is None or number is None else times * number


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
    return Costs(graph).flops(*map(graph.reference, graph.outputs))


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
