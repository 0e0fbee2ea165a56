"""TokenAdapter: sequences to vectors, maps and sequences, and maps to them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_cascade._keras_compat.annotations import (
    Activation,
    DType,
    Initializer,
    Regularizer,
    Shape,
    Tensor,
)
from keras_cascade.adapters.arrangements import (
    Arrangement,
    class_token,
    grid_of_tokens,
    mean_of_tokens,
    positions,
    reshape,
    steps,
)
from keras_cascade.adapters.plain import Layers
from keras_cascade.adapters.pooling import channel_axis
from keras_cascade.adapters.resampling import Resampling
from keras_cascade.adapters.resizing import ResizingAdapter

FORMS = ("vector", "map", "sequence")


@keras.saving.register_keras_serializable(package="keras_cascade")
class TokenAdapter(ResizingAdapter):
    """Makes vectors, maps or sequences of sequences, and sequences of maps.

    The adapter between transformers or recurrent networks and other networks.
    The argument `to` chooses the result:

    - `"vector"`: the class token if there is one, else the mean of the steps
      that are not masked; then a projection.
    - `"map"`: the tokens without the class token, laid out on their grid row
      by row, resized to `size` as by `SpatialAdapter`, and projected.
    - `"sequence"`: a map's positions, row by row, or the tokens, resampled
      along time to `size` steps (antialiased if they get fewer) and
      projected. A vector becomes a sequence by a dense layer, if `size` and
      `channels` are given.

    Under a mask, a step of a resampled sequence averages the steps that are
    not masked; it is masked if there are none. Steps keep their place in
    time, so a padded sequence stays padded. A vector or map has no mask;
    masked tokens of a grid are zero.

    Args:
        to: `"vector"`, `"map"` or `"sequence"`.
        size: steps of the output as int for a sequence; (height, width), or
            an int for both, for a map; None keeps the size. Defaults to
            `None`.
        channels: int, number of output features; `"auto"` leaves it to the
            builder; None leaves out the projection. Defaults to `None`.
        class_token: bool, whether the first token is a class token; or
            `"auto"`: for a vector or map, if the number of tokens is no
            square and one less is; for a sequence, no. Defaults to `"auto"`.
        grid: (height, width) of the tokens, for a map; None is a square.
            Defaults to `None`.
        interpolation: `"bilinear"` or `"nearest"`. Defaults to
            `"bilinear"`.
        antialias: bool, whether every position counts if the output has
            fewer. Defaults to `True`.

    The other arguments are as in `DenseAdapter`.

    Raises:
        ValueError: an argument is out of range, or does not fit the input's
            shape.

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
        size: int | Sequence[int | None] | None = None,
        channels: int | str | None = None,
        class_token: bool | str = "auto",
        grid: int | Sequence[int] | None = None,
        activation: Activation = None,
        interpolation: str = "bilinear",
        antialias: bool = True,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        activity_regularizer: Regularizer = None,
        data_format: str | None = None,
        trainable: bool = True,
        dtype: DType = None,
        name: str | None = None,
    ):
        super().__init__(locals())
        self.to = self._one_of("to", to, FORMS)
        self.size = self._checked_size(size)
        self.class_token = self._one_of(
            "class_token", class_token, ("auto", True, False)
        )
        self.grid = self._checked_grid(grid)
        # Whether inputs have masks is known by calls alone; `to_plain` asks.
        self._met_mask = False

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "to": self.to,
            "size": self.size,
            "class_token": self.class_token,
            "grid": self.grid,
        }

    def build(self, input_shape: Shape) -> None:
        """Adds the projection's weights, for the input's features."""
        super().build(input_shape)
        shape = tuple(input_shape)
        self._check_shape(shape)
        if len(shape) == 2:
            _, steps, channels = self._spread_shape(shape)
            self._add_projection(shape[1], steps * channels)
        else:
            arranged = self._arrangement(shape).shape
            self._build_stages(arranged, self._steps())
        self._fix_sizes(shape)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Any:
        """Arranges, resamples and projects."""
        x: Any = ops.cast(inputs, self.compute_dtype)
        # Symbolic inputs may know fewer sizes than the layer was built for.
        shape = self._built_shape()
        if len(shape) == 2:
            spread = self._spread_shape(shape)[1:]
            return self.activation(reshape(self._project(x), spread))
        # Keras passes a mask of whatever rank to a layer that takes one.
        mask = mask if len(shape) == 3 else None
        self._met_mask = self._met_mask or mask is not None
        arrangement = self._arrangement(shape)
        x = arrangement.run(x, mask, reshape)
        steps_mask = arrangement.mask(mask) if self.to == "sequence" else None
        return self._run_stages(x, self._steps(), steps_mask)

    def compute_mask(
        self, inputs: Tensor, previous_mask: Tensor | None = None
    ) -> Any:
        """Returns the mask of a sequence; vectors and maps have none."""
        if previous_mask is None or self.to != "sequence":
            return None
        self._met_mask = True
        arrangement = self._arrangement(self._built_shape())
        return self._steps()[0].mask(arrangement.mask(previous_mask))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the vector, map or sequence."""
        shape = tuple(input_shape)
        self._check_shape(shape)
        if len(shape) == 2:
            return self._spread_shape(shape)
        arranged = self._arrangement(shape).shape
        return self._staged_shape(arranged, self._steps())

    def to_plain(self) -> Layers:
        """Returns stock layers, with a small model that arranges tokens.

        Raises:
            NotImplementedError: it has resampled a sequence under a mask,
                for which there are no stock layers.
        """
        shape = self._built_shape()
        if len(shape) == 2:
            return self._plain_spread(shape)
        arrangement = self._arrangement(shape)
        if self._met_mask:
            self._check_plain_mask(arrangement)
        return [
            *arrangement.plain(self.name, self.dtype_policy),
            *self._plain_stages(arrangement.shape, self._steps()),
        ]

    def _steps(self) -> list[Resampling]:
        if self.to == "sequence":
            return [self._resampling(1, self.size)]
        return self._map_steps(self.size) if self.to == "map" else []

    def _check_shape(self, shape: Shape) -> None:
        ranks, takes = {
            "vector": ({3}, "DenseAdapter takes vectors and maps to vectors"),
            "map": ({3}, "SpatialAdapter takes vectors and maps to maps"),
            "sequence": (
                {2, 3, 4},
                "it takes vectors, sequences and maps to sequences",
            ),
        }[self.to]
        if len(shape) not in ranks:
            raise self._refuse(shape, f"to={self.to!r}: {takes}")
        if shape[channel_axis(len(shape), self.data_format)] is None:
            raise self._refuse(shape, "the number of features is not known")
        if len(shape) == 2 and (self.size is None or self.channels is None):
            raise self._refuse(
                shape,
                "a sequence is made of a vector where `size` and `channels` "
                f"are given, and they are {self.size} and {self.channels!r}",
            )

    def _arrangement(self, shape: Shape) -> Arrangement:
        """Returns the arrangement of a sequence or map of a shape."""
        channels_first = self.data_format == "channels_first"
        if len(shape) == 4:
            return positions(shape, channels_first)
        has_class_token = self._has_class_token(shape)
        if self.to == "sequence":
            return steps(shape, has_class_token)
        if self.to == "vector":
            return (class_token if has_class_token else mean_of_tokens)(shape)
        grid = self.grid or self._square_for(shape, has_class_token)
        return grid_of_tokens(shape, has_class_token, grid, channels_first)

    def _square_for(
        self, shape: Shape, has_class_token: bool
    ) -> tuple[int, int]:
        if shape[1] is None:
            raise self._refuse(
                shape, "the number of steps is not known, give `grid`"
            )
        count = shape[1] - has_class_token
        if not _is_square(count):
            raise self._refuse(
                shape,
                f"{count} tokens fill no square grid, give `grid=(height, "
                "width)`, and `class_token` where there is one",
            )
        return (math.isqrt(count), math.isqrt(count))

    def _has_class_token(self, shape: Shape) -> bool:
        """Whether the first of the steps of a sequence is a class token."""
        count = shape[1]
        if self.grid is not None and count is not None:
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

    def _fix_sizes(self, shape: Shape) -> None:
        """Refuses later inputs of sizes that the arrangement is not for."""
        axes = [channel_axis(len(shape), self.data_format)]
        decided = self.to == "map" or self.class_token == "auto"
        if self.to != "sequence" and decided and shape[1] is not None:
            axes.append(1)
        self.input_spec = keras.layers.InputSpec(
            ndim=len(shape), axes={axis: shape[axis] for axis in axes}
        )

    def _spread_shape(self, shape: Shape) -> tuple[int | None, int, int]:
        """Returns the shape of the sequence that a vector becomes."""
        return (shape[0], self.size, self._settled_width())

    def _plain_spread(self, shape: Shape) -> Layers:
        steps = keras.layers.Reshape(
            self._spread_shape(shape)[1:],
            dtype=self.dtype_policy,
            name=f"{self.name}_steps",
        )
        projection = self._plain_projection(shape)
        return [*projection, steps, *self._plain_activation()]

    def _check_plain_mask(self, arrangement: Arrangement) -> None:
        resampled = self.size not in (None, arrangement.shape[1])
        if self.to == "map" or (self.to == "sequence" and resampled):
            raise NotImplementedError(
                f"Adapter '{self.name}' gets masked sequences, and no stock "
                "layers resample or lay out a sequence under its mask. Take "
                "the mask off the tap, or keep the adapter: the cascade "
                "itself saves and loads with `keras_cascade` imported."
            )

    def _checked_size(self, size: object) -> Any:
        if self.to == "map":
            return self._pair("size", size)
        if size is None:
            return None
        if self.to == "sequence":
            return self._positive("size", size, "a positive number of steps")
        raise ValueError(
            f"Adapter '{self.name}': a vector has no `size`, received "
            f"{size!r}; `channels` is its width."
        )

    def _checked_grid(self, grid: object) -> Any:
        if grid is None or self.to == "map":
            return None if grid is None else self._pair("grid", grid)
        raise ValueError(
            f"Adapter '{self.name}': `grid` is for to='map', received "
            f"{grid!r} with to={self.to!r}."
        )


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count
