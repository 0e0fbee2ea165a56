"""Fits the adapters that learn from data, in as few passes as there can be."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade import data as user_data
from keras_cascade._messages import listed
from keras_cascade.adapters import Adapter
from keras_cascade.adapters.protocol import (
    learn,
    one_label_array,
    takes_labels,
)
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.paths import LayerPath
from keras_cascade.graph.pruning import Needed, find_needed
from keras_cascade.graph.replay import Replay


def learners(cascade: keras.Model) -> dict[LayerPath, keras.Layer]:
    """The layers of a cascade that learn from data before training.

    These are its own adapters that do, and those inside its networks that are
    not fitted yet: what a network has learned stays.
    """
    return {
        path: layer
        for path, layer in leaf_layers(cascade)
        if learns_from_data(layer, path)
        and (path[0] == "adapters" or not _is_fitted(layer))
    }


def learns_from_data(layer: keras.Layer, path: LayerPath) -> bool:
    """Whether a layer is an adapter that is fitted on data."""
    if isinstance(layer, Adapter):
        return layer.needs_data
    return "adapters" in path[:-1] and hasattr(layer, "adapt")


def unfitted(cascade: keras.Model) -> list[LayerPath]:
    """The adapters that have yet to be fitted."""
    return [
        p for p, layer in learners(cascade).items() if not _is_fitted(layer)
    ]


def check_fitted(cascade: keras.Model, before: str) -> None:
    """Raises an error if an adapter that learns from data is not fitted.

    Args:
        cascade: The cascade.
        before: The step that needs fitted adapters, for the error.

    Raises:
        ValueError: If an adapter is not fitted.
    """
    if waiting := unfitted(cascade):
        raise ValueError(
            "Adapters that learn from data have not been fitted: "
            f"{listed('/'.join(path) for path in waiting)}. Call "
            f"cascade.adapt(data) before {before}."
        )


def fit_adapters(
    cascade: keras.Model, data: Any, batch_size: int, verbose: bool
) -> list[LayerPath]:
    """Fits every adapter that learns from data.

    One pass over the data for each level of dependence: an adapter that sees
    what another gives waits for that one.

    Args:
        cascade: The cascade.
        data: Everything that `fit` takes; with labels, where an adapter
            learns from them.
        batch_size: Rows at a time where the data are arrays.
        verbose: Whether to show a progress bar.

    Returns:
        The paths of what was fitted.

    Raises:
        ValueError: If the data can be read once and several passes are
            needed, or cannot be learned from, or has no labels where they
            are needed.
    """
    found = learners(cascade)
    graph = read_graph(cascade, keep_names=True)
    levels = _levels(graph, found)
    if len(levels) > 1 and not user_data.is_reiterable(data):
        raise ValueError(
            f"Adapters depend on one another, so adapt needs {len(levels)} "
            "passes over the data, and a generator gives one. Pass an array, "
            "a data set or a PyDataset."
        )
    with _all_or_nothing(found.values()):
        for number, level in enumerate(levels, start=1):
            title = f"adapt {number}/{len(levels)}"
            members = {"/".join(path): found[path] for path in level}
            features = _features(graph, level)
            shown = title if verbose else ""
            _one_pass(cascade, features, members, data, batch_size, shown)
    return list(found)


@contextmanager
def _all_or_nothing(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Puts the weights back where fitting does not come to its end."""
    layers, done = list(layers), False
    before = [
        (v, to_numpy_copy(v)) for layer in layers for v in layer.variables
    ]
    try:
        yield
        done = True
    finally:
        if not done:
            for variable, value in before:
                variable.assign(value)
            for layer in layers:
                # It computes with what it derives from its weights.
                if isinstance(layer, keras.layers.Normalization):
                    layer.finalize_state()


def _is_fitted(layer: keras.Layer) -> bool:
    if isinstance(layer, Adapter):
        return layer.fitted
    if isinstance(layer, keras.layers.Normalization):
        return _is_normalization_fitted(layer)
    return getattr(layer, "bin_boundaries", ()) is not None


def _is_normalization_fitted(layer: keras.layers.Normalization) -> bool:
    """Keras keeps no flag: unfitted, it has mean 0 and variance 1 exactly."""
    if layer.input_mean is not None:
        return True
    mean = user_data.to_numpy(layer.adapt_mean)
    variance = user_data.to_numpy(layer.adapt_variance)
    return bool(np.any(mean != 0) or np.any(variance != 1))


