"""SpatialAdapter: maps of another size and another number of channels."""

import math
from typing import Any

import keras

from keras_cascade.adapters.pooling import Shape, channel_axis
from keras_cascade.adapters.projecting import Layers, ProjectingAdapter
from keras_cascade.adapters.resampling import Resampling

# How many numbers a vector gives each position at most, before a projection
# makes the channels of them. The weights grow with it times all positions.
SPREAD_CHANNELS = 8


@keras.saving.register_keras_serializable(package="keras_cascade")
class SpatialAdapter(ProjectingAdapter):
    """Resizes a map and projects the channels of each position.

    The adapter from maps to maps: the resize is antialiased, so that a map
    that gets smaller loses no position, and has gradients on every backend.
    The projection is a 1x1 convolution, written as a product, so that
    channels may come first on TensorFlow's CPU too. Resize and projection
    commute; the order is the one that costs less.

    It also makes a map of a vector, where `size` and `channels` are given: a
    dense layer to a few numbers for each position, of which the projection
    makes the channels.

    Args:
        size: int or pair (height, width) of the output; None, for either,
            keeps that of the input. Defaults to `None`.
        channels: int, number of output channels; `"auto"` leaves it to the
            builder; None leaves out the projection. Defaults to `None`.
        activation: activation function or its name. Defaults to `None`.
        interpolation: `"bilinear"` or `"nearest"`. Defaults to
            `"bilinear"`.
        antialias: bool, whether every position counts where the map gets
            smaller. Defaults to `True`.
        use_bias: bool, whether the projection adds a bias. Defaults to
            `True`.
        kernel_initializer: initializer of the kernels. Defaults to
            `"glorot_uniform"`.
        bias_initializer: initializer of the biases. Defaults to `"zeros"`.
        kernel_regularizer: regularizer of the kernels. Defaults to `None`.
        bias_regularizer: regularizer of the biases. Defaults to `None`.
        activity_regularizer: regularizer of the output. Defaults to `None`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `None`, `keras.config.image_data_format()`.
        trainable: bool, whether training moves the weights. Defaults to
            `True`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: str, name of the layer. Defaults to `None`.

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
        size: Any = None,
        channels: int | str | None = None,
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
        self.size = self._pair("size", size)
        self.spread_kernel: Any = None
        self.spread_bias: Any = None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "size": self.size}

    def build(self, input_shape: Any) -> None:
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
        self._build_stages(spread, self._steps())

    def call(self, inputs: Any) -> Any:
        """Resizes and projects."""
        x: Any = keras.ops.cast(inputs, self.compute_dtype)
        if self.spread_kernel is not None:
            shape = self._spread_shape(tuple(x.shape))
            x = keras.ops.matmul(x, self.spread_kernel)
            if self.spread_bias is not None:
                x = keras.ops.add(x, self.spread_bias)
            x = keras.ops.reshape(x, (-1, *shape[1:]))
        return self._run_stages(x, self._steps())

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """A map has no steps that are masked."""
        return

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The map's shape."""
        spread = self._spread_shape(tuple(input_shape))
        return self._staged_shape(spread, self._steps())

    def to_plain(self) -> Layers:
        """`EinsumDense` for each axis that is resized, and a projection.

        The resize is frozen. Where the input's size is not known, it is an
        operation, `ops.image.resize`.
        """
        shape = self._built_shape()
        spread = self._spread_shape(shape)
        layers = self._plain_spread(shape, spread) if len(shape) == 2 else []
        return [*layers, *self._plain_stages(spread, self._steps())]

    def _steps(self) -> list[Resampling]:
        first = 2 if self.data_format == "channels_first" else 1
        return [
            self._resampling(first + i, size)
            for i, size in enumerate(self.size)
        ]

    def _spread_shape(self, shape: Shape) -> Shape:
        """The shape of the map that is resized."""
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
        width = min(self._settled_channels(), SPREAD_CHANNELS)
        if self.data_format == "channels_first":
            return (shape[0], width, *self.size)
        return (shape[0], *self.size, width)

    def _add_spread(self, shape: Shape, spread: Shape) -> None:
        width = math.prod(size or 0 for size in spread[1:])
        self.spread_kernel = self.add_weight(
            name="spread_kernel",
            shape=(shape[1], width),
            initializer=self._own(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.spread_bias = self.add_weight(
                name="spread_bias",
                shape=(width,),
                initializer=self._own(self.bias_initializer),
                regularizer=self.bias_regularizer,
            )

    def _own(self, initializer: Any) -> Any:
        # One object gives the same numbers each time that it is called.
        if isinstance(initializer, keras.initializers.Initializer):
            return initializer.clone()
        return initializer

    def _plain_spread(self, shape: Shape, spread: Shape) -> Layers:
        dense: Any = keras.layers.Dense(
            self.spread_kernel.shape[1],
            use_bias=self.use_bias,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=f"{self.name}_spread",
            **self._part_configs(),
        )
        dense.build(shape)
        weights = [self.spread_kernel, self.spread_bias]
        dense.set_weights(
            [keras.ops.convert_to_numpy(w) for w in weights if w is not None]
        )
        name = f"{self.name}_positions"
        reshape = keras.layers.Reshape(
            spread[1:], dtype=self.dtype_policy, name=name
        )
        return [dense, reshape]
