"""Replays a graph with copies of its layers: builds networks from graphs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_cascade.graph.block import Block
from keras_cascade.graph.graph import Graph, Node, Reference
from keras_cascade.graph.layer_copying import copy_operation, copy_state
from keras_cascade.graph.names import rename
from keras_cascade.graph.paths import LayerPath
from keras_cascade.graph.pruning import Needed, find_needed
from keras_cascade.graph.reconstruction import Parts, rebuild
from keras_cascade.graph.tensors import input_like


@dataclass
class Replay:
    """Builds blocks from graphs; each layer is copied once.

    Attributes:
        share: Whether the layers themselves are used instead of copies.
        network_class: What the networks are made as.
        replace: What stands for a layer in the copy, where it is another one:
            a list of layers to apply in order, by the layer's id.
        copies: A layer and its copy, by the layer's id.
        blocks: The copy of a nested network and which of its inputs it still
            takes, by the network's id.
        sources: Which part of which network a layer is, where only the
            network's class can make it, by the id of the layer: of the
            original and of the copy.
        made: Its copy, not used yet, by the same id.
    """

    share: bool = False
    network_class: type[keras.Model] = Block
    replace: Mapping[int, list[keras.Layer]] = field(default_factory=dict)
    copies: dict[int, tuple[keras.Operation, keras.Operation]] = field(
        default_factory=dict
    )
    blocks: dict[int, tuple] = field(default_factory=dict)
    sources: dict[int, tuple[dict, LayerPath]] = field(default_factory=dict)
    made: dict[int, keras.Operation] = field(default_factory=dict)

    def whole(self, graph: Graph, name: str) -> keras.Model:
        """The network with all its inputs and outputs, as it takes them."""
        self._rebuild(graph)
        inputs = [_copy_input(graph, i) for i in range(len(graph.inputs))]
        values = dict(zip(map(id, graph.inputs), inputs, strict=True))
        for node in graph.nodes:
            if not node.is_input:
                self._run_whole(node, values)
        outputs = [values[id(tensor)] for tensor in graph.outputs]
        return self._network(
            keras.tree.pack_sequence_as(graph.input_structure, inputs),
            keras.tree.pack_sequence_as(graph.output_structure, outputs),
            name,
        )

    def part(
        self, graph: Graph, name: str, outputs: Mapping[str, Reference]
    ) -> tuple[keras.Model, list[int]]:
        """The network as far as some tensors need it.

        Returns:
            The network, which gives a dict of tensors, and the positions of
            the inputs that it still takes.
        """
        inputs, tensors, positions = self._run(graph, list(outputs.values()))
        results = dict(zip(outputs, tensors, strict=True))
        return self._network(inputs, results, name), positions

    def pruned(self, graph: Graph, name: str) -> tuple[keras.Model, list[int]]:
        """The network with its own outputs, as far as they need it.

        Returns:
            The network, and the positions of the inputs that it still takes.
        """
        wanted = [graph.reference(tensor) for tensor in graph.outputs]
        inputs, tensors, positions = self._run(graph, wanted)
        outputs = keras.tree.pack_sequence_as(graph.output_structure, tensors)
        return self._network(inputs, outputs, name), positions

    def _run(
        self, graph: Graph, wanted: list[Reference]
    ) -> tuple[Any, list[keras.KerasTensor], list[int]]:
        """Inputs as the network takes them, the wanted tensors, positions."""
        self._rebuild(graph)
        demand = find_needed(graph, wanted)
        positions = demand.inputs
        inputs = [_copy_input(graph, i) for i in positions]
        values = {
            id(graph.inputs[i]): x
            for i, x in zip(positions, inputs, strict=True)
        }
        inner: dict[Reference, keras.KerasTensor] = {}
        for node in graph.nodes:
            if node.key in demand.nodes and not node.is_input:
                self._run_part(node, demand, values, inner)
        tensors = [
            inner[ref] if len(ref) > 2 else values[id(graph.tensor(ref))]
            for ref in wanted
        ]
        if len(positions) == len(graph.inputs):
            inputs = keras.tree.pack_sequence_as(graph.input_structure, inputs)
        return inputs, tensors, positions

    def fill(self) -> None:
        """Gives the copies the weights and flags of the originals.

        What was never built, as a merge that entered, has none.
        """
        for source, target in self.copies.values():
            if (
                isinstance(source, keras.Layer)
                and isinstance(target, keras.Layer)
                and source.built
            ):
                copy_state(source, target)

    def _rebuild(self, graph: Graph) -> None:
        """Layers that only their network's class can make come from there."""
        if any(id(node.operation) in self.sources for node in graph.nodes):
            return
        whole = rebuild(graph, self.share)
        if whole is None:
            return
        for key, path in whole.paths.items():
            self.sources[key] = (whole.origin, path)
            if not self.share:
                self.made[key] = whole.operations[path]

    def _network(self, inputs: Any, outputs: Any, name: str) -> keras.Model:
        """The network, which notes which layers only a class can make."""
        network = self.network_class(inputs, outputs, name=name)
        found = {
            operation.name: self.sources[id(operation)]
            for operation in network.operations
            if id(operation) in self.sources
        }
        if found and isinstance(network, Block):
            origin, _ = next(iter(found.values()))
            paths = {name: path for name, (_, path) in found.items()}
            network.parts = Parts(origin, paths)
        return network

    def _run_whole(self, node: Node, values: dict) -> None:
        if node.inner is None:
            outputs = self._call(node, values)
        else:
            block, _ = self._nested(node, None)
            given = [values[id(x)] for x in node.inner_arguments]
            outputs = block(_packed_like(block, given))
        _store(node.outputs, outputs, values)

    def _run_part(
        self, node: Node, demand: Needed, values: dict, inner: dict
    ) -> None:
        if node.inner is None:
            _store(node.outputs, self._call(node, values), values)
            return
        wanted = demand.inside[node.name]
        if _is_whole(node.inner, wanted):
            self._run_whole(node, values)
            for position, tensor in enumerate(node.inner.outputs):
                ref = (node.key, *node.inner.reference(tensor))
                inner[ref] = values[id(node.outputs[position])]
            return
        block, positions = self._nested(node, wanted)
        given = [values[id(node.inner_arguments[i])] for i in positions]
        results = block(_packed_like(block, given))
        for ref in wanted:
            inner[node.key, *ref] = results[_output_key(ref)]
        for position, tensor in enumerate(node.inner.outputs):
            ref = node.inner.reference(tensor)
            if ref in wanted:
                values[id(node.outputs[position])] = inner[node.key, *ref]

    def _nested(
        self, node: Node, wanted: Iterable[Reference] | None
    ) -> tuple[keras.Model, list[int]]:
        """The copy of a nested network, the same for all its calls."""
        key, inner = id(node.operation), node.inner
        if key not in self.blocks and inner is not None:
            if wanted is None:
                block = self.whole(inner, node.name)
                positions = list(range(len(inner.inputs)))
            else:
                names = {_output_key(ref): ref for ref in wanted}
                block, positions = self.part(inner, node.name, names)
            self.blocks[key] = (block, positions)
        return self.blocks[key]

    def _call(self, node: Node, values: dict) -> Any:
        """Calls the copy of a layer as the layer itself was called."""

        def value(x: Any) -> Any:
            return values[id(x)] if isinstance(x, keras.KerasTensor) else x

        args: Any = keras.tree.map_structure(value, node.args)
        kwargs: Any = keras.tree.map_structure(value, node.kwargs)
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


