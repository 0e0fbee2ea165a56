"""Symbolic inputs that look like other tensors."""

from typing import Any

import keras


def input_like(
    tensor: keras.KerasTensor, name: str, optional: bool = False
) -> keras.KerasTensor:
    """An input of a tensor's shape and dtype, batch included.

    Args:
        tensor: What it looks like.
        name: The name of the input.
        optional: Whether it may be None. Defaults to `False`.
    """
    # Keras annotates no result.
    made: Any = keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=name,
        optional=optional,
    )
    return made
