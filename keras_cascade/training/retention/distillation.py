"""Old and new answers of a network whose layers are in a cascade."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView
from keras_cascade.graph.block import Block, bind_training_mode, leaf_layers
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.replay import Replay


class Distillation:
    """Asks a network, as it was and as it is in a cascade.

    The new answers run through the graph of the old network, with the
    cascade's layers in the place of its own as far as the cascade has them.
    What is left, behind the last tap, is the old head, as it was. So nothing
    is built for it, and the head is there once.

    Args:
        cascade: The cascade.
        block: The name of the network's block.
        teacher: The network as it was.

    Raises:
        ValueError: If the cascade does not feed all inputs of the network.
    """

    def __init__(self, cascade: keras.Model, block: str, teacher: Block):
        self._teacher = teacher
        self._stand_ins = _stand_ins(cascade, block, teacher)
        self._inputs = _InputsOf(cascade, block, teacher)

    def answers(self, x: Any) -> tuple[list[Any], list[Any]]:
        """Old and new answers to a batch of the cascade, output by output.

        Args:
            x: What the cascade gets.
        """
        inputs = self._inputs(x)
        old = _run(self._teacher, inputs, {})
        new = _run(self._teacher, inputs, self._stand_ins)
        flat = keras.tree.flatten
        return [ops.stop_gradient(answer) for answer in flat(old)], flat(new)


def _stand_ins(
    cascade: CascadeView, block: str, teacher: Block
) -> dict[int, keras.Layer]:
    """The cascade's layer for each of the teacher's, by the latter's id."""
    own = dict(leaf_layers(cascade.blocks[block]))
    return {
        id(layer): own[path]
        for path, layer in leaf_layers(teacher)
        if path in own and not isinstance(layer, keras.layers.InputLayer)
    }


def _run(
    network: Any, inputs: Any, stand_ins: Mapping[int, keras.Layer]
) -> Any:
    """Runs a graph in inference mode, with other layers for some."""

    def called(operation: keras.Operation) -> Any:
        if compat.is_functional(operation):
            return lambda given, **_: _run(operation, given, stand_ins)
        layer = stand_ins.get(id(operation), operation)
        return bind_training_mode(layer, training=False)

    return compat.run_graph(network, inputs, None, called)


class _InputsOf:
    """Gives what a network gets in a cascade, without gradients."""

    def __init__(self, cascade: keras.Model, block: str, teacher: Block):
        graph = read_graph(cascade, keep_names=True)
        wanted = _sources(graph, block, teacher)
        self._names = [tensor.name for tensor in cascade.inputs]
        self._structure = teacher.input
        # Of the wanted tensors those that are the cascade's own inputs.
        own = {graph.reference(x): i for i, x in enumerate(graph.inputs)}
        self._own = [own.get(reference) for reference in wanted]
        computed = {
            str(place): reference
            for place, reference in enumerate(wanted)
            if reference not in own
        }
        self._network: Any = None
        if computed:
            self._network, self._needed = Replay(share=True).part(
                graph, "inputs", computed
            )

    def __call__(self, x: Any) -> Any:
        flat = self._flat(x)
        found = {} if self._network is None else self._computed(flat)
        given = [
            found[str(place)] if position is None else flat[position]
            for place, position in enumerate(self._own)
        ]
        return keras.tree.pack_sequence_as(self._structure, given)

    def _flat(self, x: Any) -> list[Any]:
        if isinstance(x, Mapping):
            return [x[name] for name in self._names]
        return keras.tree.flatten(x)

    def _computed(self, flat: list[Any]) -> dict[str, Any]:
        given = [flat[position] for position in self._needed]
        tensors = self._network(
            keras.tree.pack_sequence_as(self._network.input, given),
            training=False,
        )
        return {name: _without_gradient(x) for name, x in tensors.items()}


def _without_gradient(tensor: Any) -> Any:
    """The tensor as data; its mask goes with it."""
    result = ops.stop_gradient(tensor)
    if (mask := compat.keras_mask(tensor)) is not None:
        compat.set_keras_mask(result, mask)
    return result


def _sources(graph: Graph, block: str, teacher: Block) -> list[Reference]:
    """Where in the cascade each input of a network comes from."""
    node = graph.calls[block][0]
    inner: Any = node.inner
    given = {
        inner.sources[id(x)][0].name: argument
        for x, argument in zip(inner.inputs, node.inner_arguments, strict=True)
    }
    names = [tensor.name for tensor in teacher.inputs]
    if missing := [name for name in names if name not in given]:
        listed = ", ".join(f"'{name}'" for name in missing)
        raise ValueError(
            f"LwF cannot ask '{block}' for its old answers: the cascade does "
            f"not feed its input {listed}, which no tap needs or an injection "
            "by 'replace' took the place of. Take L2SP or EWC for it."
        )
    return [graph.reference(given[name]) for name in names]
