"""Linear layers that become one layer.

What is folded is computed in float64 and rounded once.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade.exporting.folding.affine import (
    DEPTHWISE,
    SEPARABLE,
    TRANSPOSED,
    Array,
    Scaling,
    array,
    matrix_of,
)


def scaled(layer: Any, scaling: Scaling) -> keras.Layer:
    """A layer with a scaling behind it, as one layer."""
    kernel = _kernel_of(layer)
    scale = scaling.scale
    if type(layer) in DEPTHWISE:
        scale = scale.reshape(kernel.shape[-2:])
    elif type(layer) in TRANSPOSED:
        scale = scale[:, None]
    bias = _bias_of(layer) * scaling.scale + scaling.shift
    return _with_weights(layer, kernel * scale, bias)


def behind(layer: Any, scaling: Scaling) -> keras.Layer:
    """A layer that mixes channels, with a scaling before it, as one layer."""
    matrix = matrix_of(layer)
    kernel = matrix * scaling.scale[:, None]
    return _with_weights(
        layer, kernel, _bias_of(layer) + scaling.shift @ matrix
    )


def chained(first: Any, second: Any) -> keras.Layer:
    """A linear layer and one that mixes what it gives, as one layer.

    It has the second one's activation, and is a convolution where either is:
    what ends a mask still does.
    """
    matrix = matrix_of(second)
    bias = _bias_of(first) @ matrix + _bias_of(second)
    kind = second if type(first) is keras.layers.Dense else first
    return _with_weights(
        kind, _kernel_of(first) @ matrix, bias, second.activation
    )


def joined(
    layers: Sequence[Any], widths: Sequence[int], last: Any
) -> keras.Layer:
    """Layers whose outputs are joined and then mixed, as one layer.

    Args:
        layers: The linear layer of each part; None where there is none.
        widths: The channels of each part.
        last: What mixes them.

    Returns:
        The layer that mixes what went into the layers, joined.
    """
    blocks = np.split(matrix_of(last), np.cumsum(widths)[:-1])
    bias, kernels = _bias_of(last), []
    for layer, block in zip(layers, blocks, strict=True):
        if layer is None:
            kernels.append(block)
        else:
            kernels.append(matrix_of(layer) @ block)
            bias = bias + _bias_of(layer) @ block
    return _with_weights(last, np.concatenate(kernels), bias)


def centred(x: Any, mean: Array) -> Any:
    """Subtracts a mean; a mask stays, as it does with a Normalization."""
    found = keras.ops.subtract(x, mean)
    mask = compat.keras_mask(x)
    if mask is not None:
        compat.set_keras_mask(found, mask)
    return found


def _kernel_of(layer: Any) -> Array:
    """The kernel that makes the channels that a layer gives."""
    if type(layer) in SEPARABLE:
        return array(layer.pointwise_kernel)
    return array(layer.kernel)


def _bias_of(layer: Any) -> Array:
    """The bias; zeros where there is none."""
    if layer.use_bias:
        return array(layer.bias)
    shape = _kernel_of(layer).shape
    if type(layer) in DEPTHWISE:
        return np.zeros(shape[-2] * shape[-1])
    return np.zeros(shape[-2 if type(layer) in TRANSPOSED else -1])


def _with_weights(
    layer: Any, kernel: Array, bias: Array, activation: Any = None
) -> keras.Layer:
    """A layer like another, with other weights and perhaps another width."""
    arguments = _arguments(layer)
    for name in {"units", "filters"} & arguments.keys():
        arguments[name] = len(bias)
    arguments["activation"] = activation or layer.activation
    new: Any = type(layer)(**arguments)
    new.build(_input_shape(layer, kernel))
    if type(layer) in SEPARABLE:
        new.depthwise_kernel.assign(layer.depthwise_kernel)
        target = new.pointwise_kernel
    else:
        target = new.kernel
    target.assign(kernel.reshape(target.shape).astype("float32"))
    new.bias.assign(bias.astype("float32"))
    return new


# What a layer is made of that counts in inference, as its arguments are called.
_SHAPING = (
    "units",
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "output_padding",
    "data_format",
    "dilation_rate",
    "groups",
    "depth_multiplier",
)


def _arguments(layer: Any) -> dict[str, Any]:
    """What makes a layer like another; not its config.

    That would have Keras serialise initializers, regularizers and activations
    of the user's, with warnings for those that are lambdas.
    """
    known = inspect.signature(type(layer)).parameters
    shaping = {x: getattr(layer, x) for x in _SHAPING if x in known}
    # No random numbers are drawn for weights that are set at once.
    zeros = {x: "zeros" for x in known if x.endswith("_initializer")}
    own = {"name": layer.name, "dtype": "float32", "trainable": False}
    return {**shaping, **zeros, **own, "use_bias": True}


def _input_shape(layer: Any, kernel: Array) -> tuple[int | None, ...]:
    """The shape to build a layer for, of which only the channels count."""
    if type(layer) is keras.layers.Dense:
        return (None, kernel.shape[-2])
    channels = _channels_in(layer, kernel)
    open_axes = (None,) * layer.rank
    if layer.data_format == "channels_first":
        return (None, channels, *open_axes)
    return (None, *open_axes, channels)


def _channels_in(layer: Any, kernel: Array) -> int:
    if type(layer) in SEPARABLE:
        return layer.depthwise_kernel.shape[-2]
    if type(layer) in DEPTHWISE:
        return kernel.shape[-2]
    if type(layer) in TRANSPOSED:
        return kernel.shape[-1]
    return kernel.shape[-2] * layer.groups
