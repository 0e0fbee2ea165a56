"""Tells which layers are linear, and gives their weights as arrays."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import keras
import numpy as np

# Types are compared, not `isinstance`: a subclass may compute something else.
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
# The layers whose kernel ends in the channels of their output.
_MIXERS = (keras.layers.Dense, *CONVOLUTIONS)
_KERNELS = (*_MIXERS, *DEPTHWISE, *SEPARABLE, *TRANSPOSED)


class KernelLayer(Protocol):
    """The members that Dense and Keras's convolutions have in common."""

    name: str
    kernel: keras.Variable
    bias: keras.Variable
    use_bias: bool
    lora_enabled: bool
    activation: Callable[[Any], Any] | None
    dtype_policy: keras.DTypePolicy


@dataclass(frozen=True)
class Scaling:
    """`x * scale + shift` for each channel.

    Attributes:
        scale: `(channels,)`.
        shift: `(channels,)`.
        axis: The axis of the channels.
    """

    scale: np.ndarray
    shift: np.ndarray
    axis: int


def is_float32(layer: keras.Layer | KernelLayer) -> bool:
    """Whether a layer computes in float32 with plain weights."""
    policy = layer.dtype_policy
    return (
        policy.compute_dtype == "float32"
        and policy.variable_dtype == "float32"
        and policy.quantization_mode is None
    )


def is_linear(layer: object) -> TypeGuard[KernelLayer]:
    """Whether a layer has a kernel, and does nothing after its bias."""
    return _is_plain(layer, _KERNELS) and layer.activation in (
        None,
        keras.activations.linear,
    )


def mixes_channels(layer: object) -> TypeGuard[KernelLayer]:
    """Whether a layer mixes the channels of each position alone.

    It is a Dense, or a convolution of size and stride one.
    """
    if not _is_plain(layer, _MIXERS):
        return False
    if not isinstance(layer, CONVOLUTIONS):
        return True
    return layer.groups == 1 and all(
        x == 1 for x in (*layer.kernel_size, *layer.strides)
    )


def can_absorb_mixer(layer: object) -> TypeGuard[KernelLayer]:
    """Whether a layer that mixes its output's channels can become part of it.

    Groups would have to mix, and a depthwise kernel has no second channels.
    """
    return (
        is_linear(layer)
        and type(layer) in _MIXERS
        and getattr(layer, "groups", 1) == 1
    )


def _is_plain(layer: object, kinds: tuple[type, ...]) -> TypeGuard[KernelLayer]:
    """Whether a layer of some kinds has float32 weights without LoRA."""
    return (
        type(layer) in kinds
        and isinstance(layer, keras.Layer)
        and is_float32(layer)
        and not getattr(layer, "lora_enabled", False)
    )


def channel_axis(layer: object, rank: int) -> int:
    """Returns the axis of the channels that a layer with a kernel gives."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first else rank - 1


def scaling_of(layer: object, rank: int) -> Scaling | None:
    """Returns the scaling of a layer in inference, or None if it is none."""
    return batch_norm_scaling(layer, rank) or _normalization(layer, rank)


def batch_norm_scaling(layer: object, rank: int) -> Scaling | None:
    """Returns the scaling of a BatchNormalization in inference."""
    if type(layer) is not keras.layers.BatchNormalization:
        return None
    if not is_float32(layer) or not isinstance(layer.axis, int):
        return None
    scale = 1 / np.sqrt(to_float64(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * to_float64(layer.gamma)
    shift = -to_float64(layer.moving_mean) * scale
    if layer.center:
        shift = shift + to_float64(layer.beta)
    return Scaling(scale, shift, layer.axis % rank)


def _normalization(layer: object, rank: int) -> Scaling | None:
    """Returns the scaling of a Normalization over the last axis."""
    if type(layer) is not keras.layers.Normalization or layer.invert:
        return None
    axes = [axis % rank for axis in layer.axis]
    if axes != [rank - 1] or not is_float32(layer):
        return None
    mean = to_float64(layer.mean).reshape(-1)
    deviation = np.sqrt(to_float64(layer.variance).reshape(-1))
    # Keras bounds the deviation too, for features that never vary.
    scale = 1 / np.maximum(deviation, keras.config.epsilon())
    return Scaling(scale, -mean * scale, rank - 1)


def mixing_matrix(layer: KernelLayer) -> np.ndarray:
    """Returns the kernel of a mixing layer: `(channels in, channels out)`."""
    kernel = to_float64(layer.kernel)
    return kernel.reshape(kernel.shape[-2:])


def weights_saved_by_chaining(first: KernelLayer, second: KernelLayer) -> int:
    """Returns how many weights fewer two layers have as one."""
    kernel, matrix = first.kernel.shape, second.kernel.shape
    merged = math.prod(kernel[:-1]) * matrix[-1]
    return math.prod(kernel) + math.prod(matrix) - merged


def weights_saved_by_joining(
    layers: Sequence[KernelLayer | None], last: KernelLayer
) -> int:
    """Returns how many weights fewer there are if the last layer has all."""
    width = last.kernel.shape[-1]
    shapes = [x.kernel.shape for x in layers if x is not None]
    return sum(math.prod(x) + (x[-1] - x[-2]) * width for x in shapes)


def to_float64(variable: keras.Variable) -> np.ndarray:
    """Returns the values of a variable in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), dtype="float64")
