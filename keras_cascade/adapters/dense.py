"""DenseAdapter: a learned projection of pooled features."""

from typing import Any

import keras

from keras_cascade._keras_compat.annotations import (
    Activation,
    Constraint,
    DType,
    Initializer,
    Regularizer,
    Shape,
    Tensor,
)
from keras_cascade.adapters.adapter import layer_arguments
from keras_cascade.adapters.plain import Layers
from keras_cascade.adapters.pooling import PooledAdapter
from keras_cascade.adapters.projection import ProjectedAdapter


@keras.saving.register_keras_serializable(package="keras_cascade")
class DenseAdapter(PooledAdapter, ProjectedAdapter):
    """Pools a tap to a vector and projects it to `units` features.

    The adapter for features of another width than the downstream's, with
    weights that training learns. Without `units` the width is open: the
    builder gives it what the other streams leave of the downstream's input.

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

    _width_argument = "units"
    _open_value = None

    def __init__(
        self,
        units: int | None = None,
        activation: Activation = None,
        pool: str | None = "auto",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        data_format: str | None = None,
        trainable: bool = True,
        dtype: DType = None,
        name: str | None = None,
    ):
        arguments = locals()
        super().__init__(pool, data_format, **layer_arguments(arguments))
        self._set_projection(arguments)
        if units is not None:
            units = self._positive("units", units, "a positive int")
        self.units = units

    def build(self, input_shape: Shape) -> None:
        """Adds kernel and bias, for the pooled width."""
        super().build(input_shape)
        width = self._settled_width()
        self._add_projection(self.pooled_width(input_shape), width)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Any:
        """Pools and projects."""
        x = keras.ops.cast(inputs, self.compute_dtype)
        return self.activation(self._project(self._pooled(x, mask)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the pooled shape with `units` features."""
        return (*self.pooled_shape(input_shape)[:-1], self._settled_width())

    def to_plain(self) -> Layers:
        """Returns a pooling layer, if one is needed, and `Dense`."""
        shape = self._built_shape()
        dense = self._plain_dense(
            self.pooled_shape(shape),
            self.name,
            [self.kernel, self.bias],
            activation=self.activation,
            activity_regularizer=self.activity_regularizer,
        )
        return [*self._plain_pooling(shape, self.dtype_policy), dense]
