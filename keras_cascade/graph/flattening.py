"""Flattens a graph: every call of every level, on plain tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_cascade.graph.as_input import as_input
from keras_cascade.graph.graph import Graph, Node, Reference
from keras_cascade.graph.paths import Address

# The tensors that are known at a level, by their ids, and where they come
# from; None if that is not in the graph.
_Origins = dict[int, Reference | None]


@dataclass(frozen=True)
class Source:
    """Stands for a tensor among the arguments of a call.

    Attributes:
        reference: The tensor; None if it is not in the graph.
    """

    reference: Reference | None


@dataclass(frozen=True, eq=False)
class FlatCall:
    """One call of an operation that is no network.

    Attributes:
        address: The keys of the calls that lead to it.
        operation: The operation itself.
        inputs: The tensors that it works on, without masks; None for one that
            is not in the graph.
        outputs: The tensors that it gives.
        args: Its positional arguments, with a `Source` for each tensor.
        kwargs: Its keyword arguments, likewise, masks included.
    """

    address: Address
    operation: keras.Operation
    inputs: tuple[Reference | None, ...]
    outputs: tuple[Reference, ...]
    args: tuple
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The operation's class and path, for messages."""
        path = "/".join(self.address)
        return f"{type(self.operation).__name__} '{path}'"


@dataclass(frozen=True, eq=False)
class FlatGraph:
    """The calls of a graph without the borders of nested networks.

    A tensor that enters or leaves a nested network keeps the reference of the
    call that gives it. Where Keras casts it or adjusts its rank on entering,
    that is a call too, and its output has the reference of the input.

    Attributes:
        calls: The calls in topological order.
        inputs: The inputs of the network.
        outputs: Its outputs; None for one that is not in the graph.
        shapes: The shape of each tensor, with the batch.
        dtypes: The dtype of each tensor.
        producers: The call that gives a tensor; inputs have none.
        consumers: The calls that a tensor goes into.
        aliases: The other references of tensors that cross borders.
    """

    calls: list[FlatCall] = field(default_factory=list)
    inputs: list[Reference] = field(default_factory=list)
    outputs: list[Reference | None] = field(default_factory=list)
    shapes: dict[Reference, tuple] = field(default_factory=dict)
    dtypes: dict[Reference, str] = field(default_factory=dict)
    producers: dict[Reference, FlatCall] = field(default_factory=dict)
    consumers: dict[Reference, list[FlatCall]] = field(default_factory=dict)
    aliases: dict[Reference, Reference] = field(default_factory=dict)

    def resolve(self, reference: Reference) -> Reference:
        """Returns the reference of a tensor without the borders it crosses."""
        return self.aliases.get(reference, reference)

    def add_tensor(
        self, reference: Reference, tensor: keras.KerasTensor
    ) -> None:
        """Adds a tensor's shape and dtype."""
        self.shapes[reference] = tuple(tensor.shape)
        self.dtypes[reference] = tensor.dtype

    def add_call(
        self, call: FlatCall, outputs: Sequence[keras.KerasTensor]
    ) -> None:
        """Adds a call and its outputs."""
        self.calls.append(call)
        for reference in dict.fromkeys(call.inputs):
            if reference is not None:
                self.consumers.setdefault(reference, []).append(call)
        for tensor, reference in zip(outputs, call.outputs, strict=True):
            self.producers[reference] = call
            self.add_tensor(reference, tensor)


def flatten(graph: Graph) -> FlatGraph:
    """Returns the calls of a graph and of the networks nested in it."""
    flat = FlatGraph()
    origins: _Origins = {}
    for tensor in graph.inputs:
        reference = graph.reference(tensor)
        origins[id(tensor)] = reference
        flat.inputs.append(reference)
        flat.add_tensor(reference, tensor)
    flat.outputs.extend(_add_level(graph, (), origins, flat))
    return flat


def _add_level(
    graph: Graph, prefix: Address, origins: _Origins, flat: FlatGraph
) -> list[Reference | None]:
    """Adds the calls of one level; returns the origins of its outputs."""
    for node in graph.nodes:
        if node.is_input:
            continue
        address = (*prefix, node.key)
        if node.inner is None:
            outputs: list[Reference | None] = _add_call(
                node, address, origins, flat
            )
        else:
            outputs = _enter(node, node.inner, address, origins, flat)
        origins.update(zip(map(id, node.outputs), outputs, strict=True))
    return [origins.get(id(tensor)) for tensor in graph.outputs]


def _add_call(
    node: Node, address: Address, origins: _Origins, flat: FlatGraph
) -> list[Any]:
    def source(x: Any) -> Any:
        is_tensor = isinstance(x, keras.KerasTensor)
        return Source(origins.get(id(x))) if is_tensor else x

    call = FlatCall(
        address,
        node.operation,
        tuple(origins.get(id(x)) for x in _inputs(node)),
        tuple((*address, index) for index in range(len(node.outputs))),
        keras.tree.map_structure(source, node.args),
        keras.tree.map_structure(source, node.kwargs),
    )
    flat.add_call(call, node.outputs)
    return list(call.outputs)


def _enter(
    node: Node,
    inner: Graph,
    address: Address,
    origins: _Origins,
    flat: FlatGraph,
) -> list[Reference | None]:
    """Adds the calls of a nested network."""
    own: _Origins = {}
    for given, tensor in zip(node.inner_arguments, inner.inputs, strict=True):
        reference = (*address, *inner.reference(tensor))
        origin = _convert(origins.get(id(given)), reference, tensor, flat)
        own[id(tensor)] = origin
        if origin is not None and origin != reference:
            flat.aliases[reference] = origin
    outputs = _add_level(inner, address, own, flat)
    for index, origin in enumerate(outputs):
        if origin is not None:
            flat.aliases[*address, index] = origin
    return outputs


def _convert(
    origin: Reference | None,
    reference: Reference,
    tensor: keras.KerasTensor,
    flat: FlatGraph,
) -> Reference | None:
    """Returns `origin` as an input takes it, after a call if it must be."""
    if origin is None:
        return None
    operation = as_input(flat.shapes[origin], flat.dtypes[origin], tensor)
    if operation is None:
        return origin
    address = tuple(map(str, reference[:-1]))
    args = (Source(origin),)
    call = FlatCall(address, operation, (origin,), (reference,), args, {})
    flat.add_call(call, [tensor])
    return reference


def _inputs(node: Node) -> list[keras.KerasTensor]:
    """Returns the tensors that a call works on, without masks."""
    # Keras records masks among the keyword arguments.
    kwargs = {k: v for k, v in node.kwargs.items() if k != "mask"}
    flat = keras.tree.flatten((node.args, kwargs))
    return [x for x in flat if isinstance(x, keras.KerasTensor)]
