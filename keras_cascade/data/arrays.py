"""Reads arrays and tensors of every framework as NumPy arrays.

Tested by `tests/data/test_reading.py` and `tests/data/test_sources.py`.
"""

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

ACCEPTED = (
    "a NumPy array or tensor, a dict or list of them (several inputs), a "
    "tuple (x, y) or (x, y, sample_weight) of these, or batches: a "
    "tf.data.Dataset, a keras.utils.PyDataset, a torch or grain DataLoader "
    "or dataset of batches, a generator or another iterable of x, (x, y) or "
    "(x, y, sample_weight)"
)


def to_numpy(x: Any) -> np.ndarray:
    """Returns an array or tensor as a NumPy array, if possible without a copy.

    Raises:
        TypeError: `x` is no array, or sparse.
    """
    if isinstance(x, np.ndarray):
        return x
    refuse_sparse(x)
    if not is_array(x):
        raise TypeError(
            "Data is made of arrays or tensors, received "
            f"{describe(x)} where one should be."
        )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        # NumPy has no bfloat16, and torch refuses to convert to one.
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return np.asarray(x)


def to_floatx(array: np.ndarray) -> np.ndarray:
    """Returns floats in Keras's default dtype, and other arrays as they are.

    Keras's own `fit` and `predict` cast the arrays that they are given.
    """
    if array.dtype.kind == "f" and array.dtype != keras.config.floatx():
        return array.astype(keras.config.floatx())
    return array


def is_text(array: np.ndarray) -> bool:
    """Whether an array is of strings, in any of NumPy's ways to hold them."""
    return array.dtype.kind in "OSUT"


def to_trainable(x: Any) -> Any:
    """Returns strings as a tensor of TensorFlow, and all else as it is.

    Keras's `fit` and `predict` refuse arrays of objects.
    """
    if not isinstance(x, np.ndarray) or not is_text(x):
        return x
    if keras.config.backend() != "tensorflow":
        return x
    import tensorflow as tf

    return tf.constant(x.astype(object), tf.string)


def strings_as_tensors(data: Any) -> Any:
    """Returns arrays for Keras's `fit` and `predict`, and batches as given."""
    leaves = keras.tree.flatten(data)
    texts = (isinstance(x, np.ndarray) and is_text(x) for x in leaves)
    return map_arrays(to_trainable, data) if any(texts) else data


def map_arrays(change: Callable[[Any], Any], part: Any) -> Any:
    """Returns a structure with each array changed.

    None stands for no structure, or for an optional input without values.
    """
    return keras.tree.map_structure(change, part, none_is_leaf=False)


def count_rows(x: object) -> int:
    """Returns the number of rows that all arrays of a structure have.

    Raises:
        TypeError: One of the leaves is no array.
        ValueError: The arrays have no rows, or not the same number.
    """
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    for leaf in leaves:
        if not is_array(leaf):
            raise TypeError(
                f"Data is {ACCEPTED}. Received {describe(leaf)} where an "
                "array should be."
            )
        if len(leaf.shape) == 0:
            raise ValueError("Data has rows; received an array of rank 0.")
    sizes = [int(leaf.shape[0]) for leaf in leaves]
    if len(set(sizes)) > 1:
        raise ValueError(
            "All inputs, and labels where they are read, have the same number "
            f"of rows, received {sizes}."
        )
    if not sizes or not sizes[0]:
        raise ValueError("The data is empty: it has no rows.")
    return sizes[0]


def is_array(x: object) -> bool:
    """Whether `x` is an array or a tensor, of whatever framework."""
    return (
        hasattr(x, "shape")
        and hasattr(x, "__array__")
        and not isinstance(x, keras.KerasTensor)
    )


def refuse_sparse(data: object) -> None:
    """Raises a TypeError for sparse tensors: they cannot be cut into rows."""
    for leaf in keras.tree.flatten(data):
        if is_sparse(leaf):
            raise TypeError(
                f"Sparse data is not read here, received {describe(leaf)}. "
                "Pass it dense: `x.toarray()` of scipy, `x.todense()` of JAX, "
                "`x.to_dense()` of torch, `tf.sparse.to_dense(x)`. `fit` "
                "without cache_features takes it as Keras does."
            )


def describe(x: object) -> str:
    """Returns `an object of type ...` for an error message."""
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    return f"an object of type {kind.removeprefix('builtins.')}"


def is_sparse(x: object) -> bool:
    """Returns whether an array or tensor is sparse, of whatever framework."""
    return (
        hasattr(x, "todense")  # scipy, JAX
        or hasattr(x, "dense_shape")  # TensorFlow
        or getattr(x, "is_sparse", False) is True  # torch
        or getattr(x, "is_sparse_csr", False) is True
    )
