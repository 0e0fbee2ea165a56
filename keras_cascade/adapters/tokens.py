"""TokenAdapter: sequences to vectors, maps and sequences, and maps to them."""

import math
from typing import Any

import keras

from keras_cascade.adapters.pooling import (
    Shape,
    pool_features,
    pooling_layers,
)
from keras_cascade.adapters.projecting import Layers, ProjectingAdapter
from keras_cascade.adapters.resampling import Resampling

FORMS = ("vector", "map", "sequence")

ops = keras.ops


@keras.saving.register_keras_serializable(package="keras_cascade")
class TokenAdapter(ProjectingAdapter):
    """Makes vectors, maps or sequences of sequences, and sequences of maps.

    The adapter between transformers or recurrent networks and everything
    else. What it does depends on `to`:

    - `"vector"`: the class token if there is one, else the mean of the steps
      that are not masked; then a projection.
    - `"map"`: the class token, if there is one, is left out; the other tokens
      are laid out on their grid, row by row, resized to `size` as by
      `SpatialAdapter`, and projected.
    - `"sequence"`: a map's positions, row by row, or the tokens, resampled
      along time to `size` steps (antialiased where they get fewer) and
      projected. A vector becomes one by a dense layer, where `size` and
      `channels` are given.

    Under a mask, a step of a resampled sequence is made of the steps that
    count, their weights scaled to add up to one, and it counts itself where
    there are any. Steps keep their place in time: a padded sequence remains
    a padded sequence, with a mask. A vector or map has no mask; masked
    tokens of a grid are zero.

    Args:
        to: `"vector"`, `"map"` or `"sequence"`.
        size: steps of the output as int for a sequence; (height, width), or
            an int for both, for a map; None keeps what there is. Defaults to
            `None`.
        channels: int, number of output features; `"auto"` leaves it to the
            builder; None leaves out the projection. Defaults to `None`.
        class_token: bool, whether the first token is one: a vector is made
            of it, maps and sequences leave it out. `"auto"`, for vectors and
            maps: if the number of tokens is no square and one less is; for
            sequences: no. Defaults to `"auto"`.
        grid: (height, width) of the tokens, for a map; None is the square
            that they fill. Defaults to `None`.
        activation: activation function or its name. Defaults to `None`.
        interpolation: `"bilinear"` or `"nearest"`. Defaults to
            `"bilinear"`.
        antialias: bool, whether every position counts where there get fewer.
            Defaults to `True`.
        use_bias: bool, whether the projection adds a bias. Defaults to
            `True`.
        kernel_initializer: initializer of the kernel. Defaults to
            `"glorot_uniform"`.
        bias_initializer: initializer of the bias. Defaults to `"zeros"`.
        kernel_regularizer: regularizer of the kernel. Defaults to `None`.
        bias_regularizer: regularizer of the bias. Defaults to `None`.
        activity_regularizer: regularizer of the output. Defaults to `None`.
        data_format: `"channels_last"` or `"channels_first"`, of maps; a
            sequence is `(batch, steps, features)` in either. Defaults to
            `None`, `keras.config.image_data_format()`.
        trainable: bool, whether training moves the weights. Defaults to
            `True`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: str, name of the layer. Defaults to `None`.

    Raises:
        ValueError: an argument is out of range, or the input's shape does
            not go with it.

    Example:
    >>> import numpy as np
    >>> tokens = np.ones((2, 17, 8), "float32")
    >>> tuple(TokenAdapter("map", channels=3)(tokens).shape)
    (2, 4, 4, 3)
    >>> tuple(TokenAdapter("sequence", size=6)(tokens).shape)
    (2, 6, 8)
    """

    def __init__(
        self,
        to: str,
        size: Any = None,
        channels: int | str | None = None,
        class_token: bool | str = "auto",
        grid: Any = None,
        activation: Any = None,
        interpolation: str = "bilinear",
        antialias: bool = True,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        data_format: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
    ):
        super().__init__(
            channels=channels,
            interpolation=interpolation,
            antialias=antialias,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            data_format=data_format,
            trainable=trainable,
            dtype=dtype,
            name=name,
        )
        self.to = self._one_of("to", to, FORMS)
        self.size = self._checked_size(size)
        self.class_token = self._one_of(
            "class_token", class_token, ("auto", True, False)
        )
        self.grid = self._checked_grid(grid)
        self._met_mask = False

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "to": self.to,
            "size": self.size,
            "class_token": self.class_token,
            "grid": self.grid,
        }

    def build(self, input_shape: Any) -> None:
        """Adds the projection's weights, for the input's features."""
        super().build(input_shape)
        shape = tuple(input_shape)
        arranged = self._arranged_shape(shape)
        self._fix_axes(shape)
        if len(shape) == 2:
            width = arranged[1] or 0
            self._add_projection(shape[1], width * self._settled_channels())
        else:
            self._build_stages(arranged, self._steps())

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Arranges, resamples and projects."""
        x: Any = ops.cast(inputs, self.compute_dtype)
        rank = len(x.shape)
        if rank == 2:
            return self.activation(self._spread(x))
        if rank == 4:
            return self._run_stages(self._flattened(x), self._steps())
        self._met_mask = self._met_mask or mask is not None
        if self.to == "vector":
            return self._run_stages(self._pooled(x, mask), [])
        x, mask = self._without_class_token(x), self._mask_of_tokens(mask)
        if self.to == "map":
            return self._run_stages(self._laid_out(x, mask), self._steps())
        return self._run_stages(x, self._steps(), mask)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """That of a sequence; vectors and maps have none."""
        if previous_mask is None or self.to != "sequence":
            return None
        self._met_mask = True
        mask = self._mask_of_tokens(previous_mask)
        return self._steps()[0].mask(mask)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The shape of the vector, map or sequence."""
        shape = tuple(input_shape)
        arranged = self._arranged_shape(shape)
        if len(shape) == 2:
            return arranged
        return self._staged_shape(arranged, self._steps())

    def to_plain(self) -> Layers:
        """Stock layers, with a small model for what picks and lays out.

        Raises:
            NotImplementedError: it has resampled a sequence under a mask,
                for which there are no stock layers.
        """
        shape = self._built_shape()
        arranged = self._arranged_shape(shape)
        if len(shape) == 2:
            return self._plain_spread(shape, arranged)
        if self._met_mask:
            self._check_plain_mask(arranged)
        layers = self._plain_arrangement(shape, arranged)
        return [*layers, *self._plain_stages(arranged, self._steps())]

    def _steps(self) -> list[Resampling]:
        if self.to == "vector":
            return []
        if self.to == "sequence":
            return [self._resampling(1, self.size)]
        first = 2 if self.data_format == "channels_first" else 1
        return [
            self._resampling(first + i, size)
            for i, size in enumerate(self.size)
        ]

    def _arranged_shape(self, shape: Shape) -> Shape:
        """The shape of what is resampled and projected."""
        self._check_rank(shape)
        if len(shape) == 2:
            return (shape[0], self.size, self._settled_channels())
        if len(shape) == 4:
            channels, positions = self._split_map(shape)
            known = [n for n in positions if n is not None]
            count = math.prod(known) if len(known) == 2 else None
            return (shape[0], count, channels)
        if self.to == "vector":
            return (shape[0], shape[2])
        if self.to == "map":
            grid = self._grid_of(shape)
            if self.data_format == "channels_first":
                return (shape[0], shape[2], *grid)
            return (shape[0], *grid, shape[2])
        steps = shape[1]
        if steps is not None and self._has_class_token(shape):
            steps -= 1
        return (shape[0], steps, shape[2])

    def _check_rank(self, shape: Shape) -> None:
        kinds = {"vector": (3,), "map": (3,), "sequence": (2, 3, 4)}
        other = {
            "vector": "DenseAdapter takes vectors and maps to vectors",
            "map": "SpatialAdapter takes vectors and maps to maps",
            "sequence": "it takes vectors, sequences and maps to sequences",
        }
        if len(shape) not in kinds[self.to]:
            raise self._refuse(shape, f"to={self.to!r}: {other[self.to]}")
        first = len(shape) == 4 and self.data_format == "channels_first"
        if shape[1 if first else -1] is None:
            raise self._refuse(shape, "the number of features is not known")
        if len(shape) == 2 and (self.size is None or self.channels is None):
            raise self._refuse(
                shape,
                "a sequence is made of a vector where `size` and `channels` "
                f"are given, and they are {self.size} and {self.channels!r}",
            )

    def _split_map(self, shape: Shape) -> tuple[int | None, Shape]:
        if self.data_format == "channels_first":
            return shape[1], shape[2:]
        return shape[3], shape[1:3]

    def _grid_of(self, shape: Shape) -> tuple[int, int]:
        if self.grid is not None:
            self._has_class_token(shape)
            return self.grid
        if shape[1] is None:
            raise self._refuse(
                shape, "the number of steps is not known, give `grid`"
            )
        count = shape[1] - self._has_class_token(shape)
        side = math.isqrt(count)
        if side * side != count or count < 1:
            raise self._refuse(
                shape,
                f"{count} tokens fill no square grid, give `grid=(height, "
                "width)`, and `class_token` where there is one",
            )
        return (side, side)

    def _has_class_token(self, shape: Shape) -> bool:
        """Whether the first of the steps of a sequence is a class token."""
        count = shape[1]
        if self.to == "map" and self.grid is not None and count is not None:
            return self._exceeds_grid(shape, count)
        if self.class_token != "auto":
            return bool(self.class_token)
        if self.to == "sequence" or count is None:
            return False
        return not _is_square(count) and _is_square(count - 1)

    def _exceeds_grid(self, shape: Shape, count: int) -> bool:
        extra = count - math.prod(self.grid or ())
        allowed = {"auto": (0, 1), True: (1,), False: (0,)}[self.class_token]
        if extra not in allowed:
            raise self._refuse(
                shape,
                f"{count} tokens are not those of grid={self.grid} with "
                f"class_token={self.class_token!r}",
            )
        return bool(extra)

    def _fix_axes(self, shape: Shape) -> None:
        """Later inputs have what the decisions here depend on."""
        first = len(shape) == 4 and self.data_format == "channels_first"
        axis = 1 if first else len(shape) - 1
        axes = {axis: shape[axis]}
        decided = self.to == "map" or self.class_token == "auto"
        if len(shape) == 3 and self.to != "sequence" and decided:
            axes[1] = shape[1]
        axes = {axis: size for axis, size in axes.items() if size is not None}
        self.input_spec = keras.layers.InputSpec(ndim=len(shape), axes=axes)

    def _first_is_class_token(self) -> bool:
        return self._has_class_token(self._built_shape())

    def _spread(self, x: Any) -> Any:
        x = self._project(x)
        return ops.reshape(x, (-1, self.size, self._settled_channels()))

    def _flattened(self, x: Any) -> Any:
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 2, 3, 1))
        # The positions may not be known; the channels are.
        batch: Any = ops.shape(x)
        batch = batch[0]
        count, channels = self._arranged_shape(self._built_shape())[1:]
        return ops.reshape(x, (batch, -1 if count is None else count, channels))

    def _pooled(self, x: Any, mask: Any) -> Any:
        if self._first_is_class_token():
            return x[:, 0]
        return pool_features(x, "avg", self.data_format, mask)

    def _without_class_token(self, x: Any) -> Any:
        return x[:, 1:] if self._first_is_class_token() else x

    def _mask_of_tokens(self, mask: Any) -> Any:
        if mask is None or not self._first_is_class_token():
            return mask
        return mask[:, 1:]

    def _laid_out(self, x: Any, mask: Any = None) -> Any:
        if mask is not None:
            kept = ops.expand_dims(ops.cast(mask, "bool"), -1)
            x = ops.where(kept, x, ops.zeros_like(x))
        grid = self._grid_of(self._built_shape())
        x = ops.reshape(x, (-1, *grid, x.shape[-1]))
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 3, 1, 2))
        return x

    def _check_plain_mask(self, arranged: Shape) -> None:
        changed = self.size is not None and self.size != arranged[1]
        if self.to == "map" or (self.to == "sequence" and changed):
            raise NotImplementedError(
                f"Adapter '{self.name}' gets masked sequences, and no stock "
                "layers resample or lay out a sequence under its mask. Take "
                "the mask off the tap, or keep the adapter: the cascade "
                "itself saves and loads with `keras_cascade` imported."
            )

    def _plain_arrangement(self, shape: Shape, arranged: Shape) -> Layers:
        """What stands for everything before the resampling."""
        token = len(shape) == 3 and self._first_is_class_token()
        if self.to == "vector" and not token:
            return pooling_layers(
                shape, "avg", self.data_format, self.name, self.dtype_policy
            )
        if len(shape) == 3 and self.to == "sequence" and not token:
            return []
        # A model of operations: layers that slice know no masks, and need
        # the number of steps.
        inputs: Any = keras.Input(shape[1:])
        if len(shape) == 4:
            x = self._plain_flattened(inputs, arranged)
        elif self.to == "vector":
            x = inputs[:, 0]
        else:
            x = inputs[:, 1:] if token else inputs
            x = self._plain_laid_out(x, arranged) if self.to == "map" else x
        return [keras.Model(inputs, x, name=f"{self.name}_tokens")]

    def _plain_flattened(self, x: Any, arranged: Shape) -> Any:
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 2, 3, 1))
        count = -1 if arranged[1] is None else arranged[1]
        return keras.layers.Reshape((count, arranged[2]))(x)

    def _plain_laid_out(self, x: Any, arranged: Shape) -> Any:
        if self.data_format != "channels_first":
            return keras.layers.Reshape(arranged[1:])(x)
        x = keras.layers.Reshape((*arranged[2:], arranged[1]))(x)
        return ops.transpose(x, (0, 3, 1, 2))

    def _plain_spread(self, shape: Shape, arranged: Shape) -> Layers:
        reshape = keras.layers.Reshape(
            arranged[1:], dtype=self.dtype_policy, name=f"{self.name}_steps"
        )
        projection = self._plain_projection(shape)
        return [*projection, reshape, *self._plain_activation()]

    def _checked_size(self, size: Any) -> Any:
        if self.to == "map":
            return self._pair("size", size)
        if self.to == "vector" and size is not None:
            raise ValueError(
                f"Adapter '{self.name}': a vector has no `size`, received "
                f"{size!r}; `channels` is its width."
            )
        if size is None:
            return None
        return self._positive("size", size, "a positive number of steps ")

    def _checked_grid(self, grid: Any) -> tuple[int, int] | None:
        if grid is None:
            return None
        if self.to != "map":
            raise ValueError(
                f"Adapter '{self.name}': `grid` is for to='map', received "
                f"{grid!r} with to={self.to!r}."
            )
        height, width = self._pair("grid", grid)
        return (height, width)


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count
