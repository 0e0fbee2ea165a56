"""Copies the blocks of a cascade as they were pretrained, and runs both.

Tested by `tests/training/drift/test_monitor.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade.data import to_numpy
from keras_cascade.graph.block import bind_training_mode, leaf_layers
from keras_cascade.graph.copying import copy_graph
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.masks import masks_of
from keras_cascade.graph.paths import LayerPath
from keras_cascade.networks.loading import as_network
from keras_cascade.training.layer_lookup import operations_by_path

Pair = tuple[keras.Variable, keras.Variable]


@dataclass(frozen=True, eq=False)
class PretrainedCopy:
    """A copy of a block with its pretrained weights."""

    copy: keras.Model
    learned: list[Pair]  # the pretrained parameters, now and then
    added: list[Pair]  # the variables of new layers, here and in the copy
    outputs: list[str]  # their names, flat and in order
    channels_first: frozenset[str]  # names of outputs

    def distance(self) -> float:
        """Returns how far the parameters are from the pretrained ones.

        It is `||w - w0|| / ||w0||` in float64, with all parameters as one
        vector.
        """
        moved = before = 0.0
        for now, then in self.learned:
            new, old = (_flat(v) for v in (now, then))
            moved += float(np.vdot(new - old, new - old))
            before += float(np.vdot(old, old))
        if not before:
            return float(np.inf) if moved else 0.0
        return float(np.sqrt(moved / before))

    def update_added(self) -> None:
        """Copies the variables of new layers from the block again."""
        copy_values(self.added)


def copy_pretrained(
    cascade: CascadeView, pretrained: Mapping[str, keras.Model]
) -> dict[str, PretrainedCopy]:
    """Returns pretrained copies of all blocks that were networks before.

    Of blocks without an original network the present weights are taken.
    """
    return {
        name: _copy_block(cascade, name, pretrained.get(name))
        for name in pretrained_blocks(cascade)
    }


def pretrained_blocks(cascade: CascadeView) -> list[str]:
    """Returns the blocks that were networks: upstreams and downstream."""
    known = (*cascade.upstreams, "downstream")
    return [name for name in cascade.blocks if name in known]


def read_source(cascade: CascadeView, name: str, network: keras.Model) -> Graph:
    """Returns the original network of a block, with the names of the block."""
    shares = cascade.spec.shares
    return read_graph(as_network(network, name), keep_names=shares)


def match_variables(first: object, second: object) -> list[Pair]:
    """Returns pairs of variables of two layers with the same variables."""
    layers = [x for x in (first, second) if isinstance(x, keras.Layer)]
    shapes = [[tuple(v.shape) for v in layer.variables] for layer in layers]
    if len(layers) < 2 or shapes[0] != shapes[1]:
        return []
    return list(zip(*(layer.variables for layer in layers), strict=True))


def copy_values(pairs: list[Pair]) -> None:
    """Gives each second variable the value of the first."""
    for source, target in pairs:
        target.assign(to_numpy_copy(source))


class Comparison(keras.Model):
    """Runs a cascade, and pretrained copies on the inputs of its blocks."""

    def __init__(
        self, cascade: CascadeView, pretrained: Mapping[str, PretrainedCopy]
    ):
        super().__init__(name="comparison")
        self.cascade = as_model(cascade)
        self.pretrained = dict(pretrained)
        # The outputs that each call of a block is for.
        self._read = {
            name: _read_by_calls(cascade, name) for name in pretrained
        }
        # For Keras, which does not track layers in a dataclass.
        self.copies = [one.copy for one in pretrained.values()]

    def call(self, inputs: Any) -> tuple[dict, dict, dict]:
        """Returns the outputs of blocks and of copies, and the masks."""
        now: dict[str, Any] = {}
        then: dict[str, Any] = {}
        calls = {name: iter(read) for name, read in self._read.items()}
        watch = partial(self._watch, now=now, then=then, calls=calls)
        compat.run_graph(self.cascade, inputs, None, watch)
        return now, then, masks_of(now)

    def _watch(
        self,
        operation: keras.Operation,
        now: dict,
        then: dict,
        calls: Mapping[str, Iterator[set[str] | None]],
    ) -> Callable[..., Any]:
        run = bind_training_mode(operation, training=False)
        pretrained = self.pretrained.get(operation.name)
        if pretrained is None:
            return run
        read = next(calls[operation.name])

        def run_both(*args: Any, **kwargs: Any) -> Any:
            outputs = run(*args, **kwargs)
            past = pretrained.copy(*args, **{**kwargs, "training": False})
            for found, structure in ((now, outputs), (then, past)):
                flat = keras.tree.flatten(structure)
                named = zip(pretrained.outputs, flat, strict=True)
                found |= {k: x for k, x in named if read is None or k in read}
            return outputs

        return run_both


def _read_by_calls(cascade: CascadeView, block: str) -> list[set[str] | None]:
    """Returns the taps that each call of a block is read for, as Keras runs it.

    They are None, for all outputs, unless the block is several upstreams.
    """
    names = cascade.spec.roles.get(block, [block])
    calls = [
        call.number
        for call in compat.functional_calls(as_model(cascade))
        if call.operation is cascade.blocks[block]
    ]
    if len(names) == 1:
        return [None] * len(calls)
    by_upstream = [
        {tap for tap, path in cascade.taps.items() if path.startswith(f"{n}/")}
        for n in names
    ]
    return [by_upstream[sorted(calls).index(number)] for number in calls]


def _copy_block(
    cascade: CascadeView, name: str, network: keras.Model | None
) -> PretrainedCopy:
    block = cascade.blocks[name]
    graph = read_graph(block, keep_names=True)
    copy = copy_graph(graph, name)
    origin = graph if network is None else read_source(cascade, name, network)
    sources = operations_by_path(origin)
    for path in _added_layers(cascade, graph):
        sources.pop(path, None)
    learned: list[Pair] = []
    added: list[Pair] = []
    blocks = dict(leaf_layers(block))
    for path, layer in leaf_layers(copy):
        now = match_variables(blocks[path], layer)
        if old := match_variables(sources.get(path), layer):
            copy_values(old)
            learned += _only_parameters(layer, now)
        else:
            added += now
    for _, layer in leaf_layers(copy):
        layer.trainable = False
    outputs, channels_first = _describe_outputs(cascade, graph, name)
    return PretrainedCopy(copy, learned, added, outputs, channels_first)


def _added_layers(cascade: CascadeView, graph: Graph) -> list[LayerPath]:
    """Returns the layers of injections: the projections of `concat`."""
    if not cascade.spec.inject:
        return []
    inputs = [graph.sources[id(x)][0].name for x in graph.inputs]
    projections = {f"{name}_own" for name in inputs}
    return [p for p in operations_by_path(graph) if p[-1] in projections]


def _only_parameters(layer: keras.Layer, pairs: list[Pair]) -> list[Pair]:
    """Returns the pairs of weights, without moments and seeds."""
    # Keras shows which variables are moments only while the layer trains.
    for inner in compat.sublayers(layer):
        inner.trainable = True
    weights = {id(variable) for variable in layer.trainable_variables}
    return [(now, then) for now, then in pairs if id(then) in weights]


def _describe_outputs(
    cascade: CascadeView, graph: Graph, name: str
) -> tuple[list[str], frozenset[str]]:
    """Returns the names of outputs, and which have their channels first."""
    names = _output_keys(graph)
    if name not in cascade.upstreams:
        alone = len(names) == 1 and name not in cascade.taps
        names = [name] if alone else [f"{name}/{key}" for key in names]
    channels_first = {
        key
        for key, tensor in zip(names, graph.outputs, strict=True)
        if data_format_at(graph, graph.reference(tensor)) == "channels_first"
    }
    return names, frozenset(channels_first)


def _output_keys(graph: Graph) -> list[str]:
    """Returns the keys of a network's outputs, in the order of these."""
    structure = graph.output_structure
    if isinstance(structure, Mapping):
        return keras.tree.flatten({key: key for key in structure})
    return [str(number) for number in range(len(graph.outputs))]


def _flat(variable: keras.Variable) -> np.ndarray:
    return to_numpy(variable.value).astype(np.float64).ravel()
