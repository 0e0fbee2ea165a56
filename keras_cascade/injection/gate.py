"""Scales features by a factor for each channel."""

from typing import Any

import keras

from keras_cascade.adapters import Adapter


@keras.saving.register_keras_serializable(package="keras_cascade")
class Gate(Adapter):
    """Multiplies features by a factor for each channel, and keeps their mask.

    Keras's own layer for it, `EinsumDense`, loses masks, with a warning.

    Args:
        axis: The axis of the channels, batch included. Defaults to `-1`.
        initializer: The initializer of the factors. Defaults to `"zeros"`.
        trainable: Whether training moves them. Defaults to `True`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: The name of the layer. Defaults to `None`.
    """

    def __init__(
        self,
        axis: int = -1,
        initializer: Any = "zeros",
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
    ):
        super().__init__(trainable=trainable, dtype=dtype, name=name)
        self.axis = axis
        self.initializer = keras.initializers.get(initializer)
        self.supports_masking = True
        self.kernel: Any = None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = super().get_config()
        for name in ("autocast", "activity_regularizer"):
            config.pop(name, None)
        serialized = keras.initializers.serialize(self.initializer)
        return {**config, "axis": self.axis, "initializer": serialized}

    def build(self, input_shape: Any) -> None:
        """Adds a factor for each channel."""
        super().build(input_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[self.axis],),
            initializer=self.initializer,
        )

    def call(self, inputs: Any) -> Any:
        """Returns the scaled features."""
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        factors = keras.ops.reshape(self.kernel, shape)
        return keras.ops.multiply(inputs, factors)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def to_plain(self) -> list[keras.layers.Layer]:
        """Returns an `EinsumDense` with the factors as its kernel."""
        config: Any = self.get_build_config()
        shape = config["input_shape"]
        letters = "abcdefg"[: len(shape)]
        plain = keras.layers.EinsumDense(
            f"{letters},{letters[self.axis]}->{letters}",
            output_shape=tuple(shape[1:]),
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=self.name,
        )
        plain.build(shape)
        plain.set_weights(self.get_weights())
        return [plain]
