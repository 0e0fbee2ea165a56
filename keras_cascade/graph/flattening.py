"""A graph without its nesting: every call of every level, on plain tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_cascade.graph.as_input import as_input
from keras_cascade.graph.graph import Graph, Node, Reference
from keras_cascade.graph.paths import Address


@dataclass(frozen=True)
class Source:
    """Stands for a tensor among the arguments of a call.

    Attributes:
        reference: Where it comes from; None if that is not in the graph.
    """

    reference: Reference | None


@dataclass(frozen=True, eq=False)
class FlatCall:
    """One call of an operation that is no network.

    Attributes:
        address: The keys of the calls that lead to it.
        operation: The operation itself.
        inputs: Where its tensors come from, masks left out; what is no tensor
            of the graph is None.
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
    """The calls of a graph, with the borders of nested networks taken away.

    A tensor goes by the reference of the call that gives it, at whatever
    level; what crosses a border keeps the reference of where it comes from.
    Where Keras casts it there, or adjusts its rank, that is a call too, and
    what it gives goes by the reference of the input.

    Attributes:
        calls: In topological order.
        inputs: The inputs of the network.
        outputs: Its outputs; None if that is not in the graph.
        shapes: Of each tensor, with the batch.
        dtypes: Of each tensor.
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
        """The reference by which a tensor goes here."""
        return self.aliases.get(reference, reference)


def flatten(graph: Graph) -> FlatGraph:
    """Takes the nesting of a graph away.

    Args:
        graph: The network; it stays as it is.

    Example:
    >>> flat = flatten(read_graph(keras.applications.VGG16(weights=None)))
    >>> flat.consumers[flat.inputs[0]][0].name
    "Conv2D 'block1_conv1'"
    """
    flat = FlatGraph()
    flat.outputs.extend(_walk(graph, (), None, flat))
    return flat


def _walk(
    graph: Graph,
    prefix: Address,
    given: Sequence[Reference | None] | None,
    flat: FlatGraph,
) -> list[Reference | None]:
    """Adds a level; gives where its outputs come from."""
    known: dict[int, Reference | None] = {}
    for position, tensor in enumerate(graph.inputs):
        own = (*prefix, graph.sources[id(tensor)][0].key, 0)
        known[id(tensor)] = own if given is None else given[position]
        if given is None:
            flat.inputs.append(own)
            flat.shapes[own] = tuple(tensor.shape)
            flat.dtypes[own] = tensor.dtype
        elif (origin := given[position]) is not None and origin != own:
            flat.aliases[own] = origin
    for node in graph.nodes:
        if node.is_input:
            continue
        if node.inner is None:
            _add(node, prefix, known, flat)
        else:
            _enter(node, node.inner, prefix, known, flat)
    return [known.get(id(tensor)) for tensor in graph.outputs]


def _add(
    node: Node,
    prefix: Address,
    known: dict[int, Reference | None],
    flat: FlatGraph,
) -> None:
    address = (*prefix, node.key)
    outputs = tuple((*address, i) for i in range(len(node.outputs)))
    inputs = tuple(known.get(id(x)) for x in _tensors(node))
    args, kwargs = _sources(node.args, known), _sources(node.kwargs, known)
    call = FlatCall(address, node.operation, inputs, outputs, args, kwargs)
    _note(call, node.outputs, flat)
    known.update(zip(map(id, node.outputs), outputs, strict=True))


def _note(
    call: FlatCall, tensors: Sequence[keras.KerasTensor], flat: FlatGraph
) -> None:
    """Adds a call, with what it gives."""
    flat.calls.append(call)
    for reference in dict.fromkeys(call.inputs):
        if reference is not None:
            flat.consumers.setdefault(reference, []).append(call)
    for tensor, reference in zip(tensors, call.outputs, strict=True):
        flat.producers[reference] = call
        flat.shapes[reference] = tuple(tensor.shape)
        flat.dtypes[reference] = tensor.dtype


def _sources(structure: Any, known: dict[int, Reference | None]) -> Any:
    """The arguments with a `Source` for each tensor."""

    def source(x: Any) -> Any:
        return (
            Source(known.get(id(x))) if isinstance(x, keras.KerasTensor) else x
        )

    return keras.tree.map_structure(source, structure)


def _enter(
    node: Node,
    inner: Graph,
    prefix: Address,
    known: dict[int, Reference | None],
    flat: FlatGraph,
) -> None:
    address = (*prefix, node.key)
    given = [
        _cross(
            known.get(id(x)), (*address, *inner.reference(tensor)), tensor, flat
        )
        for x, tensor in zip(node.inner_arguments, inner.inputs, strict=True)
    ]
    origins = _walk(inner, address, given, flat)
    for index, origin in enumerate(origins):
        known[id(node.outputs[index])] = origin
        if origin is not None:
            flat.aliases[*address, index] = origin


def _cross(
    origin: Reference | None,
    own: Reference,
    tensor: keras.KerasTensor,
    flat: FlatGraph,
) -> Reference | None:
    """Where an input of a nested network comes from, as the network takes it.

    Args:
        origin: The tensor that is given.
        own: The reference of the input.
        tensor: The input.
        flat: Gets the call that makes the one of the other.
    """
    if origin is None:
        return None
    operation = as_input(flat.shapes[origin], flat.dtypes[origin], tensor)
    if operation is None:
        return origin
    address = tuple(map(str, own[:-1]))
    args = (Source(origin),)
    call = FlatCall(address, operation, (origin,), (own,), args, {})
    _note(call, [tensor], flat)
    return own


def _tensors(node: Node) -> list[keras.KerasTensor]:
    """The tensors that a call works on; Keras notes masks down with them."""
    kwargs = {k: v for k, v in node.kwargs.items() if k != "mask"}
    flat = keras.tree.flatten((node.args, kwargs))
    return [x for x in flat if isinstance(x, keras.KerasTensor)]
