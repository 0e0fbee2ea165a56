"""Tokens of a sequence as a vector, a grid or steps, and a map as steps.

Tested by `tests/adapters/test_tokens.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade.adapters.plain import Layers
from keras_cascade.adapters.pooling import pool_features, pooling_layers
from keras_cascade.adapters.resampling import without_masked

# Reshapes all axes but the batch.
Reshape = Callable[[Any, tuple[int | None, ...]], Any]


def reshape(x: Tensor, sizes: tuple[int | None, ...]) -> Any:
    """Reshapes a tensor; one size may be None, whatever the batch."""
    if None not in sizes:
        return ops.reshape(x, (-1, *sizes))
    # Two sizes cannot both be left open.
    shape: Any = ops.shape(x)
    return ops.reshape(x, (shape[0], *(-1 if n is None else n for n in sizes)))


def _reshape_by_layer(x: Tensor, sizes: tuple[int | None, ...]) -> Any:
    target = [-1 if size is None else size for size in sizes]
    return keras.layers.Reshape(target)(x)


@dataclass(frozen=True)
class Arrangement:
    """How an input is arranged before it is resampled and projected.

    Attributes:
        input_shape: The shape of the input.
        shape: The shape of the result.
        run: Arranges a tensor under its mask, with a function that reshapes.
        drops_first: Whether the first step is left out.
        stock_layers: Layers for `to_plain`; None makes a model of `run`.
    """

    input_shape: Shape
    shape: Shape
    run: Callable[[Any, Any, Reshape], Any]
    drops_first: bool = False
    stock_layers: Callable[[str, DType], Layers] | None = None

    def mask(self, mask: Any) -> Any:
        """Returns the mask of the steps that are kept."""
        return mask[:, 1:] if self.drops_first and mask is not None else mask

    def plain(self, name: str, dtype: DType) -> Layers:
        """Returns stock layers that do the same without a mask."""
        if self.stock_layers is not None:
            return self.stock_layers(name, dtype)
        # A model of operations: layers that slice know no masks, and need
        # the number of steps.
        inputs: Any = keras.Input(self.input_shape[1:])
        result = self.run(inputs, None, _reshape_by_layer)
        return [keras.Model(inputs, result, name=f"{name}_tokens")]


def class_token(shape: Shape) -> Arrangement:
    """Picks the first token of a sequence."""
    vector = (shape[0], shape[2])
    return Arrangement(shape, vector, lambda x, mask, reshape: x[:, 0])


def mean_of_tokens(shape: Shape) -> Arrangement:
    """Averages the steps of a sequence that count."""

    def run(x: Tensor, mask: Tensor | None, reshape: Reshape) -> Any:
        return pool_features(x, "avg", "channels_last", mask)

    def layers(name: str, dtype: DType) -> Layers:
        return pooling_layers(shape, "avg", "channels_last", name, dtype)

    return Arrangement(shape, (shape[0], shape[2]), run, stock_layers=layers)


def steps(shape: Shape, drops_first: bool) -> Arrangement:
    """Keeps a sequence as it is, but for its class token."""
    if not drops_first:
        return Arrangement(
            shape,
            shape,
            lambda x, mask, reshape: x,
            stock_layers=lambda name, dtype: [],
        )
    count = None if shape[1] is None else shape[1] - 1
    return Arrangement(
        shape,
        (shape[0], count, shape[2]),
        lambda x, mask, reshape: x[:, 1:],
        drops_first,
    )


def grid_of_tokens(
    shape: Shape, drops_first: bool, grid: Shape, channels_first: bool
) -> Arrangement:
    """Lays tokens out row by row, those that are masked as zeros."""
    batch, _, channels = shape
    kept = steps(shape, drops_first)

    def run(x: Tensor, mask: Tensor | None, reshape: Reshape) -> Any:
        x = kept.run(x, mask, reshape)
        if mask is not None:
            x = without_masked(x, kept.mask(mask))
        x = reshape(x, (*grid, channels))
        return ops.transpose(x, (0, 3, 1, 2)) if channels_first else x

    sizes = (channels, *grid) if channels_first else (*grid, channels)
    return Arrangement(shape, (batch, *sizes), run, drops_first)


def positions(shape: Shape, channels_first: bool) -> Arrangement:
    """Makes a step of each position of a map, row by row."""
    batch, *sizes = shape
    channels = sizes.pop(0 if channels_first else -1)
    known = [size for size in sizes if size is not None]
    # The number of positions may not be known; the channels are.
    count = math.prod(known) if len(known) == 2 else None

    def run(x: Tensor, mask: Tensor | None, reshape: Reshape) -> Any:
        last = ops.transpose(x, (0, 2, 3, 1)) if channels_first else x
        return reshape(last, (count, channels))

    return Arrangement(shape, (batch, count, channels), run)
