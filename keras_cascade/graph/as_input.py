"""Converts a tensor to what the input of a nested network is declared as."""

from typing import Any

import keras

from keras_cascade.graph.masks import copy_mask


# Fingerprints of cached features have the names of this class and its module.
@keras.saving.register_keras_serializable(package="keras_cascade")
class AsInput(keras.Operation):
    """Converts a tensor to the dtype and rank of a network's input.

    Keras does so in each call of a network: other dtypes are cast, and if a
    rank is one off, a last axis of size 1 is added or dropped. No operation of
    the graph shows it, so a graph without its nesting needs one.

    Args:
        dtype: The dtype of the input.
        rank: The rank of the input, batch included. Defaults to `None`: that
            of the tensor.
        name: The operation's name. Defaults to `None`.
    """

    def __init__(
        self, dtype: str, rank: int | None = None, *, name: str | None = None
    ):
        super().__init__(name=name)
        self.dtype = dtype
        self.rank = rank

    def call(self, x: Any) -> Any:
        """Returns the tensor as the input takes it, with its mask."""
        y: Any = keras.ops.cast(x, self.dtype)
        rank = self.rank or len(y.shape)
        if len(y.shape) < rank:
            y = keras.ops.expand_dims(y, -1)
        elif len(y.shape) > rank:
            y = keras.ops.squeeze(y, -1)
        return copy_mask(x, y)

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the shape and dtype of the input."""
        rank = self.rank or len(x.shape)
        shape = (*x.shape, 1) if len(x.shape) < rank else x.shape
        return copy_mask(x, keras.KerasTensor(shape[:rank], self.dtype))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {"dtype": self.dtype, "rank": self.rank, "name": self.name}


def as_input(
    shape: tuple, dtype: str, tensor: keras.KerasTensor
) -> AsInput | None:
    """Returns the operation that makes a tensor an input, if one is needed.

    Args:
        shape: The shape of the tensor, with the batch.
        dtype: The dtype of the tensor.
        tensor: The input of the network.
    """
    rank = None if len(shape) == len(tensor.shape) else len(tensor.shape)
    if rank is None and dtype == tensor.dtype:
        return None
    return AsInput(str(tensor.dtype), rank)
