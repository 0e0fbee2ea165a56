"""Has layers compute with operations that converters and runtimes know.

Antialiased and bicubic resizing are products with matrices. Recurrent networks
are unrolled for LiteRT, whose loops need a batch of a fixed size, and for
tf2onnx, which writes no loops. In torch's ONNX files they are operators, and
jax2onnx writes only loops that count up.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade._keras_compat.backend_functions import backend_functions
from keras_cascade.exporting.formats import onnx_recurrent, torch_padding
from keras_cascade.exporting.options import NEED_CALIBRATION, ExportOptions

# Each step is some twenty operators in the file, and takes a tenth of a second
# to convert. A fixed batch needs no unrolling, but 8 bits cannot be calibrated
# in a loop.
LONGEST_UNROLLED, LONGEST_OF_FIXED_BATCH = 256, 32
# The backends whose bicubic interpolation, without antialiasing, is another.
_CUBIC = {"torch": -0.75}
# TensorFlow reads the weights of this interpolation from a table.
_TABLE_SIZE = 1024
# Positions that lie so far outside count as the first and last ones.
_REACH = 2


@contextmanager
def convertible_operations(options: ExportOptions) -> Iterator[None]:
    """Has layers that are traced compute with operations of a format."""

    def resize(original: Callable, images: Any, size: Any, **how: Any) -> Any:
        # The numbers stay those of the backend that the model runs on.
        return resized(original, images, size, options.source, **how)

    functions = {"resize": resize, **_recurrent(options), **_padding()}
    with backend_functions(**functions):
        yield


def _padding() -> dict[str, Callable]:
    """Returns the functions that pad images of open sizes."""
    if keras.config.backend() != "torch":
        return {}
    return {
        "_apply_same_padding": torch_padding.same_padding,
        "average_pool": torch_padding.average_pool,
    }


def _recurrent(options: ExportOptions) -> dict[str, Callable]:
    """Returns the functions that recurrent layers compute with."""
    if options.format == "tflite":
        loops = options.batch_size and options.quantize not in NEED_CALIBRATION
        longest = LONGEST_OF_FIXED_BATCH if loops else LONGEST_UNROLLED
        return {"rnn": partial(_unrolled, longest)}
    if options.format != "onnx":
        return {}
    if keras.config.backend() == "jax":
        return {"rnn": _forwards}
    loop: dict[str, Callable] = {"rnn": partial(_unrolled, LONGEST_UNROLLED)}
    if keras.config.backend() == "torch":
        loop |= {"lstm": onnx_recurrent.lstm, "gru": onnx_recurrent.gru}
    return loop


def _forwards(
    original: Callable,
    step: Callable,
    inputs: Any,
    states: Any,
    go_backwards: bool = False,
    mask: Any = None,
    **how: Any,
) -> Any:
    """Runs a recurrent layer, without a loop that counts down."""
    if go_backwards:
        axis = 0 if how.get("time_major") else 1
        flip = partial(ops.flip, axis=axis)
        inputs = keras.tree.map_structure(flip, inputs)
        mask = None if mask is None else flip(mask)
    return original(step, inputs, states, mask=mask, **how)


def _unrolled(
    longest: int,
    original: Callable,
    step: Callable,
    inputs: Any,
    states: Any,
    *args: Any,
    **how: Any,
) -> Any:
    """Runs a recurrent layer, without a loop if the length is known."""
    axis = 0 if how.get("time_major") else 1
    length = keras.tree.flatten(inputs)[0].shape[axis]
    if length is not None and 0 < length <= longest:
        how["unroll"] = True
    return original(step, inputs, states, *args, **how)


def resized(
    original: Callable,
    images: Any,
    size: Sequence[int],
    source: str,
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Any:
    """Returns resized images, computed with products of matrices.

    Nearest and plain bilinear interpolation, which all runtimes know, are left
    to the backend, as are images of unknown sizes.
    """
    data_format = data_format or keras.config.image_data_format()
    first = len(images.shape) - (2 if data_format == "channels_first" else 3)
    axes = (first, first + 1)
    before = [images.shape[axis] for axis in axes]
    how: dict[str, Any] = {
        "interpolation": interpolation,
        "antialias": antialias,
        "data_format": data_format,
    }
    if None in before or not keras.backend.is_float_dtype(images.dtype):
        how["crop_to_aspect_ratio"] = crop_to_aspect_ratio
        how["pad_to_aspect_ratio"] = pad_to_aspect_ratio
        how["fill_mode"], how["fill_value"] = fill_mode, fill_value
        return original(images, size, **how)
    if crop_to_aspect_ratio:
        images = _cropped(images, axes, size)
    elif pad_to_aspect_ratio:
        images = _padded(images, axes, size, fill_value)
    is_known = interpolation == "bilinear" and not antialias
    if is_known or interpolation == "nearest":
        return original(images, size, **how)
    for axis, count in zip(axes, size, strict=True):
        matrix = weights(
            images.shape[axis], count, interpolation, antialias, source
        )
        images = _multiplied(images, matrix, axis)
    return images


def _multiplied(images: Any, matrix: np.ndarray, axis: int) -> Any:
    letters = "abcd"[: len(images.shape)]
    summed = letters[axis]
    kernel = ops.cast(ops.convert_to_tensor(matrix, "float32"), images.dtype)
    result = letters.replace(summed, "z")
    return ops.einsum(f"{letters},z{summed}->{result}", images, kernel)


def _other_sizes(before: Sequence[int], size: Sequence[int]) -> list[int]:
    """Returns the height for the width, and the width for the height."""
    (height, width), (tall, wide) = before, size
    # Keras computes them in float32.
    return [
        int(np.float32(width * tall) / np.float32(wide)),
        int(np.float32(height * wide) / np.float32(tall)),
    ]


def _cropped(images: Any, axes: Sequence[int], size: Sequence[int]) -> Any:
    """Returns the middle of images, in the aspect ratio of a size."""
    before = [images.shape[axis] for axis in axes]
    place = [slice(None)] * len(images.shape)
    others = _other_sizes(before, size)
    for axis, count, other in zip(axes, before, others, strict=True):
        kept = max(min(count, other), 1)
        start = (count - kept) // 2
        place[axis] = slice(start, start + kept)
    return images[tuple(place)]


def _padded(
    images: Any, axes: Sequence[int], size: Sequence[int], value: float
) -> Any:
    """Returns images with a frame that gives them the ratio of a size."""
    before = [images.shape[axis] for axis in axes]
    widths = [(0, 0)] * len(images.shape)
    others = _other_sizes(before, size)
    for axis, count, other in zip(axes, before, others, strict=True):
        frame = (max(count, other) - count) // 2
        widths[axis] = (frame, frame)
    return ops.pad(images, widths, constant_values=value)


def weights(
    count: int, size: int, interpolation: str, antialias: bool, source: str
) -> np.ndarray:
    """Returns the weights `(size, count)` of positions in resized ones.

    They are those of `keras.ops.image.resize` on the backend `source`.
    """
    ratio = count / size
    stretch = max(ratio, 1.0) if antialias else 1.0
    centres = (np.arange(size) + 0.5) * ratio - 0.5
    is_plain_cubic = interpolation == "bicubic" and not antialias
    if is_plain_cubic and source == "tensorflow":
        whole = np.floor(centres)
        steps = np.round((centres - whole) * _TABLE_SIZE)
        centres = whole + steps / _TABLE_SIZE
    sharpness = _CUBIC.get(source, -0.5) if is_plain_cubic else -0.5
    places = np.arange(-_REACH, count + _REACH)
    distance = np.abs(centres[:, None] - places) / stretch
    values = _kernel(interpolation, distance, sharpness)
    found = values[:, _REACH:-_REACH].copy()
    if sharpness != -0.5:
        # There the positions outside have the value of the nearest inside.
        found[:, 0] += values[:, :_REACH].sum(axis=1)
        found[:, -1] += values[:, -_REACH:].sum(axis=1)
    return found / found.sum(axis=1, keepdims=True)


def _kernel(name: str, x: np.ndarray, a: float) -> np.ndarray:
    """Returns the weights at some distances, as in Keys (1981) if bicubic."""
    if name == "bilinear":
        return np.maximum(1 - x, 0)
    if name == "bicubic":
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))
    radius = int(name.removeprefix("lanczos"))
    return np.where(x < radius, np.sinc(x) * np.sinc(x / radius), 0)
