"""Combines linear layers, scalings and concatenations into one layer.

Weights are computed in float64 and rounded once.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade.exporting.folding.affine import (
    DEPTHWISE,
    SEPARABLE,
    TRANSPOSED,
    Scaling,
    channel_axis,
    mixing_matrix,
    to_float64,
)
from keras_cascade.graph.masks import copy_mask

# The arguments of layers that count in inference.
_WIDTH = {"units", "filters"}
_WINDOW = {"kernel_size", "strides", "padding", "output_padding"}
_CHANNELS = {"data_format", "dilation_rate", "groups", "depth_multiplier"}


def absorb_scale(layer: keras.Layer, scaling: Scaling) -> keras.Layer:
    """Returns one layer for a layer and the scaling after it."""
    kernel, scale = _kernel_of(layer), scaling.scale
    bias = _bias_of(layer, len(scale)) * scale + scaling.shift
    # These kernels do not end in the channels of the output.
    if type(layer) in DEPTHWISE:
        scale = scale.reshape(kernel.shape[-2:])
    elif type(layer) in TRANSPOSED:
        scale = scale[:, None]
    return _with_weights(layer, kernel * scale, bias, _built_shape(layer))


def absorb_preceding_scale(layer: keras.Layer, scaling: Scaling) -> keras.Layer:
    """Returns one layer for a scaling and the mixing layer after it."""
    matrix = mixing_matrix(layer)
    kernel = matrix * scaling.scale[:, None]
    bias = _bias_of(layer, matrix.shape[1]) + scaling.shift @ matrix
    return _with_weights(layer, kernel, bias, _built_shape(layer))


def chain(first: keras.Layer, second: keras.Layer) -> keras.Layer:
    """Returns one layer for a linear layer and the mixing layer after it."""
    matrix = mixing_matrix(second)
    width, new_width = matrix.shape
    bias = _bias_of(first, width) @ matrix + _bias_of(second, new_width)
    # A convolution where either is one: convolutions hand no mask on.
    kind = second if type(first) is keras.layers.Dense else first
    kernel, shape = _kernel_of(first) @ matrix, _built_shape(first)
    return _with_weights(kind, kernel, bias, shape, second.activation)


def join(
    layers: Sequence[keras.Layer | None],
    widths: Sequence[int],
    last: keras.Layer,
) -> keras.Layer:
    """Returns one layer for layers, their concatenation, and a mixing layer.

    It takes the concatenation of the inputs of the layers. A part of some
    width that has no layer (None) stays as it is.
    """
    matrix = mixing_matrix(last)
    bias, kernels = _bias_of(last, matrix.shape[1]), []
    blocks = np.split(matrix, np.cumsum(widths)[:-1])
    for layer, block in zip(layers, blocks, strict=True):
        if layer is None:
            kernels.append(block)
        else:
            kernels.append(mixing_matrix(layer) @ block)
            bias = bias + _bias_of(layer, len(block)) @ block
    kernel, shape = np.concatenate(kernels), list(_built_shape(last))
    shape[channel_axis(last, len(shape))] = len(kernel)
    return _with_weights(last, kernel, bias, shape)


def subtract_mean(x: Any, mean: np.ndarray) -> Any:
    """Subtracts a mean, and keeps the mask as a Normalization does."""
    return copy_mask(x, keras.ops.subtract(x, mean))


def _kernel_of(layer: keras.Layer) -> np.ndarray:
    """Returns the kernel that makes the channels of a layer's output."""
    if type(layer) in SEPARABLE:
        return to_float64(layer.pointwise_kernel)
    return to_float64(layer.kernel)


def _bias_of(layer: keras.Layer, width: int) -> np.ndarray:
    return to_float64(layer.bias) if layer.use_bias else np.zeros(width)


def _built_shape(layer: keras.Layer) -> Sequence[int | None]:
    config: Any = layer.get_build_config()
    return config["input_shape"]


def _with_weights(
    layer: keras.Layer,
    kernel: np.ndarray,
    bias: np.ndarray,
    shape: Sequence[int | None],
    activation: Callable[[Any], Any] | None = None,
) -> keras.Layer:
    """Returns a layer like another with new weights, for inputs of a shape."""
    arguments = _arguments(layer)
    for name in _WIDTH & arguments.keys():
        arguments[name] = len(bias)
    arguments["activation"] = activation or layer.activation
    new: Any = type(layer)(**arguments)
    new.build(tuple(shape))
    if type(layer) in SEPARABLE:
        new.depthwise_kernel.assign(layer.depthwise_kernel)
        target = new.pointwise_kernel
    else:
        target = new.kernel
    target.assign(kernel.reshape(target.shape).astype("float32"))
    new.bias.assign(bias.astype("float32"))
    return new


def _arguments(layer: keras.Layer) -> dict[str, Any]:
    """Returns the arguments of a layer of the same kind, with a bias."""
    # `get_config` would have Keras serialise initializers, regularizers and
    # activations of the user's, with warnings for those that are lambdas.
    known = inspect.signature(type(layer)).parameters
    counts = _WIDTH | _WINDOW | _CHANNELS
    shaping = {x: getattr(layer, x) for x in counts if x in known}
    # No random numbers are drawn for weights that are set at once.
    zeros = {x: "zeros" for x in known if x.endswith("_initializer")}
    own = {"name": layer.name, "dtype": "float32", "trainable": False}
    return {**shaping, **zeros, **own, "use_bias": True}
