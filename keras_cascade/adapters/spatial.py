"""SpatialAdapter: maps of another size and another number of channels."""

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
from keras_cascade.adapters.plain import Layers
from keras_cascade.adapters.pooling import channel_axis
from keras_cascade.adapters.resizing import ResizingAdapter

# The most numbers for each position that a vector is projected to at first.
# The dense layer's weights are as many times the positions.
SPREAD_CHANNELS = 8


@keras.saving.register_keras_serializable(package="keras_cascade")
class SpatialAdapter(ResizingAdapter):
    """Resizes a map and projects the channels of each position.

    The adapter from maps to maps: the resize is antialiased, so that a map
    that gets smaller loses no position, and has gradients on every backend.
    The projection is a 1x1 convolution, written as a product, so that
    channels may come first on TensorFlow's CPU too. Resize and projection
    commute; the order is the one that costs less.

    It also makes a map of a vector, if `size` and `channels` are given: by a
    dense layer to a few numbers for each position, which are then projected.

    Args:
        size: int or pair (height, width) of the output; None, for either,
            keeps that of the input. Defaults to `None`.
        channels: int, number of output channels; `"auto"` leaves it to the
            builder; None leaves out the projection. Defaults to `None`.
        interpolation: `"bilinear"` or `"nearest"`. Defaults to
            `"bilinear"`.
        antialias: bool, whether every position counts if the map gets
            smaller. Defaults to `True`.

    The other arguments are as in `DenseAdapter`.

    Raises:
        ValueError: an argument is out of range, or the input is no map.

    Example:
    >>> import numpy as np
    >>> adapter = SpatialAdapter((4, 6), channels=8)
    >>> maps = np.ones((2, 7, 7, 16), "float32")
    >>> tuple(adapter(maps).shape)
    (2, 4, 6, 8)
    """

    def __init__(
        self,
        size: int | Sequence[int | None] | None = None,
        channels: int | str | None = None,
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
        self.size = self._pair("size", size)
        self.spread_kernel: Any = None
        self.spread_bias: Any = None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size}

    def build(self, input_shape: Shape) -> None:
        """Adds the weights, for the input's channels."""
        super().build(input_shape)
        shape = tuple(input_shape)
        spread = self._spread_shape(shape)
        axis = channel_axis(len(shape), self.data_format)
        self.input_spec = keras.layers.InputSpec(
            ndim=len(shape), axes={axis: shape[axis]}
        )
        if len(shape) == 2:
            self._add_spread(shape, spread)
        self._build_stages(spread, self._map_steps(self.size))

    def call(self, inputs: Tensor) -> Any:
        """Resizes and projects."""
        x: Any = ops.cast(inputs, self.compute_dtype)
        if self.spread_kernel is not None:
            shape = self._spread_shape(tuple(x.shape))
            x = ops.matmul(x, self.spread_kernel)
            if self.spread_bias is not None:
                x = ops.add(x, self.spread_bias)
            x = ops.reshape(x, (-1, *shape[1:]))
        return self._run_stages(x, self._map_steps(self.size))

    def compute_mask(
        self, inputs: Tensor, previous_mask: Tensor | None = None
    ) -> None:
        """Returns None: a map has no steps to mask."""
        return

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the map's shape."""
        spread = self._spread_shape(tuple(input_shape))
        return self._staged_shape(spread, self._map_steps(self.size))

    def to_plain(self) -> Layers:
        """Returns `EinsumDense` for each resized axis, and a projection.

        The resize is frozen. Where the input's size is not known, it is an
        operation, `ops.image.resize`.
        """
        shape = self._built_shape()
        spread = self._spread_shape(shape)
        layers = self._plain_spread(shape, spread) if len(shape) == 2 else []
        return [
            *layers,
            *self._plain_stages(spread, self._map_steps(self.size)),
        ]

    def _spread_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the map that is resized."""
        if len(shape) == 2:
            return self._shape_for_vector(shape)
        if len(shape) != 4:
            raise self._refuse(shape, "it takes maps and vectors")
        if shape[channel_axis(4, self.data_format)] is None:
            raise self._refuse(shape, "the number of channels is not known")
        return shape

    def _shape_for_vector(self, shape: Shape) -> Shape:
        if None in self.size or self.channels is None or shape[1] is None:
            raise self._refuse(
                shape,
                "a map is made of a vector of known width where height, "
                f"width and `channels` are given, and they are {self.size} "
                f"and {self.channels!r}",
            )
        width = min(self._settled_width(), SPREAD_CHANNELS)
        if self.data_format == "channels_first":
            return (shape[0], width, *self.size)
        return (shape[0], *self.size, width)

    def _add_spread(self, shape: Shape, spread: Shape) -> None:
        width = math.prod(size or 0 for size in spread[1:])
        self.spread_kernel = self._add_spread_weight(
            "kernel", (shape[1], width)
        )
        if self.use_bias:
            self.spread_bias = self._add_spread_weight("bias", (width,))

    def _add_spread_weight(self, like: str, shape: Shape) -> Any:
        initializer = getattr(self, f"{like}_initializer")
        # One initializer gives the same numbers each time that it is called,
        # and the projection's own weights are still to come.
        if isinstance(initializer, keras.initializers.Initializer):
            initializer = initializer.clone()
        name = f"spread_{like}"
        return self._add_like(like, name, shape, initializer=initializer)

    def _plain_spread(self, shape: Shape, spread: Shape) -> Layers:
        weights = [self.spread_kernel, self.spread_bias]
        reshape = keras.layers.Reshape(
            spread[1:], dtype=self.dtype_policy, name=f"{self.name}_positions"
        )
        return [
            self._plain_dense(shape, f"{self.name}_spread", weights),
            reshape,
        ]