def _copy_input(graph: Graph, position: int) -> keras.KerasTensor:
    tensor = graph.inputs[position]
    node, _ = graph.sources[id(tensor)]
    optional = getattr(node.operation, "optional", False)
    return input_like(tensor, node.name, optional)


def _is_whole(graph: Graph, wanted: Iterable[Reference]) -> bool:
    own = {graph.reference(tensor) for tensor in graph.outputs}
    inputs = find_needed(graph, wanted).inputs
    return set(wanted) == own and len(inputs) == len(graph.inputs)


def _output_key(ref: Reference) -> str:
    """`block/conv` for the first output of a call, `block/lstm.1` else."""
    path = "/".join(map(str, ref[:-1]))
    return f"{path}.{ref[-1]}" if ref[-1] else path


def _packed_like(block: keras.Model, flat: list) -> Any:
    return keras.tree.pack_sequence_as(block.input, flat)


def _store(
    tensors: Iterable[keras.KerasTensor], outputs: Any, values: dict
) -> None:
    flat = keras.tree.flatten(outputs)
    values.update(zip(map(id, tensors), flat, strict=True))


def _apply_in_order(
    layers: list[keras.Layer], args: tuple, kwargs: dict
) -> Any:
    # Keras hands masks on by itself, and notes them down as arguments.
    kwargs = {name: x for name, x in kwargs.items() if name != "mask"}
    if not layers:
        return args[0]
    outputs = layers[0](*args, **kwargs)
    for layer in layers[1:]:
        outputs = layer(outputs)
    return outputs
