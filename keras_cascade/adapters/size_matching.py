"""MatchSize: resizes features to the positions of others, when it runs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade.adapters.adapter import Adapter
from keras_cascade.adapters.plain import Layers
from keras_cascade.adapters.pooling import channel_axis
from keras_cascade.adapters.resampling import (
    Resampling,
    triangles,
    without_masked,
)

_LETTERS = "abcde"


@keras.saving.register_keras_serializable(package="keras_cascade")
class MatchSize(Adapter):
    """Resizes features to the height and width, or length, of others.

    For maps, sequences and volumes whose sizes are not known before the model
    runs. The weights are those of `SpatialAdapter`. Features that have the
    size already stay as they are. Steps of a sequence that are masked count
    for nothing, as in `TokenAdapter`.

    Args:
        data_format: Where maps have their channels. Defaults to `None`,
            `keras.config.image_data_format()`.
        trainable: Without effect: there are no weights. Defaults to `True`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: The name of the layer. Defaults to `None`.

    Example:
    >>> import numpy as np
    >>> coarse, fine = np.ones((2, 4, 4, 8)), np.ones((2, 7, 9, 3))
    >>> tuple(MatchSize()([coarse, fine]).shape)
    (2, 7, 9, 8)
    """

    def __init__(
        self,
        data_format: str | None = None,
        trainable: bool = True,
        dtype: DType = None,
        name: str | None = None,
    ):
        super().__init__(trainable=trainable, dtype=dtype, name=name)
        self.data_format = self._format(data_format)
        self.supports_masking = True
        # Whether inputs have masks is known by calls alone; `to_plain` asks.
        self._met_mask = False

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = super().get_config()
        for name in ("autocast", "activity_regularizer"):
            config.pop(name, None)
        return {**config, "data_format": self.data_format}

    def call(self, inputs: Sequence[Tensor], mask: Any = None) -> Any:
        """Resizes the first input to the positions of the second."""
        x, like = inputs
        mask = None if mask is None else mask[0]
        if mask is not None and len(x.shape) == 3:
            self._met_mask = self._met_mask or not _is_equal(x, like, 1)
            return _resample_masked(x, like, mask)
        for axis in position_axes(len(x.shape), self.data_format):
            x = _resample(x, like, axis)
        return x

    def compute_mask(
        self, inputs: Sequence[Tensor], previous_mask: Any = None
    ) -> Any:
        """Returns the mask of a sequence: steps made of any that count."""
        mask = None if previous_mask is None else previous_mask[0]
        if mask is None or len(inputs[0].shape) != 3:
            return None
        x, like = inputs
        if _is_equal(x, like, 1):
            return mask
        self._met_mask = True
        return ops.any(ops.greater(_masked_weights(x, like, mask), 0.0), -1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        """Returns the first shape with the positions of the second."""
        shape, like = input_shape
        return matched_shape(shape, like, self.data_format)

    def to_plain(self) -> Layers:
        """Returns a small model of stock operations.

        Raises:
            NotImplementedError: If it has resized a sequence under a mask,
                for which there are no stock layers.
        """
        if self._met_mask:
            raise NotImplementedError(
                f"'{self.name}' resizes masked sequences of unknown length, "
                "and no stock layers do. Give the networks inputs of a known "
                "length, or keep the cascade: it saves and loads with "
                "`keras_cascade` imported."
            )
        shapes: Any = self.get_build_config()
        inputs: Any = [keras.Input(x[1:]) for x in shapes["input_shape"]]
        return [keras.Model(inputs, self.call(inputs), name=self.name)]


def position_axes(rank: int, data_format: str | None) -> list[int]:
    """Returns the axes of the positions in tensors of a rank with batch."""
    return sorted({*range(1, rank)} - {channel_axis(rank, data_format)})


def matched_shape(shape: Shape, like: Shape, data_format: str | None) -> Shape:
    """Returns a shape with the positions of another of equal rank."""
    axes = position_axes(len(shape), data_format)
    return tuple(like[i] if i in axes else n for i, n in enumerate(shape))


def _is_equal(x: Tensor, like: Tensor, axis: int) -> bool:
    """Whether an axis of both is known to have one size."""
    given, wanted = x.shape[axis], like.shape[axis]
    # While torch exports, a size may be a symbol: it is not to be decided.
    return type(given) is int and type(wanted) is int and given == wanted


def _resample(x: Tensor, like: Tensor, axis: int) -> Any:
    if _is_equal(x, like, axis):
        return x
    if type(x.shape[axis]) is int and type(like.shape[axis]) is int:
        return Resampling(axis, like.shape[axis])(x)
    given = _LETTERS[: len(x.shape)]
    summed = given[axis]
    equation = f"{given},z{summed}->{given.replace(summed, 'z')}"
    return ops.einsum(equation, x, ops.cast(_weights(x, like, axis), x.dtype))


def _resample_masked(x: Tensor, like: Tensor, mask: Tensor) -> Any:
    if _is_equal(x, like, 1):
        return x
    weights = _masked_weights(x, like, mask)
    return ops.matmul(ops.cast(weights, x.dtype), without_masked(x, mask))


def _masked_weights(x: Tensor, like: Tensor, mask: Tensor) -> Any:
    """Returns weights `(batch, size, steps)`, zero for masked steps."""
    counts = ops.expand_dims(ops.cast(mask, "float32"), 1)
    return _scaled(ops.multiply(_weights(x, like, 1), counts))


def _weights(x: Tensor, like: Tensor, axis: int) -> Any:
    """Returns the weights `(size, count)` of a resampling."""
    places, count = _count(x, axis)
    cells, size = _count(like, axis)
    rule = Resampling(axis, None)
    column: Any = ops.expand_dims(cells, -1)
    ratio: Any = ops.divide(count, size)
    return _scaled(triangles(ops, places, column, ratio, rule))


def _scaled(weights: Any) -> Any:
    """Returns weights that add up to one, or are all zero."""
    total: Any = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total > 0, total, ops.ones_like(total))


def _count(x: Tensor, axis: int) -> tuple[Any, Any]:
    """Returns the numbers of the positions along an axis, and how many.

    They are counted rather than read off the shape, which is known to no
    symbolic tensor.
    """
    others = [i for i in range(len(x.shape)) if i != axis]
    zeros = ops.sum(ops.zeros_like(x, dtype="float32"), axis=others)
    ones = ops.add(zeros, 1.0)
    return ops.subtract(ops.cumsum(ones), 1.0), ops.sum(ones)
