"""Which layers of a network are linear, and what they do, as arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Array = np.ndarray

# Layers whose kernel ends in the channels that they give.
CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
KERNELS = (
    keras.layers.Dense,
    *CONVOLUTIONS,
    *DEPTHWISE,
    *SEPARABLE,
    *TRANSPOSED,
)


@dataclass(frozen=True)
class Scaling:
    """`x * scale + shift`, a number a channel.

    Attributes:
        scale: `(channels,)`.
        shift: `(channels,)`.
        axis: The axis of the channels.
    """

    scale: Array
    shift: Array
    axis: int


def is_float32(layer: keras.Layer) -> bool:
    """Whether a layer computes in float32 with plain weights."""
    policy = layer.dtype_policy
    return (
        policy.compute_dtype == "float32"
        and policy.variable_dtype == "float32"
        and policy.quantization_mode is None
    )


def is_linear(layer: Any) -> bool:
    """Whether a layer with a kernel does nothing after its bias."""
    return (
        type(layer) in KERNELS
        and layer.activation in (None, keras.activations.linear)
        and is_float32(layer)
        and not getattr(layer, "lora_enabled", False)
    )


def channel_axis(layer: Any, rank: int) -> int:
    """The axis of the channels that a layer with a kernel gives."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first else rank - 1


def batch_norm(layer: Any, rank: int) -> Scaling | None:
    """What a BatchNormalization does in inference."""
    if type(layer) is not keras.layers.BatchNormalization:
        return None
    if not is_float32(layer) or not isinstance(layer.axis, int):
        return None
    variance = array(layer.moving_variance) + layer.epsilon
    scale = 1 / np.sqrt(variance)
    if layer.scale:
        scale = scale * array(layer.gamma)
    shift = -array(layer.moving_mean) * scale
    if layer.center:
        shift = shift + array(layer.beta)
    return Scaling(scale, shift, layer.axis % rank)


def normalization(layer: Any, rank: int) -> Scaling | None:
    """What a Normalization over the last axis does."""
    if type(layer) is not keras.layers.Normalization or layer.invert:
        return None
    axes = [axis % rank for axis in layer.axis]
    if axes != [rank - 1] or not is_float32(layer):
        return None
    mean = array(layer.mean).reshape(-1)
    deviation = np.sqrt(array(layer.variance).reshape(-1))
    scale = 1 / np.maximum(deviation, keras.config.epsilon())
    return Scaling(scale, -mean * scale, rank - 1)


def mixes(layer: Any) -> bool:
    """Whether a layer mixes channels, at each position alone.

    A Dense, or a convolution of size and stride one.
    """
    if type(layer) not in (keras.layers.Dense, *CONVOLUTIONS):
        return False
    if not is_float32(layer) or getattr(layer, "lora_enabled", False):
        return False
    if type(layer) is keras.layers.Dense:
        return True
    return layer.groups == 1 and all(
        x == 1 for x in (*layer.kernel_size, *layer.strides)
    )


def matrix_of(layer: Any) -> Array:
    """What it mixes them by: `(channels in, channels out)`."""
    kernel = array(layer.kernel)
    return kernel.reshape(kernel.shape[-2:])


def can_lead(layer: Any) -> bool:
    """Whether what mixes its channels can become a part of it."""
    kinds = (keras.layers.Dense, *CONVOLUTIONS)
    return (
        is_linear(layer)
        and type(layer) in kinds
        and getattr(layer, "groups", 1) == 1
    )


def saved_by_chaining(first: Any, second: Any) -> int:
    """How many weights fewer two layers have as one."""
    kernel, matrix = first.kernel, second.kernel
    width = kernel.shape[-1]
    merged = _size(kernel) // width * matrix.shape[-1]
    return _size(kernel) + _size(matrix) - merged


def saved_by_joining(layers: Sequence[Any], last: Any) -> int:
    """How many weights fewer there are when the last one has it all."""
    width = last.kernel.shape[-1]
    return sum(
        _size(x.kernel)
        + x.kernel.shape[-1] * width
        - x.kernel.shape[-2] * width
        for x in layers
        if x is not None
    )


def array(variable: Any) -> Array:
    """The values in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), dtype="float64")


def _size(variable: Any) -> int:
    return math.prod(variable.shape)
