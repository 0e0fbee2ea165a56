"""Sets up retention: checks the methods, and estimates Fisher information.

Tested by `tests/training/retention/test_retention_of_cascades.py` and
`tests/training/retention/test_targets.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade import data as user_data
from keras_cascade._cascade_view import CascadeView
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.copying import copy_graph
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.retention.ewc import EWC
from keras_cascade.training.retention.fisher import fisher_diagonal
from keras_cascade.training.retention.keeper import Keeper
from keras_cascade.training.retention.method import Retention
from keras_cascade.training.retention.output_kinds import (
    Kind,
    find_kinds,
    find_last_call,
)
from keras_cascade.training.retention.targets import (
    Weight,
    find_pulled_layers,
    find_taught_blocks,
    original_layers,
    pair_weights,
    weights_of,
)


def build_keeper(
    cascade: CascadeView,
    retention: Mapping[str, Retention],
    graphs: Mapping[str, Graph],
) -> Keeper:
    """Returns the layer with the pretrained values of a cascade's networks.

    The graphs are those of the original networks, by their blocks. Everything
    is checked before anything is estimated.
    """
    lookup = LayerLookup(cascade)
    taught = find_taught_blocks(cascade, retention, graphs)
    kinds = {
        block: _find_kinds(graphs[block], pattern, retention[pattern])
        for block, pattern in taught.items()
    }
    found = _find_weights(lookup, retention, graphs)
    weights = {p: [weight for weight, _ in pairs] for p, pairs in found.items()}
    _check_data(retention, weights)
    keeper = Keeper(
        retention,
        weights,
        teachers={b: copy_graph(graphs[b], b) for b in taught},
        taught=taught,
        kinds=kinds,
    )
    keeper.attach(cascade)
    fishers: dict[str, np.ndarray] = {}
    for pattern, several in weights.items():
        if isinstance(method := retention[pattern], EWC):
            fishers |= _estimate(method, several, graphs)
    # Copies: on some backends NumPy shares the memory of a variable.
    anchors = {
        weight.path: np.array(ops.convert_to_numpy(read_original()))
        for pairs in found.values()
        for weight, read_original in pairs
    }
    keeper.remember(anchors, fishers)
    return keeper


def _find_weights(
    lookup: LayerLookup,
    retention: Mapping[str, Retention],
    graphs: Mapping[str, Graph],
) -> dict[str, list[tuple[Weight, Callable[[], Any]]]]:
    """Returns the weights of each pattern, and readers of the originals."""
    originals = original_layers(graphs)
    layers = find_pulled_layers(lookup, retention, graphs)
    found = {}
    for pattern, paths in layers.items():
        # Layers that were added by an injection have no original.
        found[pattern] = [
            pair
            for path in paths
            if path in originals
            for pair in pair_weights(path, lookup.layers[path], originals[path])
        ]
        if not found[pattern]:
            raise ValueError(
                f"retention['{pattern}'] covers no weights that were "
                "pretrained, so there is nothing to keep."
            )
    return found


def _find_kinds(graph: Graph, pattern: str, method: Retention) -> list[Kind]:
    kinds = find_kinds(graph, getattr(method, "outputs", None))
    if "linear" not in kinds:
        return kinds
    layer = find_last_call(graph, kinds.index("linear")).operation
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    kind = ", ".join(filter(None, (type(layer).__name__, activation)))
    raise ValueError(
        f"retention['{pattern}'] is LwF, and network '{graph.name}' ends in "
        f"'{layer.name}' ({kind}): its outputs are features, and there is no "
        "old head to keep. Pass the network with the head that it was trained "
        "with, which may come after the last tap; if its outputs are logits, "
        "say so: LwF(..., outputs='softmax_logits'); or take L2SP or EWC."
    )


def _check_data(
    retention: Mapping[str, Retention], weights: Mapping[str, Sequence[Weight]]
) -> None:
    """Raises a ValueError if EWC lacks data, or cannot read them again."""
    for pattern, several in weights.items():
        method = retention[pattern]
        if not isinstance(method, EWC) or _is_known(method, several):
            continue
        if method.data is None:
            raise ValueError(
                f"retention['{pattern}'] is EWC without data: a file contains "
                "the Fisher information, not the data. Pass them again: "
                "EWC(strength, data)."
            )
        blocks = {weight.layer[0] for weight in several}
        if len(blocks) > 1 and not user_data.is_reiterable(method.data):
            raise ValueError(
                f"retention['{pattern}'] is EWC of {len(blocks)} networks, "
                "each of which reads the data, and a generator can be read "
                "once. Pass an array or a data set, or a pattern for each."
            )


def _is_known(method: EWC, weights: Sequence[Weight]) -> bool:
    return all(
        weight.path in method.known
        and method.known[weight.path].shape == weight.shape
        for weight in weights
    )


def _estimate(
    method: EWC, weights: Sequence[Weight], graphs: Mapping[str, Graph]
) -> dict[str, np.ndarray]:
    """Returns the Fisher information of weights, by their paths."""
    if _is_known(method, weights):
        return {weight.path: method.known[weight.path] for weight in weights}
    found: dict[str, np.ndarray] = {}
    for block in dict.fromkeys(weight.layer[0] for weight in weights):
        of_block = [w for w in weights if w.layer[0] == block]
        found |= _estimate_block(method, of_block, graphs[block], block)
    return found


def _estimate_block(
    method: EWC, weights: Sequence[Weight], graph: Graph, block: str
) -> dict[str, np.ndarray]:
    # A copy: flags change, and a training step runs, if one without effect.
    network = copy_graph(graph, block)
    layers: dict[LayerPath, keras.Layer] = {
        (block, *path): layer for path, layer in leaf_layers(network)
    }
    wanted = {weight.layer for weight in weights}
    for path, layer in layers.items():
        for inner in compat.sublayers(layer):
            inner.trainable = path in wanted  # no gradient for the others
    diagonal = fisher_diagonal(
        network,
        method.data,
        find_kinds(graph, method.outputs),
        method.probes,
        method.batch_size,
        method.seed,
    )
    variables = map(id, network.trainable_variables)
    by_variable = dict(zip(variables, diagonal, strict=True))
    return {
        weight.path: by_variable[
            id(weights_of(layers[weight.layer])[weight.number])
        ]
        for weight in weights
    }
