"""Tokens of a sequence as a vector, a grid or steps, and a map as steps.

Each arrangement does one of these on tensors of one shape, for `call` with the
backend's operations and for `to_plain` in stock layers.

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
Reshape = Callable[[Any, tuple[int, ...]], Any]


def reshape(x: Tensor, sizes: tuple[int, ...]) -> Any:
    """Reshapes a tensor; one size may be -1, whatever the batch."""
    # Two sizes cannot both be left to the reshape.
    batch: Any = ops.shape(x)[0] if -1 in sizes else -1
    return ops.reshape(x, (batch, *sizes))


def _reshape_by_layer(x: Tensor, sizes: tuple[int, ...]) -> Any:
    return keras.layers.Reshape(sizes)(x)


@dataclass(frozen=True)
class Arrangement:
    """Rearranges an input before it is resampled and projected.

    Attributes:
        shape: The shape of the input.
    """

    shape: Shape

    @property
    def output_shape(self) -> Shape:
        """The shape of the result."""
        return self.shape

    def __call__(
        self, x: Tensor, mask: Tensor | None = None, reshape: Reshape = reshape
    ) -> Any:
        """Returns the arranged tensor."""
        return x

    def mask(self, mask: Any) -> Any:
        """Returns the mask of the result's steps."""
        return mask

    def plain(self, name: str, dtype: DType) -> Layers:
        """Returns stock layers that do the same without a mask."""
        # A model of operations: layers that slice know no masks, and need
        # the number of steps.
        inputs: Any = keras.Input(self.shape[1:])
        result = self(inputs, reshape=_reshape_by_layer)
        return [keras.Model(inputs, result, name=f"{name}_tokens")]


@dataclass(frozen=True)
class MeanOfTokens(Arrangement):
    """Averages the steps that count."""

    @property
    def output_shape(self) -> Shape:
        """The vector's shape."""
        return (self.shape[0], self.shape[2])

    def __call__(
        self, x: Tensor, mask: Tensor | None = None, reshape: Reshape = reshape
    ) -> Any:
        """Returns the mean."""
        return pool_features(x, "avg", "channels_last", mask)

    def plain(self, name: str, dtype: DType) -> Layers:
        """Returns Keras's layer for the mean, which knows masks."""
        return pooling_layers(self.shape, "avg", "channels_last", name, dtype)


@dataclass(frozen=True)
class ClassToken(MeanOfTokens):
    """Picks the first token."""

    def __call__(
        self, x: Any, mask: Tensor | None = None, reshape: Reshape = reshape
    ) -> Any:
        """Returns the token."""
        return x[:, 0]

    plain = Arrangement.plain


@dataclass(frozen=True)
class Steps(Arrangement):
    """Keeps the tokens as they are, but for a class token.

    Attributes:
        drops_first: Whether the first token is left out.
    """

    drops_first: bool

    @property
    def output_shape(self) -> Shape:
        """The shape without a class token."""
        steps = self.shape[1]
        if steps is not None and self.drops_first:
            steps -= 1
        return (self.shape[0], steps, self.shape[2])

    def __call__(
        self, x: Any, mask: Tensor | None = None, reshape: Reshape = reshape
    ) -> Any:
        """Returns the steps."""
        return x[:, 1:] if self.drops_first else x

    def mask(self, mask: Any) -> Any:
        """Returns the mask of the steps that are kept."""
        return mask[:, 1:] if self.drops_first and mask is not None else mask

    def plain(self, name: str, dtype: DType) -> Layers:
        """Returns nothing where nothing is left out."""
        return super().plain(name, dtype) if self.drops_first else []


@dataclass(frozen=True)
class Grid(Steps):
    """Lays tokens out row by row; those that are masked are zero.

    Attributes:
        grid: Height and width.
        channels_first: Whether the map has its channels first.
    """

    grid: tuple[int, int]
    channels_first: bool

    @property
    def output_shape(self) -> Shape:
        """The map's shape."""
        batch, _, channels = self.shape
        if self.channels_first:
            return (batch, channels, *self.grid)
        return (batch, *self.grid, channels)

    def __call__(
        self, x: Any, mask: Tensor | None = None, reshape: Reshape = reshape
    ) -> Any:
        """Returns the map."""
        x, mask = super().__call__(x), self.mask(mask)
        if mask is not None:
            x = without_masked(x, mask)
        x = reshape(x, (*self.grid, self.shape[2] or 0))
        return ops.transpose(x, (0, 3, 1, 2)) if self.channels_first else x

    plain = Arrangement.plain


@dataclass(frozen=True)
class Positions(Arrangement):
    """Makes a step of each position of a map, row by row.

    Attributes:
        channels_first: Whether the map has its channels first.
    """

    channels_first: bool

    @property
    def output_shape(self) -> Shape:
        """The sequence's shape; no number of steps where one is unknown."""
        batch, *sizes = self.shape
        channels = sizes.pop(0 if self.channels_first else -1)
        known = [size for size in sizes if size is not None]
        return (batch, math.prod(known) if len(known) == 2 else None, channels)

    def __call__(
        self, x: Any, mask: Tensor | None = None, reshape: Reshape = reshape
    ) -> Any:
        """Returns the sequence."""
        if self.channels_first:
            x = ops.transpose(x, (0, 2, 3, 1))
        # The number of positions may not be known; the channels are.
        _, steps, channels = self.output_shape
        return reshape(x, (-1 if steps is None else steps, channels or 0))
