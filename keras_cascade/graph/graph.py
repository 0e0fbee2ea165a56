"""Reads a network as a graph: each call of each operation, nesting kept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.names import stable_names
from keras_cascade.networks.loading import as_functional

# Where a tensor comes from: the keys of the calls that lead to it, a level of
# nesting each, and its place among the outputs of the last.
Reference = tuple[str | int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One call of one operation.

    Attributes:
        key: The operation's name in its network; `name:0`, `name:1` where it
            is called more than once.
        name: The operation's name in its network.
        operation: The operation itself.
        args: Its positional arguments, with KerasTensors for tensors.
        kwargs: Its keyword arguments.
        outputs: The tensors that it gives, flat.
        is_input: Whether it is an input of its network.
        inner: The graph of the operation where it is a network itself.
    """

    key: str
    name: str
    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: tuple[keras.KerasTensor, ...]
    is_input: bool = False
    inner: "Graph | None" = None

    @cached_property
    def tensors(self) -> list[keras.KerasTensor]:
        """The tensors among the arguments."""
        flat = keras.tree.flatten((self.args, self.kwargs))
        return [x for x in flat if isinstance(x, keras.KerasTensor)]

    @cached_property
    def inner_arguments(self) -> list[keras.KerasTensor]:
        """The tensors that a nested network gets, in order of its inputs."""
        given = self.args[0] if self.args else self.kwargs["inputs"]
        inputs = [] if self.inner is None else self.inner.inputs
        if isinstance(given, dict) and not isinstance(
            self.inner and self.inner.input_structure, dict
        ):
            return [given[tensor.name] for tensor in inputs]
        return keras.tree.flatten(given)


@dataclass(frozen=True, eq=False)
class Graph:
    """A functional network as the list of its calls, inputs first.

    Attributes:
        name: The network's name.
        nodes: The calls in topological order.
        input_structure: The inputs as the network takes them.
        output_structure: The outputs as the network gives them.
        sources: Of each tensor, by its id: the call that gives it, and its
            place among the call's outputs.
        network: What was read.
    """

    name: str
    nodes: tuple[Node, ...]
    input_structure: Any
    output_structure: Any
    sources: dict[int, tuple[Node, int]] = field(default_factory=dict)
    network: keras.Model | None = None

    @cached_property
    def inputs(self) -> list[keras.KerasTensor]:
        """The inputs, flat."""
        return keras.tree.flatten(self.input_structure)

    @cached_property
    def outputs(self) -> list[keras.KerasTensor]:
        """The outputs, flat."""
        return keras.tree.flatten(self.output_structure)

    @cached_property
    def by_key(self) -> dict[str, Node]:
        """The calls by their keys."""
        return {node.key: node for node in self.nodes}

    @cached_property
    def calls(self) -> dict[str, list[Node]]:
        """The calls of each operation, by the operation's name."""
        calls: dict[str, list[Node]] = {}
        for node in self.nodes:
            calls.setdefault(node.name, []).append(node)
        return calls

    def reference(self, tensor: keras.KerasTensor) -> Reference:
        """Where in this graph a tensor comes from."""
        node, index = self.sources[id(tensor)]
        return (node.key, index)

    def tensor(self, reference: Reference) -> keras.KerasTensor:
        """The symbolic tensor that a reference means."""
        node = self.by_key[str(reference[0])]
        if len(reference) == 2:
            return node.outputs[int(reference[1])]
        if node.inner is None:
            raise KeyError(reference)
        return node.inner.tensor(reference[1:])


def read_graph(network: keras.Model, keep_names: bool = False) -> Graph:
    """Reads a functional network, and the networks inside it.

    Args:
        network: A built Functional or Sequential model.
        keep_names: Whether operations keep the names that they have; by
            default those that Keras numbered are numbered within the network.
            Defaults to `False`.

    Returns:
        The graph. Nothing of the network is changed.

    Example:
    >>> graph = read_graph(keras.applications.VGG16(weights=None))
    >>> graph.nodes[1].key
    'block1_conv1'
    """
    return _read(network, keep_names, {})


def _read(
    network: keras.Model, keep_names: bool, known: dict[int, Graph]
) -> Graph:
    if id(network) in known:
        return known[id(network)]
    functional = as_functional(network)
    if functional is None:
        raise TypeError(f"'{network.name}' has no graph to read.")
    calls = _in_order_of_calls(compat.functional_calls(functional))
    keep = keep_names or getattr(network, "names_are_stable", False)
    operations = list({id(c.operation): c.operation for c in calls}.values())
    names = (
        {id(operation): operation.name for operation in operations}
        if keep
        else stable_names(operations)
    )
    graph = Graph(
        network.name,
        tuple(_nodes(calls, names, keep_names, known)),
        functional.input,
        functional.output,
        network=network,
    )
    for node in graph.nodes:
        for index, tensor in enumerate(node.outputs):
            graph.sources[id(tensor)] = (node, index)
    known[id(network)] = graph
    return graph


def _in_order_of_calls(calls: Sequence[compat.Call]) -> list[compat.Call]:
    """A topological order in which a layer's calls come as they were made.

    Keras goes by depth, where a layer's second call may come first; a copy
    made in that order would swap the two names.
    """
    before = _what_comes_before(calls)
    placed: dict[int, compat.Call] = {}
    for call in calls:
        stack = [call]
        while stack:
            missing = [x for x in before[id(stack[-1])] if id(x) not in placed]
            if missing:
                stack.append(missing[0])
            else:
                last = stack.pop()
                placed[id(last)] = last
    return list(placed.values())


def _what_comes_before(
    calls: Sequence[compat.Call],
) -> dict[int, list[compat.Call]]:
    """What gives a call its tensors, and the call of its layer before it."""
    sources = {id(x): call for call in calls for x in call.outputs}
    before = {
        id(call): [
            sources[id(x)]
            for x in keras.tree.flatten((call.args, call.kwargs))
            if not call.is_input and id(x) in sources
        ]
        for call in calls
    }
    last: dict[int, compat.Call] = {}
    for call in sorted(calls, key=lambda call: call.number):
        if id(call.operation) in last:
            before[id(call)].append(last[id(call.operation)])
        last[id(call.operation)] = call
    return before


def _nodes(
    calls: Sequence[compat.Call],
    names: dict[int, str],
    keep_names: bool,
    known: dict[int, Graph],
) -> list[Node]:
    times = Counter(id(call.operation) for call in calls)
    seen: Counter[int] = Counter()
    nodes = []
    for call in calls:
        operation, name = call.operation, names[id(call.operation)]
        many = times[id(operation)] > 1
        nodes.append(
            Node(
                key=f"{name}:{seen[id(operation)]}" if many else name,
                name=name,
                operation=operation,
                args=call.args,
                kwargs=call.kwargs,
                outputs=tuple(call.outputs),
                is_input=call.is_input,
                inner=_inner(operation, keep_names, known),
            )
        )
        seen[id(operation)] += 1
    return nodes


def _inner(
    operation: keras.Operation, keep_names: bool, known: dict[int, Graph]
) -> Graph | None:
    if not isinstance(operation, keras.Model):
        return None
    if as_functional(operation) is None:
        return None
    return _read(operation, keep_names, known)
