"""Fits the adapters that learn from data, in as few passes as possible."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from graphlib import TopologicalSorter
from typing import Any

import keras
import numpy as np

from keras_cascade import data as user_data
from keras_cascade._keras_compat.annotations import Tensor
from keras_cascade._reporting.console import progress, say
from keras_cascade._reporting.messages import listed
from keras_cascade.adapters import Adapter, StitchAdapter
from keras_cascade.adapters.protocol import Learner, learn, learning_batches
from keras_cascade.data.inputs import check_strings, input_paths, sort_inputs
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.masks import masks_of
from keras_cascade.graph.paths import LayerPath
from keras_cascade.graph.pruning import Needed, find_needed
from keras_cascade.graph.replay import Replay

# Sees the inputs of a first batch, by their names.
Look = Callable[[Mapping[str, Any]], None]


def learners(cascade: keras.Model) -> dict[LayerPath, keras.Layer]:
    """Returns the layers of a cascade that learn from data before training.

    These are the cascade's own adapters that do, and the adapters inside its
    networks that are not fitted yet: fitted ones stay as they are.
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
    """Returns the paths of the adapters that have yet to be fitted."""
    found = learners(cascade).items()
    return [path for path, layer in found if not _is_fitted(layer)]


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
    cascade: keras.Model,
    data: object,
    batch_size: int,
    verbose: bool,
    look: Look | None = None,
    targets: "InnerFeatures | None" = None,
) -> list[LayerPath]:
    """Fits every adapter that learns from data.

    One pass over the data for each level of dependence: an adapter that reads
    the output of another one waits for that adapter.

    Args:
        cascade: The cascade.
        data: Everything that `fit` takes; with labels, where an adapter
            learns from them.
        batch_size: Rows at a time where the data are arrays.
        verbose: Whether to show a progress bar.
        look: Called with the inputs of the first batch, by their names.
            Defaults to `None`.
        targets: Computes the values for stitched taps from inputs of the
            cascade. Defaults to `None`: there are none.

    Returns:
        The paths of the fitted adapters.

    Raises:
        ValueError: If the data can be read once and several passes are
            needed, or cannot be learned from, or has no labels where they
            are needed.
    """
    found = learners(cascade)
    _check_have_values(found, targets)
    # Names in a cascade are stable, and paths address layers by them.
    graph = read_graph(cascade, keep_names=True)
    levels = _levels(graph, list(found))
    if len(levels) > 1 and not user_data.is_reiterable(data):
        raise ValueError(
            f"Adapters depend on one another, so adapt needs {len(levels)} "
            "passes over the data, and a generator gives one. Pass an array, "
            "a data set or a PyDataset."
        )
    with _all_or_nothing(list(found.values())):
        for number, level in enumerate(levels):
            wanted = {"/".join(path): _input_of(graph, path) for path in level}
            features = InnerFeatures.inside(graph, wanted)
            layers = {"/".join(path): found[path] for path in level}
            seen = None if number else look
            given = (data, batch_size, verbose, seen, targets)
            _one_pass(cascade, features, layers, *given)
    if verbose:
        for layer in found.values():
            if isinstance(layer, StitchAdapter):
                say(f"adapt: '{layer.name}' has an R² of {layer.r2_:.3f}")
    return list(found)


def _check_have_values(
    found: Mapping[LayerPath, keras.Layer], targets: "InnerFeatures | None"
) -> None:
    """Raises a ValueError for a stitched tap without values to map it to."""
    known = targets.network.output if targets is not None else {}
    for path, layer in found.items():
        if not isinstance(layer, StitchAdapter):
            continue
        if path[:-1] != ("adapters",) or path[-1] not in known:
            raise ValueError(
                f"The StitchAdapter '{'/'.join(path)}' learns what the "
                "original downstream computes where its output enters, and "
                "that part is in no file and in no copy of the cascade. Pass "
                "the original network, cascade.rebuild(downstream=network), "
                "and adapt the result; or adapt before saving or copying."
            )


