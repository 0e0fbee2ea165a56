"""What Keras does to a tensor that enters a nested network."""

from typing import Any

import keras

from keras_cascade import _keras_compat as compat


@keras.saving.register_keras_serializable(package="keras_cascade")
class AsInput(keras.Operation):
    """Makes a tensor what the input of a network is declared as.

    Keras does so in each call of a network: other dtypes are cast, and where a
    rank is one off, a last axis of size 1 is added or dropped. No call of an
    operation tells of it, so a graph without its nesting needs one.

    Args:
        dtype: Of the input.
        rank: Of the input, batch included; None where it is the tensor's.
        name: The operation's name.
    """

    def __init__(
        self, dtype: str, rank: int | None = None, *, name: str | None = None
    ):
        super().__init__(name=name)
        self.dtype = dtype
        self.rank = rank

    def call(self, x: Any) -> Any:
        """Gives the tensor as the input takes it, its mask on it."""
        y: Any = keras.ops.cast(x, self.dtype)
        rank = self.rank or len(y.shape)
        if len(y.shape) < rank:
            y = keras.ops.expand_dims(y, -1)
        elif len(y.shape) > rank:
            y = keras.ops.squeeze(y, -1)
        return _with_mask_of(x, y)

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        """The shape and dtype of the input."""
        rank = self.rank or len(x.shape)
        shape = (*x.shape, 1) if len(x.shape) < rank else x.shape
        y = keras.KerasTensor(shape[:rank], self.dtype)
        return _with_mask_of(x, y)

    def get_config(self) -> dict:
        """What the operation is made from."""
        return {"dtype": self.dtype, "rank": self.rank, "name": self.name}


def _with_mask_of(x: Any, y: Any) -> Any:
    mask = compat.keras_mask(x)
    if mask is not None:
        compat.set_keras_mask(y, mask)
    return y


def as_input(
    shape: tuple, dtype: str, tensor: keras.KerasTensor
) -> AsInput | None:
    """What makes a tensor an input; None if nothing has to be done.

    Args:
        shape: The tensor's, with the batch.
        dtype: The tensor's.
        tensor: The input of the network.
    """
    rank = None if len(shape) == len(tensor.shape) else len(tensor.shape)
    if rank is None and dtype == tensor.dtype:
        return None
    return AsInput(str(tensor.dtype), rank)
