"""Replays a graph with copies of its layers: builds networks from graphs.

Tested by `tests/graph/test_copying.py`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import keras

from keras_cascade.graph.block import Block, read_flags
from keras_cascade.graph.graph import Graph, Node, Reference
from keras_cascade.graph.layer_copying import copy_operation, copy_state
from keras_cascade.graph.names import rename
from keras_cascade.graph.paths import LayerPath
from keras_cascade.graph.pruning import find_needed
from keras_cascade.graph.reconstruction import Provenance, reconstruct
from keras_cascade.graph.stepwise import (
    StepBlock,
    Stepwise,
    call_in_stock_layers,
)
from keras_cascade.graph.tensors import input_like, pack_in_order
from keras_cascade.graph.weight_files import Layout

# The tensors of a copy by the ids of the original's.
_Values = dict[int, keras.KerasTensor]
# Those inside nested networks, by their references.
_Inner = dict[Reference, keras.KerasTensor]
# A network by its id, and the tensors that a copy gives; None: its own.
_View = tuple[int, frozenset[Reference] | None]


@dataclass
class Replay:
    """Builds blocks from graphs; each layer is copied once.

    A layer that several graphs have is one layer in their copies, too, if one
    `Replay` builds them all.

    Attributes:
        share: Whether the layers themselves are used instead of copies.
        network_class: The class of the networks.
        replace: Layers that stand for another one in the copy, to apply in
            order, by the other layer's id.
        copies: A layer and its copy, by the layer's id.
        blocks: The copy of a nested network and the positions of the inputs
            that it takes, by the network's id and the tensors that it gives.
        stepwise: The layer that calls a network once per step, likewise.
        stated: The ids of the layers whose copies have their weights.
        sources: The network and the path in it that a layer comes from, if
            only that network's class can make it; by the ids of the original
            and of the copy.
        several: The ids of networks' layers that are called once per step, in
            several places: what one of them taps inside is the layer of all.
        made: The copy that the class made, until it is used, by the id of the
            original.
    """

    share: bool = False
    network_class: type[keras.Model] = Block
    replace: Mapping[int, list[keras.Layer]] = field(default_factory=dict)
    copies: dict[int, tuple[keras.Operation, keras.Operation]] = field(
        default_factory=dict
    )
    blocks: dict[_View, tuple[keras.Model, list[int]]] = field(
        default_factory=dict
    )
    stepwise: dict[_View, Stepwise] = field(default_factory=dict)
    stated: set[int] = field(default_factory=set)
    sources: dict[int, tuple[dict, LayerPath]] = field(default_factory=dict)
    several: frozenset[int] = frozenset()
    made: dict[int, keras.Operation] = field(default_factory=dict)

    def build(
        self,
        graph: Graph,
        name: str,
        outputs: Mapping[str, Reference] | None = None,
        whole: bool = False,
    ) -> tuple[keras.Model, list[int]]:
        """Builds a network, or the part of it that some tensors need.

        Args:
            graph: The network.
            name: The name of the copy.
            outputs: The tensors that the copy gives, by their names. Defaults
                to `None`: the network's own outputs, in their structure.
            whole: Whether inputs that the outputs do not need, and the calls
                that depend on them, are kept. Defaults to `False`.

        Returns:
            The copy, and the positions of the inputs that it takes.
        """
        self._reconstruct(graph)
        own = [graph.reference(tensor) for tensor in graph.outputs]
        wanted = own if outputs is None else list(outputs.values())
        needed = None if whole else find_needed(graph, wanted)
        positions = needed.inputs if needed else [*range(len(graph.inputs))]
        inputs = [_copy_input(graph, position) for position in positions]
        values = {
            id(graph.inputs[i]): x
            for i, x in zip(positions, inputs, strict=True)
        }
        inner: _Inner = {}
        for node in graph.nodes:
            if node.is_input or (needed and node.key not in needed.nodes):
                continue
            inside = needed.inside.get(node.name) if needed else None
            if node.step is not None and self._is_cut(node, inside):
                self._call_steps(node, inside, values, inner)
            elif node.inner is None:
                flat = keras.tree.flatten(self._call(node, values, graph))
                values.update(zip(map(id, node.outputs), flat, strict=True))
            else:
                mode = self._recorded_mode(node, graph)
                self._call_nested(node, inside, values, inner, mode)
        tensors = [
            inner[ref] if len(ref) > 2 else values[id(graph.tensor(ref))]
            for ref in wanted
        ]
        results: Any = dict(zip(outputs or (), tensors, strict=False))
        if outputs is None:
            structure = graph.output_structure
            results = pack_in_order(structure, tensors)
        if len(positions) == len(graph.inputs):
            inputs = pack_in_order(graph.input_structure, inputs)
        network = self._network(inputs, results, name)
        if isinstance(network, Block):
            layout = Layout.of_source(graph, network)
            if layout != Layout.of_block(network):
                network.layout = layout
        return network, positions

    def copy_states(self) -> None:
        """Gives the copies the weights and flags of the originals."""
        for key, (source, target) in self.copies.items():
            # A merge that was inserted has never been built.
            if (
                key not in self.stated
                and isinstance(source, keras.Layer)
                and isinstance(target, keras.Layer)
                and source.built
            ):
                copy_state(source, target)
                self.stated.add(key)

    def _reconstruct(self, graph: Graph) -> None:
        """Has layers that only their network's class can make made by it."""
        if any(id(node.operation) in self.sources for node in graph.nodes):
            return
        whole = reconstruct(graph, self.share)
        if whole is None:
            return
        for key, path in whole.paths.items():
            self.sources[key] = (whole.origin, path)
            if not self.share:
                self.made[key] = whole.operations[path]

    def _network(self, inputs: Any, outputs: Any, name: str) -> keras.Model:
        network = self.network_class(inputs, outputs, name=name)
        found = {
            operation.name: self.sources[id(operation)]
            for operation in network.operations
            if id(operation) in self.sources
        }
        if found and isinstance(network, Block):
            origin, _ = next(iter(found.values()))
            paths = {name: path for name, (_, path) in found.items()}
            network.provenance = Provenance(origin, paths)
        return network

    def _recorded_mode(self, node: Node, graph: Graph) -> dict[str, Any]:
        """Returns the `training` that a call records, if it has an effect."""
        recorded = node.kwargs.get("training")
        # Frozen layers of a block run in inference mode; Keras's own do not.
        becomes_stock = isinstance(graph.network, Block) and not issubclass(
            self.network_class, Block
        )
        is_frozen = becomes_stock and _has_frozen(node.operation)
        return {} if recorded is None or is_frozen else {"training": recorded}

    def _call_nested(
        self,
        node: Node,
        wanted: Iterable[Reference] | None,
        values: _Values,
        inner: _Inner,
        mode: Mapping[str, Any],
    ) -> None:
        """Calls the copy of a nested network, whole or with some outputs."""
        graph = cast(Graph, node.inner)
        own = [graph.reference(tensor) for tensor in graph.outputs]
        if wanted is not None and set(wanted) == set(own):
            positions = find_needed(graph, wanted).inputs
            wanted = wanted if len(positions) < len(graph.inputs) else None
        block, positions = self._nested(node, graph, wanted)
        flat = [values[id(node.inner_arguments[i])] for i in positions]
        given = keras.tree.pack_sequence_as(block.input, flat)
        results = block(given, **mode)
        if wanted is None:
            pairs = zip(own, keras.tree.flatten(results), strict=True)
        else:
            pairs = ((ref, results[_output_key(ref)]) for ref in wanted)
        _note(node, own, dict(pairs), values, inner)

    def _is_cut(self, node: Node, wanted: Iterable[Reference] | None) -> bool:
        """Returns whether another layer calls the network once per step."""
        is_stock = not issubclass(self.network_class, Block)
        own = set(_own_outputs(node.step))
        if id(node.operation) in self.several and not is_stock:
            return True
        return (is_stock and isinstance(node.operation, Stepwise)) or (
            wanted is not None and set(wanted) != own
        )

    def _call_steps(
        self,
        node: Node,
        wanted: Iterable[Reference] | None,
        values: _Values,
        inner: _Inner,
    ) -> None:
        """Calls what gives some tensors of a network for each step."""
        own = _own_outputs(node.step)
        wanted = list(own if wanted is None else wanted)
        x, mask = (
            None if y is None else values[id(y)]
            for y in (node.tensors[0], node.kwargs.get("mask"))
        )
        if issubclass(self.network_class, Block):
            key = (id(node.operation), frozenset(wanted))
            if key not in self.stepwise:
                self.stepwise[key] = self._stepwise(node, wanted)
            results = self.stepwise[key](x, mask=mask)
        else:
            results = self._in_stock_layers(node, wanted, x, mask)
        found = {ref: results[_key_at_step(node, ref)] for ref in wanted}
        _note(node, own, found, values, inner)

    def _in_stock_layers(
        self, node: Node, wanted: Iterable[Reference], x: Any, mask: Any
    ) -> Mapping[str, Any]:
        network = self._network_of_steps(node, wanted)
        operation = cast(keras.Layer, node.operation)
        return call_in_stock_layers(network, operation, x, mask)

    def _stepwise(self, node: Node, wanted: Iterable[Reference]) -> Stepwise:
        network = self._network_of_steps(node, wanted)
        policy = cast(keras.Layer, node.operation).dtype_policy
        return Stepwise(network, name=node.name, dtype=policy)

    def _network_of_steps(self, node: Node, wanted: Iterable[Reference]) -> Any:
        """Returns what gives some tensors of one step, by their names."""
        (call,) = cast(Graph, node.step).nodes
        inside = dict.fromkeys(_at_step(node, ref) for ref in wanted)
        is_block = issubclass(self.network_class, Block)
        if call.inner is None and is_block:
            return self._stepwise(call, inside)
        if call.inner is None:
            x = input_like(call.tensors[0], "steps")
            found = self._in_stock_layers(call, inside, x, None)
            return keras.Model(x, found, name=call.name)
        names = {_output_key(ref): ref for ref in inside}
        kind = StepBlock if is_block else self.network_class
        # The same copies of layers, in networks that have no paths.
        replay = replace(self, network_class=kind, blocks={}, stepwise={})
        network, _ = replay.build(call.inner, call.name, names)
        return network

    def _nested(
        self, node: Node, graph: Graph, wanted: Iterable[Reference] | None
    ) -> tuple[keras.Model, list[int]]:
        """Returns the copy of a nested network, the same for all its calls.

        Where other networks need other tensors of it, they get a copy of their
        own, of the same layers.
        """
        whole = wanted is None
        key = (id(node.operation), None if whole else frozenset(wanted))
        if key not in self.blocks:
            names = {_output_key(ref): ref for ref in wanted or ()}
            outputs = None if whole else names
            self.blocks[key] = self.build(graph, node.name, outputs, whole)
        return self.blocks[key]

    def _call(self, node: Node, values: _Values, graph: Graph) -> Any:
        """Calls the copy of a layer with the copies of its arguments."""

        def value(x: Any) -> Any:
            return values[id(x)] if isinstance(x, keras.KerasTensor) else x

        args: Any = keras.tree.map_structure(value, node.args)
        given = {k: x for k, x in node.kwargs.items() if k != "training"}
        kwargs: Any = keras.tree.map_structure(value, given)
        kwargs |= self._recorded_mode(node, graph)
        stand_in = self.replace.get(id(node.operation))
        if stand_in is not None:
            return _apply_in_order(stand_in, args, kwargs)
        return self._copy(node)(*args, **kwargs)

    def _copy(self, node: Node) -> keras.Operation:
        if self.share:
            return node.operation
        key = id(node.operation)
        if key not in self.copies:
            self.copies[key] = (node.operation, self._new_copy(node))
        return self.copies[key][1]

    def _new_copy(self, node: Node) -> keras.Operation:
        key = id(node.operation)
        if key not in self.made:
            return copy_operation(node.operation, node.name)
        copy = self.made.pop(key)
        rename(copy, node.name)
        self.sources[id(copy)] = self.sources[key]
        return copy


