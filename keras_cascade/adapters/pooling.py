"""Maps and sequences to vectors: the maths that adapters share."""

import math
from typing import Any, cast

import keras

from keras_cascade.adapters.adapter import Adapter

POOLS = ("auto", "avg", "max", "flatten", None)
Shape = tuple[int | None, ...]


class PooledAdapter(Adapter):
    """An adapter that pools its input before it works on the last axis.

    Args:
        pool: `"auto"`, `"avg"`, `"max"`, `"flatten"` or None.
        data_format: `"channels_last"`, `"channels_first"`, or None for
            `keras.config.image_data_format()`.
        trainable, dtype, autocast, activity_regularizer, name: as in
            `Adapter`.
    """

    def __init__(
        self,
        *,
        pool: str | None,
        data_format: str | None,
        trainable: bool,
        dtype: Any,
        name: str | None,
        autocast: bool = True,
        activity_regularizer: Any = None,
    ):
        super().__init__(
            trainable=trainable,
            dtype=dtype,
            autocast=autocast,
            activity_regularizer=activity_regularizer,
            name=name,
        )
        if pool not in POOLS:
            raise ValueError(
                f"Adapter '{self.name}': `pool` is one of {POOLS}, received "
                f"{pool!r}."
            )
        data_format = data_format or keras.config.image_data_format()
        if data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"Adapter '{self.name}': `data_format` is 'channels_last' or "
                f"'channels_first', received {data_format!r}."
            )
        self.pool = pool
        self.data_format = data_format
        self.supports_masking = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "pool": self.pool,
            "data_format": self.data_format,
        }

    def build(self, input_shape: Any) -> None:
        """Checks the shape and holds later inputs to it."""
        self.pooled_shape(input_shape)
        fixed = self._fixed_axes(len(input_shape))
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape),
            axes={axis: input_shape[axis] for axis in fixed},
        )
        super().build(input_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """A vector has no steps left to mask."""
        return previous_mask if self.pool is None else None

    def pooled_shape(self, input_shape: Any) -> Shape:
        """The shape after pooling; an error where there is no such."""
        shape = tuple(input_shape)
        problem = _problem_with(shape, self.pool, self.data_format)
        if problem is None:
            pooled = pooled_shape(shape, self.pool, self.data_format)
            if pooled[-1] is not None:
                return pooled
            problem = "it needs a known number of features"
        raise ValueError(
            f"Adapter '{self.name}' ({type(self).__name__}, "
            f"pool={self.pool!r}) received an input of shape {shape}: "
            f"{problem}."
        )

    def pooled_width(self, input_shape: Any) -> int:
        """The number of features after pooling."""
        return cast(int, self.pooled_shape(input_shape)[-1])

    def _built_shape(self) -> Shape:
        """The input shape that this is built for, for `to_plain`."""
        config = self.get_build_config()
        if config is None:
            raise ValueError(
                f"Adapter '{self.name}' is not built, and so has no weights "
                "to hand on. Call it on features, or `build(shape)`, first."
            )
        return tuple(config["input_shape"])

    def _fixed_axes(self, rank: int) -> list[int]:
        """The axes whose sizes the weights depend on."""
        if self.pool == "flatten":
            return list(range(1, rank))
        return [channel_axis(rank, self.data_format)]


def pooled_shape(shape: Shape, pool: str | None, data_format: str) -> Shape:
    """The shape that `pool_features` gives for an input of `shape`."""
    if pool is None or len(shape) == 2:
        return shape
    if pool == "flatten":
        inner = shape[1:]
        known = [size for size in inner if size is not None]
        features = math.prod(known) if len(known) == len(inner) else None
        return (shape[0], features)
    return (shape[0], shape[channel_axis(len(shape), data_format)])


def pool_features(
    x: Any, pool: str | None, data_format: str, mask: Any = None
) -> Any:
    """Pools a map, sequence or volume to a vector a sample.

    Args:
        x: floating tensor: a vector `(batch, features)`, which stays as it
            is; a sequence `(batch, steps, features)`; a map or a volume in
            `data_format`.
        pool: `"auto"` and `"avg"` average over steps and positions, `"max"`
            takes their maximum, `"flatten"` keeps all of them side by side;
            None leaves every position as it is.
        data_format: where a map or volume has its channels.
        mask: boolean tensor `(batch, steps)`; the steps of a sequence that
            count. Defaults to `None`: all.

    Returns:
        Tensor of shape `pooled_shape(...)`.
    """
    rank = len(x.shape)
    if pool is None or rank == 2:
        return x
    if pool == "flatten":
        features = pooled_shape(tuple(x.shape), pool, data_format)[1]
        return keras.ops.reshape(x, (-1, features))
    axes = _pooled_axes(rank, data_format)
    if mask is not None and rank == 3:
        return _pool_masked(x, pool, mask)
    if pool == "max":
        return keras.ops.max(x, axis=axes)
    return keras.ops.mean(x, axis=axes)


def pooling_layers(
    shape: Shape, pool: str | None, data_format: str, name: str, dtype: Any
) -> list[keras.layers.Layer]:
    """The stock layer that does the same, if there is something to do."""
    rank = len(shape)
    if pool is None or rank == 2:
        return []
    if pool == "flatten":
        # "channels_first" would have it transpose first.
        kind, data_format = keras.layers.Flatten, "channels_last"
    else:
        kind = (_MAXIMA if pool == "max" else _MEANS)[rank]
        data_format = "channels_last" if rank == 3 else data_format
    layer = kind(data_format=data_format, name=f"{name}_pool", dtype=dtype)
    layer.build(shape)
    return [layer]


_MEANS = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}
_MAXIMA = {
    3: keras.layers.GlobalMaxPooling1D,
    4: keras.layers.GlobalMaxPooling2D,
    5: keras.layers.GlobalMaxPooling3D,
}


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
            "pool=None works on the last axis, which holds no channels in "
            "'channels_first'; permute the tap first or pool it"
        )
    return None


def channel_axis(rank: int, data_format: str | None) -> int:
    """Where a tensor of a rank, batch included, has its channels.

    A sequence is `(batch, steps, features)` in either format.
    """
    return 1 if data_format == "channels_first" and rank > 3 else rank - 1


def _pooled_axes(rank: int, data_format: str) -> tuple[int, ...]:
    channels = channel_axis(rank, data_format)
    return tuple(axis for axis in range(1, rank) if axis != channels)


def _pool_masked(x: Any, pool: str, mask: Any) -> Any:
    """Pools the unmasked steps; a sample without any gives zeros."""
    mask = keras.ops.expand_dims(keras.ops.cast(mask, "bool"), -1)
    if pool == "max":
        lowest = keras.ops.where(mask, x, float("-inf"))
        some = keras.ops.any(mask, axis=1)
        return keras.ops.where(some, keras.ops.max(lowest, axis=1), 0.0)
    # Not a product with the mask: what is masked out may be NaN.
    total = keras.ops.sum(keras.ops.where(mask, x, 0.0), axis=1)
    count = keras.ops.sum(keras.ops.cast(mask, x.dtype), axis=1)
    return keras.ops.divide(total, keras.ops.maximum(count, 1.0))
