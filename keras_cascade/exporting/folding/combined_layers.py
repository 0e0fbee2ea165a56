"""Computes one layer that does the work of several linear ones.

Weights are computed in float64 and rounded once.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade.exporting.folding.affine import (
    DEPTHWISE,
    SEPARABLE,
    TRANSPOSED,
    KernelLayer,
    Scaling,
    mixing_matrix,
    to_float64,
)


def absorb_scale(layer: KernelLayer, scaling: Scaling) -> keras.Layer:
    """Returns one layer for a layer and the scaling after it."""
    kernel = _kernel_of(layer)
    scale = scaling.scale
    # These kernels do not end in the channels of the output.
    if type(layer) in DEPTHWISE:
        scale = scale.reshape(kernel.shape[-2:])
    elif type(layer) in TRANSPOSED:
        scale = scale[:, None]
    bias = _bias_of(layer) * scaling.scale + scaling.shift
    return _with_weights(layer, kernel * scale, bias)


def absorb_preceding_scale(layer: KernelLayer, scaling: Scaling) -> keras.Layer:
    """Returns one layer for a scaling and the mixing layer after it."""
    matrix = mixing_matrix(layer)
    kernel = matrix * scaling.scale[:, None]
    return _with_weights(
        layer, kernel, _bias_of(layer) + scaling.shift @ matrix
    )


def chain(first: KernelLayer, second: KernelLayer) -> keras.Layer:
    """Returns one layer for a linear layer and the mixing layer after it."""
    matrix = mixing_matrix(second)
    bias = _bias_of(first) @ matrix + _bias_of(second)
    # A convolution where either is one: convolutions hand no mask on.
    kind = second if type(first) is keras.layers.Dense else first
    kernel = _kernel_of(first) @ matrix
    return _with_weights(kind, kernel, bias, second.activation)


def join(
    layers: Sequence[KernelLayer | None],
    widths: Sequence[int],
    last: KernelLayer,
) -> keras.Layer:
    """Returns one layer for layers, their concatenation, and a mixing layer.

    Args:
        layers: The linear layer of each concatenated part; None if it has
            none.
        widths: The channels of each part.
        last: The layer that mixes the concatenation.

    Returns:
        The layer that takes the concatenation of the layers' inputs.
    """
    blocks = np.split(mixing_matrix(last), np.cumsum(widths)[:-1])
    bias, kernels = _bias_of(last), []
    for layer, block in zip(layers, blocks, strict=True):
        if layer is None:
            kernels.append(block)
        else:
            kernels.append(mixing_matrix(layer) @ block)
            bias = bias + _bias_of(layer) @ block
    return _with_weights(last, np.concatenate(kernels), bias)


def subtract_mean(x: Any, mean: np.ndarray) -> Any:
    """Subtracts a mean, and keeps the mask as a Normalization does."""
    found = keras.ops.subtract(x, mean)
    mask = compat.keras_mask(x)
    if mask is not None:
        compat.set_keras_mask(found, mask)
    return found


def _kernel_of(layer: KernelLayer) -> np.ndarray:
    """Returns the kernel that makes the channels of a layer's output."""
    if isinstance(layer, SEPARABLE):
        return to_float64(layer.pointwise_kernel)
    return to_float64(layer.kernel)


def _bias_of(layer: KernelLayer) -> np.ndarray:
    """Returns the bias, or zeros."""
    if layer.use_bias:
        return to_float64(layer.bias)
    shape = _kernel_of(layer).shape
    if type(layer) in DEPTHWISE:
        return np.zeros(shape[-2] * shape[-1])
    return np.zeros(shape[-2 if type(layer) in TRANSPOSED else -1])


def _with_weights(
    layer: KernelLayer,
    kernel: np.ndarray,
    bias: np.ndarray,
    activation: Callable[[Any], Any] | None = None,
) -> keras.Layer:
    """Returns a layer like another with new weights, of the bias's width."""
    arguments = _arguments(layer)
    for name in {"units", "filters"} & arguments.keys():
        arguments[name] = len(bias)
    arguments["activation"] = activation or layer.activation
    new: Any = type(layer)(**arguments)
    new.build(_input_shape(layer, kernel))
    if isinstance(layer, SEPARABLE):
        new.depthwise_kernel.assign(layer.depthwise_kernel)
        target = new.pointwise_kernel
    else:
        target = new.kernel
    target.assign(kernel.reshape(target.shape).astype("float32"))
    new.bias.assign(bias.astype("float32"))
    return new


# The arguments of layers that count in inference.
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


def _arguments(layer: KernelLayer) -> dict[str, Any]:
    """Returns the arguments of a layer of the same kind, with a bias."""
    # `get_config` would have Keras serialise initializers, regularizers and
    # activations of the user's, with warnings for those that are lambdas.
    known = inspect.signature(type(layer)).parameters
    shaping = {x: getattr(layer, x) for x in _SHAPING if x in known}
    # No random numbers are drawn for weights that are set at once.
    zeros = {x: "zeros" for x in known if x.endswith("_initializer")}
    own = {"name": layer.name, "dtype": "float32", "trainable": False}
    return {**shaping, **zeros, **own, "use_bias": True}


def _input_shape(layer: KernelLayer, kernel: np.ndarray) -> tuple:
    """Returns a shape to build a layer for, of which only channels count."""
    if type(layer) is keras.layers.Dense:
        return (None, kernel.shape[-2])
    convolution: Any = layer
    channels = _channels_in(convolution, kernel)
    open_axes = (None,) * convolution.rank
    if convolution.data_format == "channels_first":
        return (None, channels, *open_axes)
    return (None, *open_axes, channels)


def _channels_in(convolution: Any, kernel: np.ndarray) -> int:
    if type(convolution) in SEPARABLE:
        return convolution.depthwise_kernel.shape[-2]
    if type(convolution) in DEPTHWISE:
        return kernel.shape[-2]
    if type(convolution) in TRANSPOSED:
        return kernel.shape[-1]
    return kernel.shape[-2] * convolution.groups
