"""Reads values from files of weights, which may be damaged or made up.

Tested by `tests/behaviour/test_damaged_weights.py`.
"""

from typing import Any

import keras
import numpy as np

# Kinds of NumPy; bfloat16 and its kin are of the last.
_NUMBERS = "biufV"


def read_value(
    store: Any, key: str, variable: keras.Variable, owner: str
) -> np.ndarray:
    """Returns the value that a file has for a variable.

    Args:
        store: The part of the file, as Keras gives it to `load_own_variables`.
        key: The name of the value there.
        variable: The variable. It stays as it is.
        owner: The part of the model that the value is of, for the error.

    Raises:
        ValueError: If there is no such value, it is none of numbers or of
            another shape, or a float for an integer.
    """
    # Keras's stores are no mappings.
    if key not in list(store.keys()):
        raise ValueError(f"{owner}: the file has no value '{key}'.")
    value = np.asarray(store[key])
    wanted = tuple(variable.shape)
    counts = keras.backend.is_int_dtype(variable.dtype)
    if (
        value.shape != wanted
        or value.dtype.kind not in _NUMBERS
        or value.dtype.names is not None
        or (counts and value.dtype.kind not in "iu")
    ):
        raise ValueError(
            f"{owner}: the value '{key}' in the file is {value.dtype} of "
            f"shape {value.shape}; expected {variable.dtype} of shape "
            f"{wanted}."
        )
    return value
