"""Makes an untrained network of the same architecture, as a control.

Tested by `tests/ranking/test_stitching.py`.
"""

from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade.graph.block import leaf_layers


def settle(network: keras.Model, batch: Mapping[str, Any]) -> None:
    """Gives each BatchNormalization the statistics of a batch.

    With the initial ones, features of a deep network with random weights
    hardly depend on its inputs.

    Args:
        network: A network that trains as a whole. It is changed.
        batch: The arrays of a batch by the names of its inputs.
    """
    kind = keras.layers.BatchNormalization
    norms: list[Any] = [
        layer for _, layer in leaf_layers(network) if isinstance(layer, kind)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    given = keras.tree.map_structure(lambda x: batch[x.name], network.input)
    network(given, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
