"""The base of adapters that resample positions and project channels."""

import math
from typing import Any, Self

import keras

from keras_cascade.adapters.adapter import Adapter
from keras_cascade.adapters.pooling import Shape, channel_axis
from keras_cascade.adapters.resampling import (
    INTERPOLATIONS,
    Resampling,
    resizing_model,
)
from keras_cascade.graph.data_formats import FORMATS

Layers = list[keras.layers.Layer]


class ProjectingAdapter(Adapter):
    """An adapter that resamples, projects each position, and activates.

    Args:
        channels: int, `"auto"` or None.
        interpolation, antialias: of the resampling, as in `Resampling`.
        activation, use_bias, kernel_initializer, bias_initializer,
        kernel_regularizer, bias_regularizer, activity_regularizer: of the
            projection, as in `keras.layers.Dense`.
        data_format: `"channels_last"`, `"channels_first"`, or None for
            `keras.config.image_data_format()`.
        trainable, dtype, name: as in `Adapter`.
    """

    def __init__(
        self,
        *,
        channels: int | str | None,
        interpolation: str,
        antialias: bool,
        activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        activity_regularizer: Any,
        data_format: str | None,
        trainable: bool,
        dtype: Any,
        name: str | None,
    ):
        super().__init__(
            trainable=trainable,
            dtype=dtype,
            activity_regularizer=activity_regularizer,
            name=name,
        )
        self.channels = self._checked_channels(channels)
        self.interpolation = self._one_of(
            "interpolation", interpolation, INTERPOLATIONS
        )
        self.antialias = bool(antialias)
        self.data_format = self._one_of(
            "data_format",
            data_format or keras.config.image_data_format(),
            FORMATS,
        )
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel: Any = None
        self.bias: Any = None
        self.supports_masking = True
        self._projects_first = False

    @property
    def open_width(self) -> bool:
        """Whether `channels` is left to the builder."""
        return self.channels == "auto"

    def with_units(self, width: int) -> Self:
        """A copy with `channels=width`, where `channels` is `"auto"`."""
        if not self.open_width:
            raise ValueError(
                f"Adapter '{self.name}' has channels={self.channels!r}, it "
                f"cannot be given {width}. {type(self).__name__}(channels="
                "'auto') leaves its width open."
            )
        return type(self).from_config({**self.get_config(), "channels": width})

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "interpolation": self.interpolation,
            "antialias": self.antialias,
            "data_format": self.data_format,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self._part_configs(),
        }

    def _resampling(self, axis: int, size: int | None) -> Resampling:
        return Resampling(axis, size, self.interpolation, self.antialias)

    def _build_stages(self, shape: Shape, steps: list[Resampling]) -> None:
        """Adds the projection's weights, and settles what comes first.

        Weights of a resampling add up to one, so it commutes with a
        projection and its bias. What makes more positions of them comes
        last: a wide map is not blown up to be narrowed afterwards.
        """
        counts = [shape[step.axis] for step in steps]
        sizes = [step.sized(shape)[step.axis] for step in steps]
        known = [n for n in (*counts, *sizes) if n is not None]
        self._projects_first = len(known) < 2 * len(steps) or (
            math.prod(known[len(steps) :]) > math.prod(known[: len(steps)])
        )
        if self.channels is not None:
            axis = channel_axis(len(shape), self.data_format)
            self._add_projection(shape[axis], self._settled_channels())

    def _add_projection(self, features: int | None, width: int) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, width),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(width,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def _run_stages(
        self, x: Any, steps: list[Resampling], mask: Any = None
    ) -> Any:
        if self._projects_first:
            x = self._project(x)
        for step in steps:
            x = step(x) if mask is None else step.masked(x, mask)
        if not self._projects_first:
            x = self._project(x)
        return self.activation(x)

    def _project(self, x: Any) -> Any:
        if self.kernel is None:
            return x
        rank = len(x.shape)
        last = channel_axis(rank, self.data_format) == rank - 1
        # No convolution: TensorFlow's CPU has none for channels that come
        # first.
        x = x if last else keras.ops.moveaxis(x, 1, -1)
        x = keras.ops.matmul(x, self.kernel)
        if self.bias is not None:
            x = keras.ops.add(x, self.bias)
        return x if last else keras.ops.moveaxis(x, -1, 1)

    def _staged_shape(self, shape: Shape, steps: list[Resampling]) -> Shape:
        for step in steps:
            shape = step.sized(shape)
        if self.channels is None:
            return shape
        axis = channel_axis(len(shape), self.data_format)
        return (*shape[:axis], self._settled_channels(), *shape[axis + 1 :])

    def _plain_stages(self, shape: Shape, steps: list[Resampling]) -> Layers:
        """Stock layers for `_run_stages` on an input of `shape`."""
        layers = []
        if self._projects_first:
            layers += self._plain_projection(shape)
            shape = self._staged_shape(shape, [])
        layers += self._plain_resampling(shape, steps)
        if not self._projects_first:
            layers += self._plain_projection(self._resampled(shape, steps))
        return [*layers, *self._plain_activation()]

    def _resampled(self, shape: Shape, steps: list[Resampling]) -> Shape:
        for step in steps:
            shape = step.sized(shape)
        return shape

    def _plain_resampling(
        self, shape: Shape, steps: list[Resampling]
    ) -> Layers:
        due = [s for s in steps if s.size not in (None, shape[s.axis])]
        if any(shape[step.axis] is None for step in due):
            name = f"{self.name}_resize"
            return [resizing_model(shape, steps, self.data_format, name)]
        layers = []
        for step in due:
            name = f"{self.name}_resize_{step.axis}"
            layers.append(step.layer(shape, name, self.dtype_policy))
            shape = step.sized(shape)
        return layers

    def _plain_projection(self, shape: Shape) -> Layers:
        if self.kernel is None:
            return []
        arguments: Any = {
            "trainable": self.trainable,
            "dtype": self.dtype_policy,
            "name": self.name,
            **self._part_configs(),
        }
        rank, width = len(shape), self.kernel.shape[1]
        if channel_axis(rank, self.data_format) == rank - 1:
            layer: Any = keras.layers.Dense(
                width, use_bias=self.use_bias, **arguments
            )
        else:
            layer = keras.layers.EinsumDense(
                "abcd,bz->azcd",
                (width, *shape[2:]),
                bias_axes="z" if self.use_bias else None,
                **arguments,
            )
        return [self._filled(layer, shape)]

    def _filled(self, layer: Any, shape: Shape) -> keras.layers.Layer:
        layer.build(shape)
        values = (
            [self.kernel] if self.bias is None else [self.kernel, self.bias]
        )
        values = [keras.ops.convert_to_numpy(value) for value in values]
        layer.set_weights(
            [
                value.reshape(weight.shape)
                for value, weight in zip(values, layer.weights, strict=True)
            ]
        )
        return layer

    def _plain_activation(self) -> Layers:
        linear = self.activation is keras.activations.linear
        if linear and self.activity_regularizer is None:
            return []
        layer = keras.layers.Activation(
            self.activation,
            activity_regularizer=self.activity_regularizer,
            dtype=self.dtype_policy,
            name=f"{self.name}_activation",
        )
        return [layer]

    def _built_shape(self) -> Shape:
        """The input shape that this is built for, for `to_plain`."""
        config = self.get_build_config()
        if config is None:
            raise ValueError(
                f"Adapter '{self.name}' is not built, and so has no weights "
                "to hand on. Call it on features, or `build(shape)`, first."
            )
        return tuple(config["input_shape"])

    def _part_configs(self) -> dict[str, Any]:
        """What initialises and regularises the weights."""
        kinds = (
            ("initializer", keras.initializers),
            ("regularizer", keras.regularizers),
        )
        return {
            f"{weight}_{kind}": module.serialize(
                getattr(self, f"{weight}_{kind}")
            )
            for weight in ("kernel", "bias")
            for kind, module in kinds
        }

    def _settled_channels(self) -> int:
        if isinstance(self.channels, int):
            return self.channels
        raise ValueError(
            f"The width of adapter '{self.name}' is open. A cascade settles "
            "it from the downstream's input; elsewhere give it one: "
            f"{type(self).__name__}(channels=64), or `adapter.with_units(64)`."
        )

    def _checked_channels(self, channels: Any) -> int | str | None:
        if channels is None or channels == "auto":
            return channels
        return self._positive("channels", channels, "a positive int, 'auto' ")

    def _positive(self, what: str, value: Any, kinds: str) -> int:
        if (
            isinstance(value, bool)
            or not hasattr(value, "__index__")
            or value < 1
        ):
            raise ValueError(
                f"Adapter '{self.name}': `{what}` is {kinds}or None, received "
                f"{value!r}."
            )
        return int(value)

    def _pair(self, what: str, value: Any) -> tuple:
        pair = value if isinstance(value, (tuple, list)) else (value, value)
        if len(pair) != 2:
            raise ValueError(
                f"Adapter '{self.name}': `{what}` is (height, width), "
                f"received {value!r}."
            )
        kinds = "a positive int, for height and width, "
        return tuple(
            None if n is None else self._positive(what, n, kinds) for n in pair
        )

    def _one_of(self, what: str, value: Any, allowed: tuple) -> Any:
        if value not in allowed:
            raise ValueError(
                f"Adapter '{self.name}': `{what}` is one of {allowed}, "
                f"received {value!r}."
            )
        return value

    def _refuse(self, shape: Shape, problem: str) -> ValueError:
        return ValueError(
            f"Adapter '{self.name}' ({type(self).__name__}) received an input "
            f"of shape {shape}: {problem}."
        )
