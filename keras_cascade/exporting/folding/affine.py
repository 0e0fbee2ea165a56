"""Tells which layers are linear, and gives their weights as arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

# Types are compared, not `isinstance`: a subclass may compute something else.
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
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


@dataclass(frozen=True)
class Scaling:
    """`x * scale + shift` for each channel of an axis."""

    scale: np.ndarray
    shift: np.ndarray
    axis: int


def is_float32(layer: keras.Layer) -> bool:
    """Whether a layer computes in float32 with plain weights."""
    policy = layer.dtype_policy
    dtypes = {policy.compute_dtype, policy.variable_dtype}
    return dtypes == {"float32"} and policy.quantization_mode is None


def is_linear(layer: keras.Layer) -> bool:
    """Whether a layer has a kernel, and does nothing after its bias."""
    nothing = (None, keras.activations.linear)
    return _is_plain(layer, _KERNELS) and layer.activation in nothing


def mixes_channels(layer: keras.Layer) -> bool:
    """Whether a layer is a Dense, or a convolution of size and stride one."""
    if not _is_plain(layer, _MIXERS):
        return False
    is_dense = type(layer) is keras.layers.Dense
    return is_dense or {layer.groups, *layer.kernel_size, *layer.strides} == {1}


def can_absorb_mixer(layer: keras.Layer) -> bool:
    """Whether a mixing layer after this one can become part of it."""
    # Groups would have to mix, and a depthwise kernel has no channels out.
    can_mix = type(layer) in _MIXERS and getattr(layer, "groups", 1) == 1
    return can_mix and is_linear(layer)


def _is_plain(layer: keras.Layer, kinds: tuple[type, ...]) -> bool:
    """Whether a layer of some kinds has float32 weights without LoRA."""
    if type(layer) not in kinds or getattr(layer, "lora_enabled", False):
        return False
    return is_float32(layer)


def channel_axis(layer: keras.Layer, rank: int) -> int:
    """Returns the axis of the channels that a layer with a kernel gives."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first else rank - 1


def scaling_of(layer: keras.Layer, rank: int) -> Scaling | None:
    """Returns the scaling of a layer in inference, or None if it is none."""
    return batch_norm_scaling(layer, rank) or _normalization(layer, rank)


def batch_norm_scaling(layer: keras.Layer, rank: int) -> Scaling | None:
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


def _normalization(layer: keras.Layer, rank: int) -> Scaling | None:
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


def mixing_matrix(layer: keras.Layer) -> np.ndarray:
    """Returns the kernel of a mixing layer: `(channels in, channels out)`."""
    kernel = to_float64(layer.kernel)
    return kernel.reshape(kernel.shape[-2:])


def weights_saved_by_chaining(first: keras.Layer, second: keras.Layer) -> int:
    """Returns how many weights fewer two layers have as one."""
    kernel, matrix = first.kernel.shape, second.kernel.shape
    merged = math.prod(kernel[:-1]) * matrix[-1]
    return math.prod(kernel) + math.prod(matrix) - merged


def weights_saved_by_joining(
    layers: Sequence[keras.Layer | None], last: keras.Layer
) -> int:
    """Returns how many weights fewer there are if the last layer has all."""
    width = last.kernel.shape[-1]
    shapes = [x.kernel.shape for x in layers if x is not None]
    return sum(math.prod(x) + (x[-1] - x[-2]) * width for x in shapes)


def to_float64(variable: Any) -> np.ndarray:
    """Returns the values of a variable or a tensor in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), dtype="float64")
