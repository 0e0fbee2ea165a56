"""Computes old and new outputs of a network whose layers are in a cascade."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade._reporting.messages import listed
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.graph.block import Block, bind_training_mode, leaf_layers
from keras_cascade.graph.graph import Graph, Node, Reference, read_graph
from keras_cascade.graph.masks import copy_mask
from keras_cascade.graph.replay import Replay


class Distillation:
    """Computes a network's outputs, as it was and as it is in a cascade.

    The new outputs run through the graph of the old network, in which the
    cascade's layers replace the network's own where the cascade has them. The
    rest, after the last tap, is the old head with its old weights. So nothing
    is built for the new outputs, and the head exists once.
    """

    def __init__(self, cascade: CascadeView, block: str, teacher: Block):
        self._teacher = teacher
        self._replacements = _find_replacements(cascade, block, teacher)
        graph = read_graph(as_model(cascade), keep_names=True)
        self._inputs = [
            _NetworkInputs(graph, call, teacher) for call in graph.calls[block]
        ]

    def outputs(self, x: object) -> list[tuple[list[Any], list[Any]]]:
        """Returns the old and the new outputs for a batch of the cascade.

        They are those of each call, as a network that several upstreams are
        is called for each.
        """
        return [self._outputs_of(inputs(x)) for inputs in self._inputs]

    def _outputs_of(self, inputs: object) -> tuple[list[Any], list[Any]]:
        # Keras computes the loss after the forward pass: where moments of
        # normalisation train, they have moved already.
        old = keras.tree.flatten(_run(self._teacher, inputs, {}))
        new = _run(self._teacher, inputs, self._replacements)
        return [ops.stop_gradient(x) for x in old], keras.tree.flatten(new)


def _find_replacements(
    cascade: CascadeView, block: str, teacher: Block
) -> dict[int, keras.Layer]:
    """Returns the cascade's layer for the id of each of the teacher's."""
    layers = dict(leaf_layers(cascade.blocks[block]))
    return {
        id(layer): layers[path]
        for path, layer in leaf_layers(teacher)
        if path in layers and not isinstance(layer, keras.layers.InputLayer)
    }


def _run(
    network: Any, inputs: object, replacements: Mapping[int, keras.Layer]
) -> Any:
    """Runs a graph in inference mode, with replacements of some layers."""

    def replaced(operation: keras.Operation) -> Any:
        if compat.is_functional(operation):
            return lambda given, **_: _run(operation, given, replacements)
        layer = replacements.get(id(operation), operation)
        return bind_training_mode(layer, training=False)

    return compat.run_graph(network, inputs, None, replaced)


class _NetworkInputs:
    """Computes the inputs of a call in a cascade, without gradients."""

    def __init__(self, graph: Graph, call: Node, teacher: Block):
        sources = _find_sources(graph, call, teacher)
        self._paths = input_paths(graph.input_structure)
        self._structure = teacher.input
        # Which of the sources are inputs of the cascade itself.
        positions = {graph.reference(x): i for i, x in enumerate(graph.inputs)}
        self._positions = [positions.get(source) for source in sources]
        computed = {
            str(number): source
            for number, source in enumerate(sources)
            if source not in positions
        }
        self._network: keras.Model | None = None
        if computed:
            self._network, self._needed = Replay(share=True).build(
                graph, "inputs", computed
            )

    def __call__(self, x: object) -> Any:
        by_name = sort_inputs(x, self._paths, "x of compute_loss")
        flat = list(by_name.values())
        found = self._compute(flat)
        given = [
            found[str(number)] if position is None else flat[position]
            for number, position in enumerate(self._positions)
        ]
        return keras.tree.pack_sequence_as(self._structure, given)

    def _compute(self, flat: list[Any]) -> dict[str, Any]:
        if self._network is None:
            return {}
        given = [flat[position] for position in self._needed]
        tensors: Any = self._network(
            keras.tree.pack_sequence_as(self._network.input, given),
            training=False,
        )
        return {name: _without_gradient(x) for name, x in tensors.items()}


def _without_gradient(tensor: object) -> object:
    """Returns the tensor as data, with its mask."""
    return copy_mask(tensor, ops.stop_gradient(tensor))


def _find_sources(graph: Graph, node: Node, teacher: Block) -> list[Reference]:
    """Returns the tensors of the cascade that feed a network's inputs."""
    inner: Any = node.inner
    given = {
        inner.sources[id(x)][0].name: argument
        for x, argument in zip(inner.inputs, node.inner_arguments, strict=True)
    }
    names = [tensor.name for tensor in teacher.inputs]
    if missing := [name for name in names if name not in given]:
        raise ValueError(
            f"LwF cannot compute the old outputs of '{node.name}': the cascade "
            f"does not feed its input {listed(missing)}, which no tap needs or "
            "an injection by 'replace' took the place of. Take L2SP or EWC for "
            "it."
        )
    return [graph.reference(given[name]) for name in names]
