"""Replays a graph with copies of its layers: builds networks from graphs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_cascade.graph.block import Block
from keras_cascade.graph.need import Need, need
from keras_cascade.graph.operations import copy_operation, copy_state
from keras_cascade.graph.reading import Graph, Node, Reference
from keras_cascade.graph.tensors import input_like


@dataclass
class Replay:
    """Builds blocks from graphs; each layer is copied once.

    Attributes:
        share: Whether the layers themselves are used instead of copies.
        network_class: What the networks are made as.
        replace: What stands for a layer in the copy, where it is another one:
            a list of layers to apply in order, by the layer's id.
    """

    share: bool = False
    network_class: type[keras.Model] = Block
    replace: Mapping[int, list[keras.Layer]] = field(default_factory=dict)
    copies: dict[int, tuple[keras.Operation, keras.Operation]] = field(
        default_factory=dict
    )
    blocks: dict[int, tuple] = field(default_factory=dict)

    def whole(self, graph: Graph, name: str) -> keras.Model:
        """The network with all its inputs and outputs, as it takes them."""
        inputs = [_copy_input(graph, i) for i in range(len(graph.inputs))]
        values = dict(zip(map(id, graph.inputs), inputs, strict=True))
        for node in graph.nodes:
            if not node.is_input:
                self._run_whole(node, values)
        outputs = [values[id(tensor)] for tensor in graph.outputs]
        return self.network_class(
            keras.tree.pack_sequence_as(graph.input_structure, inputs),
            keras.tree.pack_sequence_as(graph.output_structure, outputs),
            name=name,
        )

    def part(
        self, graph: Graph, name: str, outputs: Mapping[str, Reference]
    ) -> tuple[keras.Model, list[int]]:
        """The network as far as some tensors need it.

        Returns:
            The network, which gives a dict of tensors, and the positions of
            the inputs that it still takes.
        """
        demand = need(graph, outputs.values())
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
        results = {
            key: inner[ref] if len(ref) > 2 else values[id(graph.tensor(ref))]
            for key, ref in outputs.items()
        }
        all_inputs = len(positions) == len(graph.inputs)
        if all_inputs:
            inputs = keras.tree.pack_sequence_as(graph.input_structure, inputs)
        return self.network_class(inputs, results, name=name), positions

    def fill(self) -> None:
        """Gives the copies the weights and flags of the originals."""
        for source, target in self.copies.values():
            if isinstance(source, keras.Layer) and isinstance(
                target, keras.Layer
            ):
                copy_state(source, target)

    def _run_whole(self, node: Node, values: dict) -> None:
        if node.inner is None:
            outputs = self._call(node, values)
        else:
            block, _ = self._nested(node, None)
            given = [values[id(x)] for x in node.inner_arguments]
            outputs = block(_packed_like(block, given))
        _store(node.outputs, outputs, values)

    def _run_part(
        self, node: Node, demand: Need, values: dict, inner: dict
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
            copy = copy_operation(node.operation, node.name)
            self.copies[key] = (node.operation, copy)
        return self.copies[key][1]


def _copy_input(graph: Graph, position: int) -> keras.KerasTensor:
    tensor = graph.inputs[position]
    node, _ = graph.sources[id(tensor)]
    optional = getattr(node.operation, "optional", False)
    return input_like(tensor, node.name, optional)


def _is_whole(graph: Graph, wanted: Iterable[Reference]) -> bool:
    own = {graph.reference(tensor) for tensor in graph.outputs}
    inputs = need(graph, wanted).inputs
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
