"""Preprocessing as layers at the network's start.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

# Makes what a module wants of an image, and says which shape enters.
Steps = tuple[
    Callable[[keras.KerasTensor], keras.KerasTensor],
    Callable[[list[int | None]], list[int | None]],
]


def preprocessing(given: Any, data_format: str | None) -> Steps | None:
    """Returns the steps that an argument `preprocess` stands for.

    Args:
        given: None, a layer, or a mapping; see `from_torch`.
        data_format: The data format of images.

    Raises:
        TypeError: If it is none of these.
        ValueError: If the mapping has other keys.
    """
    if given is None:
        return None
    if isinstance(given, keras.Layer):
        return given, lambda shape: shape
    if not isinstance(given, Mapping):
        raise TypeError(
            "preprocess must be None, a layer, or a mapping with 'mean', "
            f"'std' and 'size'; received {given!r}."
        )
    unknown = set(given) - {"mean", "std", "size"}
    if unknown:
        raise ValueError(
            "preprocess may have 'mean', 'std' and 'size'; received "
            f"{sorted(unknown)}."
        )
    data_format = data_format or keras.config.image_data_format()
    made = [*_resizing(given, data_format), *_rescaling(given, data_format)]

    def apply(tensor: keras.KerasTensor) -> keras.KerasTensor:
        for layer in made:
            tensor = layer(tensor)
        return tensor

    def entry(shape: list[int | None]) -> list[int | None]:
        if "size" not in given:
            return shape
        last = data_format == "channels_last"
        return [None, None, shape[-1]] if last else [shape[0], None, None]

    return apply, entry


def _resizing(given: Mapping[str, Any], data_format: str) -> list[Any]:
    if "size" not in given:
        return []
    height, width = given["size"]
    return [
        layers.Resizing(
            height,
            width,
            antialias=True,
            data_format=data_format,
            name="resizing",
        )
    ]


def _rescaling(given: Mapping[str, Any], data_format: str) -> list[Any]:
    mean = np.asarray(given.get("mean", 0.0), "float64")
    std = np.asarray(given.get("std", 1.0), "float64")
    scale, offset = np.broadcast_arrays(1 / (255 * std), -mean / std)
    if data_format == "channels_first" and scale.ndim:
        scale, offset = scale[:, None, None], offset[:, None, None]
    return [layers.Rescaling(scale.tolist(), offset.tolist(), name="rescaling")]