@contextmanager
def _all_or_nothing(layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Restores the weights of all layers if fitting one of them fails."""
    before = [
        (v, to_numpy_copy(v)) for layer in layers for v in layer.variables
    ]
    # The stack undoes whatever ends the block early, an interrupt too.
    with ExitStack() as undo:
        undo.callback(_restore, layers, before)
        yield
        undo.pop_all()


def _restore(
    layers: Sequence[keras.Layer],
    values: Sequence[tuple[keras.Variable, np.ndarray]],
) -> None:
    for variable, value in values:
        variable.assign(value)
    for layer in layers:
        # A Normalization computes with values derived from its weights.
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _is_fitted(layer: keras.Layer) -> bool:
    if isinstance(layer, Adapter):
        return layer.fitted
    if not isinstance(layer, keras.layers.Normalization):
        # Discretization learns boundaries; other layers cannot be asked.
        return getattr(layer, "bin_boundaries", ()) is not None
    if layer.input_mean is not None:
        return True
    # Keras keeps no flag: unfitted, mean and variance are 0 and 1 exactly.
    mean = user_data.to_numpy(layer.adapt_mean)
    variance = user_data.to_numpy(layer.adapt_variance)
    return bool(np.any(mean != 0) or np.any(variance != 1))


def _levels(graph: Graph, found: Sequence[LayerPath]) -> list[list[LayerPath]]:
    """Groups the adapters so that each depends on earlier groups only."""
    waits = {}
    for path in found:
        needed = find_needed(graph, [_input_of(graph, path)])
        waits[path] = _layers_in(needed, graph) & set(found)
    # A group is as large as possible: each costs a pass over the data.
    sorter = TopologicalSorter(waits)
    sorter.prepare()
    levels = []
    while sorter.is_active():
        ready = set(sorter.get_ready())
        levels.append([path for path in found if path in ready])
        sorter.done(*ready)
    return levels


def _layers_in(needed: Needed, graph: Graph) -> set[LayerPath]:
    """Returns the paths of all layers in a needed part of a graph."""
    paths: set[LayerPath] = set()
    for node in graph.nodes:
        if node.key not in needed.nodes:
            continue
        if node.inner is None:
            paths.add((node.name,))
        else:
            inner = find_needed(node.inner, needed.inside[node.name])
            found = _layers_in(inner, node.inner)
            paths |= {(node.name, *path) for path in found}
    return paths


def _input_of(graph: Graph, path: LayerPath) -> Reference:
    """Returns the tensor that goes into a layer, at its first call."""
    node = graph.calls[path[0]][0]
    if len(path) > 1 and node.inner is not None:
        return (node.key, *_input_of(node.inner, path[1:]))
    return graph.reference(node.tensors[0])


class InnerFeatures(keras.Model):
    """Computes tensors inside a network, in inference mode.

    Keras keeps masks as attributes of tensors, which the arrays of
    `predict_on_batch` do not have; here, masks are outputs. The model shares
    the layers of the network.
    """

    def __init__(self, network: keras.Model):
        super().__init__(name="features")
        self.network = network

    @classmethod
    def inside(
        cls, graph: Graph, wanted: Mapping[str, Reference]
    ) -> "InnerFeatures":
        """Returns the model of some tensors of a graph, by their names."""
        # Not copies, so that a pass sees the adapters fitted in earlier ones.
        network, _ = Replay(share=True).build(graph, "features", wanted)
        return cls(network)

    @property
    def needed_inputs(self) -> list[str]:
        """The names of the network's inputs that the tensors depend on."""
        return [tensor.name for tensor in self.network.inputs]

    def call(self, inputs: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the tensors by name, and the masks of those that have one."""
        tensors = self.network(inputs, training=False)
        return tensors, masks_of(tensors)

    def of_batch(
        self, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the tensors and masks as arrays, for inputs by name."""
        check_strings(self.network.inputs)
        flat = [inputs[name] for name in self.needed_inputs]
        packed = keras.tree.pack_sequence_as(self.network.input, flat)
        return self.predict_on_batch(packed)


def _one_pass(
    cascade: keras.Model,
    features: InnerFeatures,
    layers: Mapping[str, keras.Layer],
    data: object,
    batch_size: int,
    verbose: bool,
    look: Look | None,
    targets: InnerFeatures | None,
) -> None:
    """Fits the layers on the features of their names."""
    learning = {name: _started(layer) for name, layer in layers.items()}
    inputs = input_paths(cascade.input)
    batches = user_data.length(data, batch_size)
    # Stitched taps have values in place of labels.
    stitched = {n for n, x in layers.items() if isinstance(x, StitchAdapter)}
    labelled = {n: x for n, x in layers.items() if n not in stitched}
    stream = learning_batches(labelled, data, batch_size)
    targets = targets if stitched else None
    with progress(batches, verbose) as show:
        for done, (batch, labels) in enumerate(stream, start=1):
            names = [*features.needed_inputs]
            names += targets.needed_inputs if targets else []
            names = list(dict.fromkeys(names))
            given = sort_inputs(batch, inputs, "The data of adapt", names)
            if look is not None and done == 1:
                look(given)
            tensors, masks = features.of_batch(given)
            values = targets.of_batch(given)[0] if targets else {}
            for name, learner in learning.items():
                wanted = labels
                if name in stitched:
                    wanted = values[layers[name].name]
                learn(learner, tensors[name], wanted, masks.get(name))
            show("adapt: batches", done)
    for learner in learning.values():
        learner.finalize_state()


def _started(layer: keras.Layer) -> Learner:
    """Returns the layer at the start of a pass, or who learns in its stead."""
    if isinstance(layer, Learner):
        layer.reset_state()
        return layer
    return _WholeData(layer)


class _WholeData:
    """Collects the data for one of Keras's layers that has `adapt` alone."""

    def __init__(self, layer: keras.Layer):
        self._layer: Any = layer
        self._batches: list[np.ndarray] = []

    def reset_state(self) -> None:
        """Forgets the batches."""
        self._batches = []

    def update_state(self, batch: Tensor) -> None:
        """Adds a batch."""
        self._batches.append(user_data.to_numpy(batch))

    def finalize_state(self) -> None:
        """Fits the layer on all batches at once."""
        self._layer.adapt(np.concatenate(self._batches))
