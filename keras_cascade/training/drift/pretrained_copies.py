"""What the blocks of a cascade were when pretrained, beside what they are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView
from keras_cascade.data import to_numpy
from keras_cascade.graph.block import bind_training_mode, leaf_layers
from keras_cascade.graph.copying import copy_graph
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.paths import LayerPath
from keras_cascade.networks.loading import as_network

Pair = tuple[keras.Variable, keras.Variable]


@dataclass(frozen=True, eq=False)
class PretrainedCopy:
    """A block, and a copy of it with the weights that it was pretrained with.

    Attributes:
        name: The block's name.
        copy: The copy. What is new in the block (the projection of an
            injection) is in it as well.
        learned: The pretrained parameters, now and then.
        added: The variables that are new, in the block and in the copy.
        outputs: What its outputs are called, flat and in order.
        channels_first: Those of them that have their channels first.
    """

    name: str
    copy: keras.Model
    learned: list[Pair]
    added: list[Pair]
    outputs: list[str] = field(default_factory=list)
    channels_first: frozenset[str] = frozenset()

    def distance(self) -> float:
        """How far the parameters are from the pretrained ones.

        Returns:
            `||w - w0|| / ||w0||` in float64, with all parameters as one
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

    def follow(self) -> None:
        """Brings what is new in the copy to what it is in the block."""
        assign(self.added)


def copy_pretrained(
    cascade: CascadeView, pretrained: Mapping[str, keras.Model]
) -> dict[str, PretrainedCopy]:
    """The references of all blocks that were networks before.

    Args:
        cascade: The cascade.
        pretrained: The original network of a block. Of a block that is not
            in it, the weights of now are the pretrained ones.
    """
    return {
        name: _reference(cascade, name, pretrained.get(name))
        for name in pretrained_blocks(cascade)
    }


def pretrained_blocks(cascade: CascadeView) -> list[str]:
    """The blocks that were networks before: upstreams and downstream."""
    known = (*cascade.upstreams, "downstream")
    return [name for name in cascade.blocks if name in known]


def layers_by_path(
    graph: Graph, prefix: LayerPath = ()
) -> dict[LayerPath, keras.Operation]:
    """The operations of a graph that are no networks, under stable names."""
    found: dict[LayerPath, keras.Operation] = {}
    for node in graph.nodes:
        path = (*prefix, node.name)
        if node.inner is None:
            found[path] = node.operation
        else:
            found |= layers_by_path(node.inner, path)
    return found


def read_source(cascade: CascadeView, name: str, network: keras.Model) -> Graph:
    """The original network of a block, with the names that the block has."""
    shares = cascade.spec.shares
    return read_graph(as_network(network, name), keep_names=shares)


def pairs(first: Any, second: Any) -> Iterator[Pair]:
    """The variables of two layers, where they are the same layer twice."""
    if not isinstance(first, keras.Layer) or not isinstance(
        second, keras.Layer
    ):
        return
    both = first.variables, second.variables
    shapes = [[tuple(v.shape) for v in variables] for variables in both]
    if shapes[0] == shapes[1]:
        yield from zip(*both, strict=True)


def assign(both: list[Pair]) -> None:
    """Gives each second variable the value of the first."""
    for source, target in both:
        target.assign(to_numpy_copy(source))


class Comparison(keras.Model):
    """Runs a cascade, and its references on what its blocks are given.

    Args:
        cascade: The cascade, whose variables it shares.
        references: The references by their blocks.
    """

    def __init__(
        self, cascade: CascadeView, references: Mapping[str, PretrainedCopy]
    ):
        super().__init__(name="comparison")
        self.cascade = cascade
        self.references = dict(references)
        self.copies = [reference.copy for reference in references.values()]

    def call(self, inputs: Any) -> tuple[dict, dict, dict]:
        """What the blocks give, what the references give, and the masks."""
        now: dict[str, Any] = {}
        then: dict[str, Any] = {}
        watch = partial(self._watched, now=now, then=then)
        compat.run_graph(self.cascade, inputs, None, watch)
        masks = {name: compat.keras_mask(x) for name, x in now.items()}
        return now, then, {n: m for n, m in masks.items() if m is not None}

    def _watched(
        self, operation: keras.Operation, now: dict, then: dict
    ) -> Callable[..., Any]:
        run = bind_training_mode(operation, training=False)
        reference = self.references.get(operation.name)
        if reference is None:
            return run

        def both(*args: Any, **kwargs: Any) -> Any:
            outputs = run(*args, **kwargs)
            past = reference.copy(*args, **{**kwargs, "training": False})
            for found, structure in ((now, outputs), (then, past)):
                flat = keras.tree.flatten(structure)
                found.update(zip(reference.outputs, flat, strict=True))
            return outputs

        return both


def _reference(
    cascade: CascadeView, name: str, network: keras.Model | None
) -> PretrainedCopy:
    block = cascade.blocks[name]
    graph = read_graph(block, keep_names=True)
    copy = copy_graph(graph, name)
    origin = graph if network is None else read_source(cascade, name, network)
    sources = layers_by_path(origin)
    for path in _added_layers(cascade, graph):
        sources.pop(path, None)
    learned: list[Pair] = []
    added: list[Pair] = []
    blocks = dict(leaf_layers(block))
    for path, layer in leaf_layers(copy):
        now = list(pairs(blocks[path], layer))
        if old := list(pairs(sources.get(path), layer)):
            assign(old)
            learned += _parameters(layer, now)
        else:
            added += now
    for _, layer in leaf_layers(copy):
        layer.trainable = False
    return PretrainedCopy(
        name, copy, learned, added, *_describe_outputs(cascade, graph, name)
    )


def _added_layers(cascade: CascadeView, graph: Graph) -> list[LayerPath]:
    """What injections put into a block: the projections of `concat`."""
    if not cascade.spec.inject:
        return []
    inputs = [graph.sources[id(x)][0].name for x in graph.inputs]
    projections = {f"{name}_own" for name in inputs}
    return [p for p in layers_by_path(graph) if p[-1] in projections]


def _parameters(layer: keras.Layer, both: list[Pair]) -> list[Pair]:
    """The pairs of what training moves: no moments, no seeds."""
    for inner in compat.sublayers(layer):
        inner.trainable = True
    kept = {id(variable) for variable in layer.trainable_variables}
    return [(now, then) for now, then in both if id(then) in kept]


def _describe_outputs(
    cascade: CascadeView, graph: Graph, name: str
) -> tuple[list[str], frozenset[str]]:
    """What the outputs are called, and which have their channels first."""
    names = _output_keys(graph)
    if name not in cascade.upstreams:
        alone = len(names) == 1 and name not in cascade.taps
        names = [name] if alone else [f"{name}/{key}" for key in names]
    first = {
        key
        for key, tensor in zip(names, graph.outputs, strict=True)
        if data_format_at(graph, graph.reference(tensor)) == "channels_first"
    }
    return names, frozenset(first)


def _output_keys(graph: Graph) -> list[str]:
    """The keys of a network's outputs, in the order of the flat outputs."""
    structure = graph.output_structure
    if isinstance(structure, Mapping):
        return keras.tree.flatten({key: key for key in structure})
    return [str(number) for number in range(len(graph.outputs))]


def _flat(variable: keras.Variable) -> np.ndarray:
    return to_numpy(variable.value).astype(np.float64).ravel()
