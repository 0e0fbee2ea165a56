"""Checks layers that users pass, and calls copies of them."""

from typing import Any

import keras

from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.layer_copying import (
    copy_known_state,
    copy_operation,
)
from keras_cascade.networks.loading import as_functional


def call_copy(layer: keras.Layer, name: str, inputs: Any) -> Any:
    """Calls a copy of a layer, with the layer's state where it has any.

    Args:
        layer: A layer or a network; it stays as it is.
        name: The name of the copy.
        inputs: Symbolic tensors.

    Returns:
        The symbolic outputs.
    """
    if isinstance(layer, keras.Model) and as_functional(layer) is not None:
        return copy_network(layer, name)(inputs)
    copy: Any = copy_operation(layer, name)
    outputs = copy(inputs)
    copy_known_state(layer, copy)
    return outputs


def check_layer(layer: object, what: str, or_else: str = "") -> keras.Layer:
    """Returns the layer itself, if it is one.

    Args:
        layer: The object that the user passed.
        what: The argument that it was passed as, for the error.
        or_else: Other values that are possible: "None, ". Defaults to `""`.

    Raises:
        TypeError: If it is a class, or no Keras layer.
    """
    if isinstance(layer, keras.Layer):
        return layer
    hint = " Write it with parentheses." if isinstance(layer, type) else ""
    raise TypeError(
        f"{what} must be {or_else}a Keras layer; received {layer!r} of type "
        f"{type(layer).__name__}.{hint}"
    )
