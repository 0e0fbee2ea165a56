"""Gate: a factor a channel."""

from typing import Any

import keras

from keras_cascade.adapters import Adapter


@keras.saving.register_keras_serializable(package="keras_cascade")
class Gate(Adapter):
    """Multiplies features by a factor a channel, and keeps their mask.

    Keras's own layer that does so, `EinsumDense`, loses masks and says so.

    Args:
        axis: The axis of the channels, batch included. Defaults to `-1`.
        initializer: What the factors begin with. Defaults to `"zeros"`.
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
        """The constructor's arguments."""
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
        """The features, scaled."""
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        factors = keras.ops.reshape(self.kernel, shape)
        return keras.ops.multiply(inputs, factors)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def to_plain(self) -> list[keras.layers.Layer]:
        """An `EinsumDense`, which takes the factors as its kernel."""
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
