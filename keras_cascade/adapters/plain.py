"""Stock Keras layers with given weights, for models without this package.

Tested by `tests/adapters/test_dense.py`.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import keras

from keras_cascade._keras_compat.annotations import Shape, Tensor

Layers = list[keras.layers.Layer]
_Layer = TypeVar("_Layer", bound=keras.layers.Layer)


def with_weights(
    layer: _Layer, shape: Shape, weights: Sequence[Tensor | None]
) -> _Layer:
    """Returns the layer, built for an input shape, with given weights.

    A value is reshaped to the shape of its weight; None is left out.
    """
    layer.build(shape)
    given = (keras.ops.convert_to_numpy(x) for x in weights if x is not None)
    arrays: list[Any] = list(given)
    pairs = zip(arrays, layer.weights, strict=True)
    layer.set_weights([value.reshape(weight.shape) for value, weight in pairs])
    return layer