def called_in_several_places(graphs: Iterable[Graph]) -> frozenset[int]:
    """Returns the ids of layers that call a network once per step, in several.

    Those of a single call are left out.
    """
    calls = Counter(_steps_of(graphs))
    return frozenset(key for key, count in calls.items() if count > 1)


def _steps_of(graphs: Iterable[Graph]) -> Iterator[int]:
    """Yields the ids of such layers, a time for each call in a graph."""
    for graph in graphs:
        for node in graph.nodes:
            if node.step is not None:
                yield id(node.operation)
            elif node.inner is not None:
                yield from _steps_of([node.inner])


def _own_outputs(graph: Graph | None) -> list[Reference]:
    outputs = [] if graph is None else graph.outputs
    return [cast(Graph, graph).reference(tensor) for tensor in outputs]


def _at_step(node: Node, ref: Reference) -> Reference:
    """Returns the reference of a tensor in the network of one step."""
    (call,) = cast(Graph, node.step).nodes
    if len(ref) > 2:
        return ref[1:]
    graph = cast(Graph, call.within)
    index = int([*ref][-1])
    return graph.reference(graph.outputs[index])


def _key_at_step(node: Node, ref: Reference) -> str:
    """Returns the name that the network of one step has for a tensor."""
    (call,) = cast(Graph, node.step).nodes
    inside = _at_step(node, ref)
    if call.inner is None:
        return _key_at_step(call, inside)
    return _output_key(inside)


