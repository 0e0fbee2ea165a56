"""Pools maps, volumes and sequences to vectors.

Tested by `tests/adapters/test_dense.py`.
"""

import math
from typing import Any, Unpack, cast

import keras
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade.adapters.adapter import Adapter, LayerArguments
from keras_cascade.adapters.plain import Layers

POOLS = ("auto", "avg", "max", "flatten", None)
# Keras's layers for the mean and the maximum over positions, by rank.
MEANS = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}
_MAXIMA = {
    3: keras.layers.GlobalMaxPooling1D,
    4: keras.layers.GlobalMaxPooling2D,
    5: keras.layers.GlobalMaxPooling3D,
}


class PooledAdapter(Adapter):
    """An adapter that pools its input before it works on the last axis.

    Its arguments are as in `DenseAdapter` and `Adapter`.
    """

    def __init__(
        self,
        pool: str | None,
        data_format: str | None,
        **arguments: Unpack[LayerArguments],
    ):
        super().__init__(**arguments)
        self.pool = self._one_of("pool", pool, POOLS)
        self.data_format = self._format(data_format)
        self.supports_masking = True

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "pool": self.pool,
            "data_format": self.data_format,
        }

    def build(self, input_shape: Shape) -> None:
        """Checks the shape and fixes the sizes that weights depend on."""
        self.pooled_shape(input_shape)
        rank = len(input_shape)
        axes = [channel_axis(rank, self.data_format)]
        if self.pool == "flatten":
            axes = list(range(1, rank))
        self.input_spec = keras.layers.InputSpec(
            ndim=rank, axes={axis: input_shape[axis] for axis in axes}
        )
        super().build(input_shape)

    def compute_mask(
        self, inputs: Tensor, previous_mask: Tensor | None = None
    ) -> Tensor | None:
        """Returns the mask if no step is pooled away."""
        return previous_mask if self.pool is None else None

    def pooled_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape after pooling; an error if there is none."""
        shape = tuple(input_shape)
        problem = _problem_with(shape, self.pool, self.data_format)
        if problem is None:
            pooled = self._shape_without_checks(shape)
            if pooled[-1] is not None:
                return pooled
            problem = "it needs a known number of features"
        raise ValueError(
            f"Adapter '{self.name}' ({type(self).__name__}, "
            f"pool={self.pool!r}) received an input of shape {shape}: "
            f"{problem}."
        )

    def _shape_without_checks(self, shape: Shape) -> Shape:
        if self.pool is None or len(shape) == 2:
            return shape
        if self.pool == "flatten":
            known = [size for size in shape[1:] if size is not None]
            width = math.prod(known) if len(known) == len(shape) - 1 else None
            return (shape[0], width)
        return (shape[0], shape[channel_axis(len(shape), self.data_format)])

    def pooled_width(self, input_shape: Shape) -> int:
        """Returns the number of features after pooling."""
        return cast(int, self.pooled_shape(input_shape)[-1])

    def _pooled(self, x: Tensor, mask: Tensor | None) -> Any:
        return pool_features(x, self.pool, self.data_format, mask)

    def _plain_pooling(self, shape: Shape, dtype: DType) -> Layers:
        return pooling_layers(
            shape, self.pool, self.data_format, self.name, dtype
        )


def channel_axis(rank: int, data_format: str | None) -> int:
    """Returns the axis of the channels in tensors of a rank, batch included.

    A sequence is `(batch, steps, features)` in either format.
    """
    return 1 if data_format == "channels_first" and rank > 3 else rank - 1


def pool_features(
    x: Tensor, pool: str | None, data_format: str, mask: Tensor | None = None
) -> Any:
    """Pools maps, volumes or sequences to a vector for each sample.

    The mask says which steps of a sequence count; vectors stay as they are.
    """
    rank = len(x.shape)
    if pool is None or rank == 2:
        return x
    if pool == "flatten":
        return ops.reshape(x, (-1, math.prod(x.shape[1:])))
    if mask is not None and rank == 3:
        return _pool_masked(x, pool, mask)
    axes = sorted({*range(1, rank)} - {channel_axis(rank, data_format)})
    return ops.max(x, axis=axes) if pool == "max" else ops.mean(x, axis=axes)


def pooling_layers(
    shape: Shape, pool: str | None, data_format: str, name: str, dtype: DType
) -> Layers:
    """Returns the stock layer for `pool_features`, if any is needed."""
    rank = len(shape)
    if pool is None or rank == 2:
        return []
    if pool == "flatten":
        # "channels_first" would have it transpose first.
        kind, data_format = keras.layers.Flatten, "channels_last"
    else:
        kind = (_MAXIMA if pool == "max" else MEANS)[rank]
        data_format = "channels_last" if rank == 3 else data_format
    layer = kind(data_format=data_format, name=f"{name}_pool", dtype=dtype)
    layer.build(shape)
    return [layer]


def _problem_with(
    shape: Shape, pool: str | None, data_format: str
) -> str | None:
    rank = len(shape)
    if rank < 2:
        return "it needs at least an axis of features after the batch"
    if rank > 5 and pool not in ("flatten", None):
        return (
            "only vectors, sequences, maps and volumes can be averaged; "
            "use pool='flatten' or pool=None"
        )
    if pool is None and channel_axis(rank, data_format) != rank - 1:
        return (
            "pool=None works on the last axis, which has no channels in "
            "'channels_first'; permute the tap first or pool it"
        )
    return None


def _pool_masked(x: Tensor, pool: str, mask: Tensor) -> Any:
    """Pools the steps that count; a sample without any gives zeros."""
    counts: Any = ops.expand_dims(ops.cast(mask, "bool"), -1)
    if pool == "max":
        lowest = ops.where(counts, x, float("-inf"))
        some = ops.any(counts, axis=1)
        return ops.where(some, ops.max(lowest, axis=1), 0.0)
    # Not a product with the counts: masked steps may be NaN.
    total = ops.sum(ops.where(counts, x, 0.0), axis=1)
    count = ops.sum(ops.cast(counts, x.dtype), axis=1)
    return ops.divide(total, ops.maximum(count, 1.0))
