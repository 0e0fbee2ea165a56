"""Reads a network as a graph: each call of each operation, nesting kept."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.names import stable_names
from keras_cascade.graph.step_shapes import (
    is_called_per_step,
    of_all_steps,
    without_steps,
)
from keras_cascade.networks.loading import as_functional

# Names a tensor: the keys of the calls that lead to it, one for each level of
# nesting, and its position among the outputs of the last call.
Reference = tuple[str | int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One call of one operation.

    Attributes:
        key: The operation's name in its network; `name:0`, `name:1` if it is
            called more than once.
        name: The operation's name in its network.
        operation: The operation itself.
        args: The positional arguments, with KerasTensors for tensors.
        kwargs: The keyword arguments.
        outputs: The output tensors, flat.
        is_input: Whether the call is an input of its network.
        inner: The graph of the operation if that is a network itself.
        step: The graph of one step, if the operation calls a network once per
            step.
        steps: The same on the tensors of all steps, (batch, steps, ...).
    """

    key: str
    name: str
    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: tuple[keras.KerasTensor, ...]
    is_input: bool = False
    inner: "Graph | None" = None
    step: "Graph | None" = None
    steps: "Graph | None" = None

    @property
    def within(self) -> "Graph | None":
        """The graph of what the operation calls."""
        return self.steps if self.inner is None else self.inner

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
        # Keras takes a dict by name for a list of inputs, too.
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
        input_structure: The inputs, in the structure that the network takes.
        output_structure: The outputs, in the structure that it returns.
        network: The network that was read.
    """

    name: str
    nodes: tuple[Node, ...]
    input_structure: Any
    output_structure: Any
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
    def sources(self) -> dict[int, tuple[Node, int]]:
        """The call and the output position of each tensor, by its id."""
        return {
            id(tensor): (node, index)
            for node in self.nodes
            for index, tensor in enumerate(node.outputs)
        }

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

    def walk(self, steps: bool = False) -> Iterator[tuple[Node, ...]]:
        """Yields every call, after the calls of the networks that it is in.

        `steps` adds those of networks that are called once per step.
        """
        for node in self.nodes:
            yield (node,)
            graph = node.within if steps else node.inner
            for inside in graph.walk(steps) if graph else ():
                yield (node, *inside)

    def node(self, address: Iterable[str | int]) -> Node:
        """Returns the call that the keys of an address lead to."""
        first, *rest = address
        node = self.by_key[str(first)]
        if not rest:
            return node
        if node.within is None:
            raise KeyError(address)
        return node.within.node(rest)

    def reference(self, tensor: keras.KerasTensor) -> Reference:
        """Returns the reference of a tensor of this level."""
        node, index = self.sources[id(tensor)]
        return (node.key, index)

    def tensor(self, reference: Reference) -> keras.KerasTensor:
        """Returns the symbolic tensor of a reference."""
        return self.node(reference[:-1]).outputs[int(reference[-1])]


def at_one_step(graph: Graph, reference: Reference) -> tuple[Graph, Reference]:
    """Returns the network of one step that a tensor is in, and its place there.

    They are the graph and the reference themselves for tensors that are in
    no network that is called once per step.
    """
    for depth in range(1, len(reference) - 1):
        step = graph.node(reference[:depth]).step
        if step is not None:
            return _inside_step(step, reference[depth:])
    return graph, reference


def _inside_step(step: Graph, reference: Reference) -> tuple[Graph, Reference]:
    (call,) = step.nodes
    inside = reference[1:]
    if len(inside) == 1:  # its output
        within = cast(Graph, call.within)
        inside = within.reference(within.outputs[int(inside[0])])
    if call.inner is None:
        return at_one_step(step, (call.key, *inside))
    return at_one_step(call.inner, inside)


def read_graph(network: keras.Model, keep_names: bool = False) -> Graph:
    """Reads a functional network, and the networks inside it.

    Args:
        network: A built Functional or Sequential model.
        keep_names: Whether operations keep their names; by default those that
            Keras numbered are numbered within the network. Defaults to
            `False`.

    Returns:
        The graph. Nothing of the network is changed.

    Example:
    >>> graph = read_graph(keras.applications.VGG16(weights=None))
    >>> graph.nodes[1].key
    'block1_conv1'
    """
    graph = _read(network, keep_names, {}, {})
    if graph is None:
        raise TypeError(f"'{network.name}' has no graph to read.")
    return graph


def _read(
    network: keras.Operation,
    keep_names: bool,
    known: dict[int, Graph],
    named: dict[int, str],
) -> Graph | None:
    """Returns the graph of an operation, or None if it is no network.

    Operations that another level has named already keep that name.
    """
    if id(network) in known:
        return known[id(network)]
    functional = as_functional(network)
    if functional is None:
        return None
    calls = _sort_calls(compat.functional_calls(functional))
    operations = list({id(c.operation): c.operation for c in calls}.values())
    if keep_names or getattr(network, "names_are_stable", False):
        names = {id(operation): operation.name for operation in operations}
    else:
        names = stable_names(operations, named)
    named |= names
    graph = Graph(
        network.name,
        tuple(_nodes(calls, names, keep_names, known, named)),
        functional.input,
        functional.output,
        cast(keras.Model, network),
    )
    known[id(network)] = graph
    return graph


def _sort_calls(calls: Sequence[compat.Call]) -> list[compat.Call]:
    """Sorts calls topologically, those of one layer as they were made."""
    # Keras sorts by depth, which may put a layer's second call first. A copy
    # made in that order would swap the names of the two calls.
    predecessors = _predecessors(calls)
    placed: dict[int, compat.Call] = {}
    for call in calls:
        stack = [call]
        while stack:
            waiting = predecessors[id(stack[-1])]
            missing = [x for x in waiting if id(x) not in placed]
            if missing:
                stack.append(missing[0])
            else:
                last = stack.pop()
                placed[id(last)] = last
    return list(placed.values())


def _predecessors(calls: Sequence[compat.Call]) -> dict[int, list[compat.Call]]:
    """Returns the calls that feed a call, and the one of its layer before."""
    sources = {id(x): call for call in calls for x in call.outputs}
    found = {
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
            found[id(call)].append(last[id(call.operation)])
        last[id(call.operation)] = call
    return found


def _nodes(
    calls: Sequence[compat.Call],
    names: dict[int, str],
    keep_names: bool,
    known: dict[int, Graph],
    named: dict[int, str],
) -> Iterator[Node]:
    times = Counter(id(call.operation) for call in calls)
    seen: Counter[int] = Counter()
    for call in calls:
        operation, number = call.operation, seen[id(call.operation)]
        name = names[id(operation)]
        step, steps = None, None
        if is_called_per_step(operation):
            step = _read_step(call, keep_names, known, named)
        if step is not None:
            steps = _of_all_steps(step, _only(call.args).shape[1])
        yield Node(
            key=f"{name}:{number}" if times[id(operation)] > 1 else name,
            name=name,
            operation=operation,
            args=call.args,
            kwargs=call.kwargs,
            outputs=tuple(call.outputs),
            is_input=call.is_input,
            inner=_read(operation, keep_names, known, named),
            step=step,
            steps=steps,
        )
        seen[id(operation)] += 1


def _read_step(
    call: compat.Call,
    keep_names: bool,
    known: dict[int, Graph],
    named: dict[int, str],
) -> Graph | None:
    """Returns the graph of one step: one call of the layer inside.

    It is None if that is no network, nor calls one once per step itself.
    """
    operation: Any = call.operation
    layer: Any = operation.layer
    x, *outputs = (
        keras.KerasTensor(without_steps(y.shape), y.dtype)
        for y in (_only(call.args), *call.outputs)
    )
    one = compat.Call(layer, (x,), {}, outputs, False, 0)
    names = {id(layer): layer.name if keep_names else _name(layer, named)}
    (node,) = _nodes([one], names, keep_names, known, named)
    if node.within is None:
        return None
    return Graph(operation.name, (node,), x, outputs)


def _name(layer: keras.Layer, named: dict[int, str]) -> str:
    return stable_names([layer], named)[id(layer)]


def _only(args: tuple) -> keras.KerasTensor:
    (tensor,) = keras.tree.flatten(args)
    return tensor


def _of_all_steps(graph: Graph, steps: int | None) -> Graph:
    """Returns the graph of one step on the tensors of all steps."""
    made: dict[int, keras.KerasTensor] = {}

    def convert(x: Any) -> Any:
        if not isinstance(x, keras.KerasTensor):
            return x
        return made.setdefault(id(x), of_all_steps(x, steps))

    def inside(other: Graph | None) -> Graph | None:
        return None if other is None else _of_all_steps(other, steps)

    def every(structure: Any) -> Any:
        return keras.tree.map_structure(convert, structure)

    nodes = tuple(
        replace(
            node,
            args=every(node.args),
            kwargs=every(node.kwargs),
            outputs=tuple(map(convert, node.outputs)),
            inner=inside(node.inner),
            steps=inside(node.steps),
        )
        for node in graph.nodes
    )
    ends = every(graph.input_structure), every(graph.output_structure)
    return Graph(graph.name, nodes, *ends, graph.network)
