"""Makes inputs that look like other tensors.

Tested by `tests/graph/test_copying.py`.
"""

from typing import Any

import keras

from keras_cascade import _keras_compat as compat


def input_like(
    tensor: keras.KerasTensor, name: str | None
) -> keras.KerasTensor:
    """Returns an input with the properties of a tensor, batch included.

    These are shape, dtype, sparse and ragged; like an input that may be None,
    it may be None.

    Args:
        tensor: The tensor.
        name: The name of the input; None has Keras number it.
    """
    result: Any = keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        name=name,
        optional=compat.may_be_none(tensor),
    )
    return result