def _note(
    node: Node,
    own: Iterable[Reference],
    found: _Inner,
    values: _Values,
    inner: _Inner,
) -> None:
    """Notes the tensors that a call gave, by their references inside it."""
    inner.update({(node.key, *ref): x for ref, x in found.items()})
    for tensor, ref in zip(node.outputs, own, strict=True):
        if ref in found:
            values[id(tensor)] = found[ref]


def _copy_input(graph: Graph, position: int) -> keras.KerasTensor:
    tensor = graph.inputs[position]
    node, _ = graph.sources[id(tensor)]
    return input_like(tensor, node.name)


def _has_frozen(operation: keras.Operation) -> bool:
    if not isinstance(operation, keras.Layer):
        return False
    return not all(read_flags(operation))


def _output_key(ref: Reference) -> str:
    """Returns `block/conv` for a call's first output, else `block/lstm.1`."""
    path = "/".join(map(str, ref[:-1]))
    return f"{path}.{ref[-1]}" if ref[-1] else path


def _apply_in_order(
    layers: list[keras.Layer], args: tuple, kwargs: dict
) -> Any:
    # Keras passes masks on by itself, and records them as arguments.
    kwargs = {name: x for name, x in kwargs.items() if name != "mask"}
    if not layers:
        return args[0]
    outputs = layers[0](*args, **kwargs)
    for layer in layers[1:]:
        outputs = layer(outputs)
    return outputs
