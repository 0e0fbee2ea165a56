"""DenseAdapter: a learned projection of pooled features."""

from typing import Any

import keras

from keras_cascade.adapters.pooling import (
    PooledAdapter,
    Shape,
    pool_features,
    pooling_layers,
)


@keras.saving.register_keras_serializable(package="keras_cascade")
class DenseAdapter(PooledAdapter):
    """Pools a tap to a vector and projects it to `units` features.

    The adapter for features whose width must change and that training is to
    shape. Without `units` its width is open: the builder gives it what is
    left of the downstream's input.

    Args:
        units: int, number of output features; None leaves it to the builder.
            Defaults to `None`.
        activation: activation function or its name. Defaults to `None`.
        pool: how the input becomes a vector: `"auto"` (maps and volumes by
            their mean over positions, sequences by the mean of the steps
            that are not masked, vectors as they are), `"avg"`, `"max"`,
            `"flatten"`, or None for a projection at each position. Defaults
            to `"auto"`.
        use_bias: bool, whether a bias is added. Defaults to `True`.
        kernel_initializer: initializer of the kernel. Defaults to
            `"glorot_uniform"`.
        bias_initializer: initializer of the bias. Defaults to `"zeros"`.
        kernel_regularizer: regularizer of the kernel. Defaults to `None`.
        bias_regularizer: regularizer of the bias. Defaults to `None`.
        activity_regularizer: regularizer of the output. Defaults to `None`.
        kernel_constraint: constraint on the kernel. Defaults to `None`.
        bias_constraint: constraint on the bias. Defaults to `None`.
        data_format: `"channels_last"` or `"channels_first"`, for maps and
            volumes; a sequence is `(batch, steps, features)` in either.
            Defaults to `None`, `keras.config.image_data_format()`.
        trainable: bool, whether training moves the weights. Defaults to
            `True`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: str, name of the layer. Defaults to `None`.

    Raises:
        ValueError: an argument is out of range, or the input's shape does
            not go with `pool`.

    Example:
    >>> import numpy as np
    >>> adapter = DenseAdapter(8, activation="relu")
    >>> maps = np.ones((2, 7, 7, 16), "float32")
    >>> tuple(adapter(maps).shape)
    (2, 8)
    >>> DenseAdapter().open_width
    True
    """

    def __init__(
        self,
        units: int | None = None,
        activation: Any = None,
        pool: str | None = "auto",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        data_format: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
    ):
        super().__init__(
            pool=pool,
            data_format=data_format,
            trainable=trainable,
            dtype=dtype,
            activity_regularizer=activity_regularizer,
            name=name,
        )
        self.units = _checked_units(units, self.name)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.kernel: Any = None
        self.bias: Any = None

    @property
    def open_width(self) -> bool:
        """Whether `units` is left to the builder."""
        return self.units is None

    def with_units(self, width: int) -> "DenseAdapter":
        """A copy with `units=width`, where `units` is None."""
        if not self.open_width:
            raise ValueError(
                f"Adapter '{self.name}' has {self.units} units, it cannot be "
                f"given {width}. DenseAdapter(None) leaves its width open."
            )
        return type(self).from_config({**self.get_config(), "units": width})

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
            **self._part_configs(),
        }

    def build(self, input_shape: Any) -> None:
        """Adds kernel and bias, for the pooled width."""
        super().build(input_shape)
        features = self.pooled_width(input_shape)
        units = self._settled_units()
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Pools and projects."""
        x = keras.ops.cast(inputs, self.compute_dtype)
        x = pool_features(x, self.pool, self.data_format, mask)
        x = keras.ops.matmul(x, self.kernel)
        if self.use_bias:
            x = keras.ops.add(x, self.bias)
        return self.activation(x)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The pooled shape with `units` features."""
        return (*self.pooled_shape(input_shape)[:-1], self._settled_units())

    def to_plain(self) -> list[keras.layers.Layer]:
        """A pooling layer, where there is something to pool, and `Dense`."""
        shape = self._built_shape()
        dense = keras.layers.Dense(
            self.units,
            activation=self.activation,
            use_bias=self.use_bias,
            activity_regularizer=self.activity_regularizer,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=self.name,
            **self._part_configs(),
        )
        dense.build(self.pooled_shape(shape))
        dense.set_weights(self.get_weights())
        pooling = pooling_layers(
            shape, self.pool, self.data_format, self.name, self.dtype_policy
        )
        return [*pooling, dense]

    def _part_configs(self) -> dict[str, Any]:
        """What initialises, regularises and constrains the weights."""
        kinds = (
            ("initializer", keras.initializers),
            ("regularizer", keras.regularizers),
            ("constraint", keras.constraints),
        )
        return {
            f"{weight}_{kind}": module.serialize(
                getattr(self, f"{weight}_{kind}")
            )
            for weight in ("kernel", "bias")
            for kind, module in kinds
        }

    def _settled_units(self) -> int:
        if self.units is None:
            raise ValueError(
                f"The width of adapter '{self.name}' is open. A cascade "
                "settles it from the downstream's input; elsewhere give it "
                "one: DenseAdapter(64), or `adapter.with_units(64)`."
            )
        return self.units


def _checked_units(units: Any, name: str) -> int | None:
    if units is None:
        return None
    if isinstance(units, bool) or not hasattr(units, "__index__") or units < 1:
        raise ValueError(
            f"Adapter '{name}': `units` is a positive int or None, received "
            f"{units!r}."
        )
    return int(units)