def _levels(
    graph: Graph, found: Mapping[LayerPath, keras.Layer]
) -> list[list[LayerPath]]:
    """Groups the adapters so that each depends on earlier groups only."""
    waits = {
        path: _inside(find_needed(graph, [_input_of(graph, path)]), graph)
        & set(found)
        for path in found
    }
    levels: list[list[LayerPath]] = []
    while waits:
        ready = [path for path, others in waits.items() if not others]
        levels.append(ready)
        waits = {
            path: others - set(ready)
            for path, others in waits.items()
            if path not in ready
        }
    return levels


def _inside(demand: Needed, graph: Graph) -> set[LayerPath]:
    """The paths of all layers that a demand runs through."""
    paths: set[LayerPath] = set()
    for node in graph.nodes:
        if node.key not in demand.nodes:
            continue
        if node.inner is None:
            paths.add((node.name,))
        else:
            inner = find_needed(node.inner, demand.inside[node.name])
            paths |= {(node.name, *p) for p in _inside(inner, node.inner)}
    return paths


def _input_of(graph: Graph, path: LayerPath) -> Reference:
    """The tensor that goes into a layer, at its first call."""
    node = graph.calls[path[0]][0]
    if len(path) > 1 and node.inner is not None:
        return (node.key, *_input_of(node.inner, path[1:]))
    return graph.reference(node.tensors[0])


def _features(graph: Graph, level: Iterable[LayerPath]) -> "_Features":
    """A model of the cascade's own layers that gives the adapters' inputs."""
    wanted = {"/".join(path): _input_of(graph, path) for path in level}
    network, _ = Replay(share=True).part(graph, "features", wanted)
    return _Features(network)


class _Features(keras.Model):
    """Gives what a network gives, and the masks that travel with it.

    Keras hangs masks on tensors; what `predict_on_batch` gives has lost them.
    """

    def __init__(self, network: keras.Model):
        super().__init__(name="features")
        self.network = network

    def call(self, inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors by their names, and the masks of those that have one."""
        tensors = self.network(inputs, training=False)
        masks = {name: compat.keras_mask(x) for name, x in tensors.items()}
        return tensors, {n: m for n, m in masks.items() if m is not None}


def _one_pass(
    cascade: keras.Model,
    features: _Features,
    members: Mapping[str, keras.Layer],
    data: Any,
    batch_size: int,
    title: str,
) -> None:
    streams = {name: _Stream(layer) for name, layer in members.items()}
    bar = keras.utils.Progbar(
        user_data.length(data, batch_size), unit_name="batch"
    )
    for batch, labels in _labelled(members, data, batch_size):
        given = _needed(cascade, features.network, batch)
        values, masks = features.predict_on_batch(given)
        for name, stream in streams.items():
            stream.update(values[name], masks.get(name), labels)
        if title:
            bar.add(1)
    for stream in streams.values():
        stream.finalize()


def _labelled(
    members: Mapping[str, keras.Layer], data: Any, batch_size: int
) -> Iterator[tuple[Any, Any]]:
    """The inputs of each batch, and its labels where a member takes them."""
    if not any(map(takes_labels, members.values())):
        for x in user_data.batches(data, batch_size):
            yield x, None
        return
    for x, y in user_data.labelled_batches(data, batch_size):
        yield x, one_label_array(members, y)


def _needed(cascade: keras.Model, features: keras.Model, batch: Any) -> Any:
    """Returns the inputs that the features need, in their structure."""
    needed = [tensor.name for tensor in features.inputs]
    paths = input_paths(cascade.input)
    found = sort_inputs(batch, paths, "The data of adapt", needed)
    return keras.tree.pack_sequence_as(features.input, list(found.values()))


class _Stream:
    """Hands batches to a layer as its protocol wants them."""

    def __init__(self, layer: keras.Layer):
        self._layer = layer
        self._kept: list[np.ndarray] | None = None
        if hasattr(layer, "update_state") and hasattr(layer, "finalize_state"):
            layer.reset_state()
        else:
            # Keras's own layers with `adapt` alone take the data whole.
            self._kept = []

    def update(self, batch: Any, mask: Any, labels: Any) -> None:
        if self._kept is not None:
            self._kept.append(user_data.to_numpy(batch))
        else:
            learn(self._layer, batch, mask, labels)

    def finalize(self) -> None:
        if self._kept is None:
            self._layer.finalize_state()
        else:
            self._layer.adapt(np.concatenate(self._kept))
