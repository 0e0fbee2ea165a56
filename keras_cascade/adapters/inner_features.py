"""A model of inner tensors of a network, with their masks.

Tested by `tests/adapters/test_fitting.py`.
"""

from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade.graph.graph import Graph, Reference
from keras_cascade.graph.masks import masks_of
from keras_cascade.graph.replay import Replay


class InnerFeatures(keras.Model):
    """Computes tensors inside a network, in inference mode.

    Keras keeps masks as attributes of tensors, which the arrays of
    `predict_on_batch` do not have; here, masks are outputs. The model shares
    the layers of the network.
    """

    def __init__(self, graph: Graph, wanted: Mapping[str, Reference]):
        super().__init__(name="features")
        self.network, _ = Replay(share=True).build(graph, "features", wanted)

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
        flat = [inputs[name] for name in self.needed_inputs]
        packed = keras.tree.pack_sequence_as(self.network.input, flat)
        return self.predict_on_batch(packed)
