"""Makes inputs that look like other tensors.

Tested by `tests/graph/test_copying.py`.
"""

from typing import Any

import keras


def input_like(
    tensor: keras.KerasTensor, name: str, optional: bool = False
) -> keras.KerasTensor:
    """Returns an input of a tensor's shape and dtype, batch included.

    Args:
        tensor: The tensor.
        name: The name of the input.
        optional: Whether the input may be None. Defaults to `False`.
    """
    result: Any = keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=name,
        optional=optional,
    )
    return result
