"""The linear layers of a network as arrays, and layers made of arrays.

What is folded is computed in float64 and rounded once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Array = np.ndarray

# Layers whose kernel ends in the channels that they give.
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
KERNELS = (
    keras.layers.Dense,
    *_CONVOLUTIONS,
    *_DEPTHWISE,
    *_SEPARABLE,
    *_TRANSPOSED,
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
        and not hasattr(policy, "mode")
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
    if type(layer) is keras.layers.Dense:
        return not getattr(layer, "lora_enabled", False)
    if type(layer) not in _CONVOLUTIONS or layer.groups != 1:
        return False
    return all(x == 1 for x in (*layer.kernel_size, *layer.strides))


def matrix_of(layer: Any) -> Array:
    """What it mixes them by: `(channels in, channels out)`."""
    kernel = array(layer.kernel)
    return kernel.reshape(kernel.shape[-2:])


def can_lead(layer: Any) -> bool:
    """Whether what mixes its channels can become a part of it."""
    kinds = (keras.layers.Dense, *_CONVOLUTIONS)
    return (
        is_linear(layer)
        and type(layer) in kinds
        and (getattr(layer, "groups", 1) == 1)
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


def kernel_of(layer: Any) -> Array:
    """The kernel that makes the channels that a layer gives."""
    if type(layer) in _SEPARABLE:
        return array(layer.pointwise_kernel)
    return array(layer.kernel)


def bias_of(layer: Any) -> Array:
    """The bias; zeros where there is none."""
    if layer.use_bias:
        return array(layer.bias)
    shape = kernel_of(layer).shape
    if type(layer) in _DEPTHWISE:
        return np.zeros(shape[-2] * shape[-1])
    return np.zeros(shape[-2 if type(layer) in _TRANSPOSED else -1])


def scaled(layer: Any, scaling: Scaling) -> keras.Layer:
    """A layer with a scaling behind it, as one layer."""
    kernel = kernel_of(layer)
    scale = scaling.scale
    if type(layer) in _DEPTHWISE:
        scale = scale.reshape(kernel.shape[-2:])
    elif type(layer) in _TRANSPOSED:
        scale = scale[:, None]
    bias = bias_of(layer) * scaling.scale + scaling.shift
    return with_weights(layer, kernel * scale, bias)


def behind(layer: Any, scaling: Scaling) -> keras.Layer:
    """A layer that mixes channels, with a scaling before it, as one layer."""
    matrix = matrix_of(layer)
    kernel = matrix * scaling.scale[:, None]
    return with_weights(layer, kernel, bias_of(layer) + scaling.shift @ matrix)


def chained(first: Any, second: Any) -> keras.Layer:
    """A linear layer and one that mixes what it gives, as one layer.

    It is of the first one's kind and has the second one's activation.
    """
    matrix = matrix_of(second)
    bias = bias_of(first) @ matrix + bias_of(second)
    return with_weights(
        first, kernel_of(first) @ matrix, bias, second.activation
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
    bias, kernels = bias_of(last), []
    for layer, block in zip(layers, blocks, strict=True):
        if layer is None:
            kernels.append(block)
        else:
            kernels.append(matrix_of(layer) @ block)
            bias = bias + bias_of(layer) @ block
    return with_weights(last, np.concatenate(kernels), bias)


def with_weights(
    layer: Any, kernel: Array, bias: Array, activation: Any = None
) -> keras.Layer:
    """A layer like another, with other weights and perhaps another width."""
    config = {**layer.get_config(), "use_bias": True, "trainable": False}
    config.update(_no_training(config))
    for name in {"units", "filters"} & config.keys():
        config[name] = len(bias)
    config["activation"] = activation or layer.activation
    new: Any = type(layer).from_config(config)
    new.build(_input_shape(layer, kernel))
    separable = type(layer) in _SEPARABLE
    weights = [array(layer.depthwise_kernel)] if separable else []
    target = new.get_weights()
    weights += [kernel.reshape(target[len(weights)].shape), bias]
    new.set_weights([x.astype("float32") for x in weights])
    return new


def array(variable: Any) -> Array:
    """The values in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), dtype="float64")


def _size(variable: Any) -> int:
    return math.prod(variable.shape)


def _no_training(config: dict[str, Any]) -> dict[str, None]:
    """What only training reads."""
    ends = ("_regularizer", "_constraint")
    return {name: None for name in config if name.endswith(ends)}


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
    if type(layer) in _SEPARABLE:
        return layer.depthwise_kernel.shape[-2]
    if type(layer) in _DEPTHWISE:
        return kernel.shape[-2]
    if type(layer) in _TRANSPOSED:
        return kernel.shape[-1]
    return kernel.shape[-2] * layer.groups
