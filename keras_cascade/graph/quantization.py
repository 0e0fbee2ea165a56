"""Quantizes layers as others are, and keeps the paths of their variables.

Tested by `tests/behaviour/test_quantized.py`.
"""

from typing import Any

import keras

from keras_cascade import _keras_compat as compat

# Modes that need no calibration: the variables are all that there is.
_MODES = ("int8", "int4", "float8")
# The weights that are quantized, in the shapes that they had.
_WEIGHTS = ("kernel", "embeddings")


def quantize_like(source: keras.Layer, target: keras.Layer, path: str) -> None:
    """Quantizes a layer, and layers inside it, as another one is.

    Layers whose weights have other shapes stay as they are.

    Args:
        source: The layer that may be quantized.
        target: A layer of the same kind.
        path: The path of both, for the error.

    Raises:
        ValueError: If the quantization was calibrated on data.
    """
    inside = list(compat.sublayers(source)), list(compat.sublayers(target))
    if [type(x) for x in inside[0]] != [type(x) for x in inside[1]]:
        return
    for old, new in zip(*inside, strict=True):
        old_layer: Any = old
        mode = getattr(old, "quantization_mode", None)
        if mode == getattr(new, "quantization_mode", None) or mode is None:
            continue
        if mode not in _MODES:
            raise ValueError(
                f"'{path}' is quantized by '{mode}', which a rebuild cannot "
                "repeat without its data. Rebuild the cascade as it was before "
                f"quantize(); {', '.join(_MODES)} can be rebuilt."
            )
        if _shapes(old) == _shapes(new):
            new.quantize(mode, config=old_layer.quantization_config)


def _shapes(layer: keras.Layer) -> list[tuple[int, ...]]:
    found = (getattr(layer, name, None) for name in _WEIGHTS)
    return [tuple(x.shape) for x in found if x is not None]
