"""Tells data in a form that Keras refuses at length, or misunderstands.

Tested by `tests/behaviour/test_mistakes.py`.
"""

from typing import Any

import keras
import numpy as np

from keras_cascade.data.arrays import is_array, is_sparse, is_text
from keras_cascade.data.sources import Arrays


def check_fit_data(x: Any, y: Any, call: str, inputs: int) -> None:
    """Raises an error for `x` and `y` that are no arrays and no batches.

    Args:
        x: The inputs, or batches.
        y: The labels.
        call: The call that they were passed to, for the error.
        inputs: The number of inputs of the model.

    Raises:
        TypeError: Either is a list of numbers, or the labels are text.
        ValueError: `x` is a tuple `(x, y)`.
    """
    if isinstance(x, tuple) and y is None and inputs == 1 and len(x) in (2, 3):
        given = ", ".join(("x", "y", "sample_weight")[: len(x)])
        raise ValueError(
            f"{call} takes a tuple as several inputs, and the cascade has one; "
            f"received a tuple of {len(x)}. Pass its parts apart: "
            f"{call}({'x' if call.startswith('predict') else given})."
        )
    for name, part in {"x": x, "y": y}.items():
        if isinstance(part, list | tuple) and _begins_with_a_number(part):
            raise TypeError(
                f"{call}: {name} is a list of numbers or texts, and a list is "
                f"several arrays. Pass an array: np.asarray({name})."
            )
    if isinstance(y, np.ndarray) and is_text(y):
        raise TypeError(
            f"{call}: the labels y are of dtype {y.dtype}, and a loss takes "
            "numbers. For texts: classes, y = np.unique(y, "
            "return_inverse=True); for numbers: y.astype('float32')."
        )


def are_arrays(x: Any) -> bool:
    """Returns whether data are arrays, read at any row, and no batches."""
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    return bool(leaves) and all(
        is_array(leaf) and not is_sparse(leaf) and len(leaf.shape) > 0
        for leaf in leaves
    )


def first_rows(x: Any, count: int) -> Any:
    """Returns the first rows of arrays, as NumPy arrays."""
    return Arrays(x).take(slice(0, count))[0]


def _begins_with_a_number(part: Any) -> bool:
    while isinstance(part, list | tuple) and part:
        part = part[0]
    return isinstance(part, bool | int | float | complex | str | bytes)
