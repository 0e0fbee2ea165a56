"""The user's data, of whatever kind, as batches of NumPy arrays."""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
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


def batches(data: Any, batch_size: int = 32) -> Iterator[Any]:
    """Yields the inputs of each batch of `data`, as NumPy arrays.

    What learns from inputs alone (an adapter, a calibration) reads all kinds
    of data through this. Labels and sample weights are left out. Arrays are
    cut into batches of `batch_size`; everything else comes in batches of its
    own, which are read as `fit` reads them: a tuple or list is `(x, y)`.

    Args:
        data: array, structure of arrays, or batches. In a structure of
            arrays a tuple is `(x, y)` or `(x, y, sample_weight)`, and a list
            or dict is one `x` of several inputs.
        batch_size: int, rows of a batch that is cut from arrays. Defaults to
            `32`.

    Returns:
        An iterator over `x`: an array, or a dict, list or tuple of arrays.

    Raises:
        TypeError: `data` is none of what is accepted.
        ValueError: `data` is empty, without end, or of unequal lengths.

    Example:
    >>> import numpy as np
    >>> x, y = np.zeros((5, 3)), np.zeros(5)
    >>> [batch.shape for batch in batches((x, y), batch_size=2)]
    [(2, 3), (2, 3), (1, 3)]
    """
    return _open(data, batch_size).start()


def labelled_batches(
    data: Any, batch_size: int = 32
) -> Iterator[tuple[Any, Any]]:
    """Yields the inputs and labels of each batch of `data`.

    What learns from labels (a calibration) reads all kinds of data through
    this. Sample weights are left out.

    Args:
        data: what `batches` accepts; labels are in it where it holds
            `(x, y)` or `(x, y, sample_weight)`.
        batch_size: int, rows of a batch that is cut from arrays. Defaults to
            `32`.

    Returns:
        An iterator over `(x, y)`, each an array or a structure of arrays;
        `y` is None where the data has no labels.

    Raises:
        TypeError: `data` is none of what is accepted.
        ValueError: `data` is empty, without end, or of unequal lengths.

    Example:
    >>> import numpy as np
    >>> x, y = np.zeros((5, 3)), np.arange(5)
    >>> [labels.tolist() for _, labels in labelled_batches((x, y), 2)]
    [[0, 1], [2, 3], [4]]
    """
    return _open(data, batch_size, labelled=True).start()


def training_batches(
    data: Any, batch_size: int = 32, seed: int = 0
) -> Iterator[tuple[Any, Any, Any]]:
    """Yields whole batches of `data` to train on, over and over.

    Arrays are shuffled anew for every pass, by a generator of its own: no
    global random state is drawn from. What is left over for a batch that is
    not full is left out of that pass. Everything else comes in its own
    order, from its beginning when it is through.

    Args:
        data: what `batches` accepts; it may be a data set without end.
        batch_size: int, rows of a batch that is cut from arrays, all rows if
            there are fewer. Defaults to `32`.
        seed: int, of the generator that shuffles. Defaults to `0`.

    Returns:
        An iterator without end over `(x, y, sample_weight)`; what the data
        lacks is None.

    Raises:
        TypeError: `data` is none of what is accepted.
        ValueError: `data` is empty or of unequal lengths, or can be read only
            once.

    Example:
    >>> import numpy as np
    >>> stream = training_batches((np.zeros((5, 3)), np.arange(5)), 2)
    >>> [len(next(stream)[1]) for _ in range(4)]
    [2, 2, 2, 2]
    """
    if isinstance(data, keras.utils.PyDataset):
        size = data.num_batches
        numbers = itertools.count() if size is None else range(int(size))
        return _over_and_over(lambda: (data[i] for i in numbers))
    if isinstance(data, (tuple, list, dict)) or is_array(data):
        return _shuffled(data, batch_size, seed)
    if isinstance(data, Iterator):
        raise ValueError(
            f"A {type(data).__name__} can be read only once. Pass arrays, a "
            "data set or a PyDataset."
        )
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return _over_and_over(lambda: data)
    raise TypeError(f"Data is {ACCEPTED}. Received {describe(data)}.")


def is_reiterable(data: Any) -> bool:
    """Whether `data` can be read more than once.

    A generator, or any other iterator, gives one pass; what needs several
    asks here before it starts.

    Args:
        data: what `batches` accepts.

    Returns:
        True where a second `batches(data)` gives everything again.

    Example:
    >>> import numpy as np
    >>> is_reiterable(np.zeros((5, 3)))
    True
    >>> is_reiterable(np.zeros((1, 3)) for _ in range(5))
    False
    """
    return _open(data).reiterable


def length(data: Any, batch_size: int = 32) -> int | None:
    """The number of batches in `data`, where it is known beforehand.

    Args:
        data: what `batches` accepts.
        batch_size: int, as in `batches`. Defaults to `32`.

    Returns:
        The number of batches, or None.

    Example:
    >>> import numpy as np
    >>> length(np.zeros((5, 3)), batch_size=2)
    3
    """
    return _open(data, batch_size).length


def to_numpy(x: Any) -> np.ndarray:
    """One array or tensor, of whatever framework, as a NumPy array.

    Args:
        x: array or tensor.

    Returns:
        The values as a NumPy array, without a copy where that is possible.

    Raises:
        TypeError: `x` is no array.
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


@dataclasses.dataclass(frozen=True)
class _Source:
    """How to start a pass over some data, and what is known of it."""

    start: Callable[[], Iterator[Any]]
    length: int | None
    reiterable: bool


def _open(data: Any, batch_size: int = 32, labelled: bool = False) -> _Source:
    """Gives passes over x, or where `labelled` over (x, y)."""
    refuse_sparse(data)
    if isinstance(data, keras.utils.PyDataset):
        return _open_py_dataset(data, labelled)
    if isinstance(data, (tuple, list, dict)) or is_array(data):
        return _open_arrays(_parts_of(data), batch_size, labelled)
    if isinstance(data, Iterable) and not isinstance(
        data, (str, bytes, keras.KerasTensor)
    ):
        return _open_iterable(data, labelled)
    hint = " Call the function, and pass what it returns." * callable(data)
    raise TypeError(f"Data is {ACCEPTED}. Received {describe(data)}.{hint}")


def _open_py_dataset(data: keras.utils.PyDataset, labelled: bool) -> _Source:
    size = data.num_batches
    if size is None:
        raise ValueError(endless(data))
    count = int(size)
    return _Source(
        lambda: _read((data[index] for index in range(count)), labelled),
        count,
        True,
    )


def _open_arrays(
    parts: tuple[Any, Any], batch_size: int, labelled: bool
) -> _Source:
    if batch_size < 1:
        raise ValueError(f"`batch_size` is at least 1, received {batch_size}.")
    x, y = parts
    # Labels that nobody reads may be of any kind.
    wanted = (x, y) if labelled and y is not None else x
    rows = count_rows(wanted)
    starts = range(0, rows, batch_size)

    def cut(start: int) -> Any:
        rows = slice(start, start + batch_size)
        found = keras.tree.map_structure(
            lambda leaf: to_numpy(leaf[rows]), wanted
        )
        return (found, None) if labelled and y is None else found

    return _Source(lambda: map(cut, starts), len(starts), True)


def _open_iterable(data: Iterable[Any], labelled: bool) -> _Source:
    size = known_size(data)
    if size == math.inf:
        raise ValueError(endless(data))
    return _Source(
        lambda: _read(data, labelled),
        None if size is None else int(size),
        not isinstance(data, Iterator),
    )


def _read(found: Iterable[Any], labelled: bool) -> Iterator[Any]:
    """What is wanted of each batch; an error when there is none at all."""
    batch = None
    for batch in found:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        x = keras.tree.map_structure(to_numpy, x)
        yield (x, _labels_to_numpy(y)) if labelled else x
    if batch is None:
        raise ValueError(
            "The data is empty: it gave no batch. A generator that was read "
            "before gives nothing; make a new one."
        )


def _over_and_over(
    start: Callable[[], Iterable[Any]],
) -> Iterator[tuple[Any, Any, Any]]:
    while True:
        batch = None
        for batch in start():
            parts = keras.utils.unpack_x_y_sample_weight(batch)
            yield tuple(_labels_to_numpy(part) for part in parts)
        if batch is None:
            raise ValueError("The data is empty: it gave no batch.")


def _shuffled(
    data: Any, batch_size: int, seed: int
) -> Iterator[tuple[Any, Any, Any]]:
    _parts_of(data)
    parts = data if isinstance(data, tuple) else (data,)
    rows = count_rows([part for part in parts if part is not None])
    x, y, weights = (
        keras.tree.map_structure(to_numpy, part) if part is not None else None
        for part in (*parts, None, None)[:3]
    )
    size, draw = min(batch_size, rows), np.random.default_rng(seed)

    def passes() -> Iterator[tuple[Any, Any, Any]]:
        while True:
            order = draw.permutation(rows)
            for start in range(0, rows - size + 1, size):
                chosen = order[start : start + size]
                yield tuple(_rows_of(part, chosen) for part in (x, y, weights))

    return passes()


def _rows_of(part: Any, chosen: np.ndarray) -> Any:
    if part is None:
        return None
    return keras.tree.map_structure(lambda array: array[chosen], part)


def _labels_to_numpy(y: Any) -> Any:
    return None if y is None else keras.tree.map_structure(to_numpy, y)


def _parts_of(data: Any) -> tuple[Any, Any]:
    """The x and y of a structure of arrays."""
    if isinstance(data, tuple):
        if not 1 <= len(data) <= 3:
            raise ValueError(
                "A tuple is (x, y) or (x, y, sample_weight), received "
                f"{len(data)} elements. Several inputs are a list or a dict."
            )
        return data[0], data[1] if len(data) > 1 else None
    if isinstance(data, list) and any(isinstance(x, tuple) for x in data):
        raise TypeError(
            "A list is several inputs, each an array; received a list of "
            "tuples. If these are batches, pass `iter(batches)` for one "
            "pass, or a keras.utils.PyDataset."
        )
    return data, None


def count_rows(x: Any) -> int:
    """The number of rows of a structure of arrays.

    Args:
        x: The arrays.

    Raises:
        TypeError: One is no array.
        ValueError: They have none, or not the same number.
    """
    leaves = keras.tree.flatten(x)
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


def is_array(x: Any) -> bool:
    """Whether it is an array or a tensor, of whatever framework."""
    return (
        hasattr(x, "shape")
        and hasattr(x, "__array__")
        and not isinstance(x, keras.KerasTensor)
    )


def refuse_sparse(data: Any) -> None:
    """What keeps no zeros is not read: rows of it are no arrays.

    Args:
        data: A structure of arrays, or any other data.

    Raises:
        TypeError: If one of them is sparse.
    """
    for leaf in keras.tree.flatten(data):
        if _is_sparse(leaf):
            raise TypeError(
                f"Sparse data is not read here, received {describe(leaf)}. "
                "Pass it dense: `x.toarray()` of scipy, `x.todense()` of JAX, "
                "`x.to_dense()` of torch, `tf.sparse.to_dense(x)`. `fit` "
                "without cache_features takes it as Keras does."
            )


def _is_sparse(x: Any) -> bool:
    return (
        hasattr(x, "todense")  # scipy, JAX
        or hasattr(x, "dense_shape")  # TensorFlow
        or getattr(x, "is_sparse", False) is True  # torch
        or getattr(x, "is_sparse_csr", False) is True
    )


def known_size(data: Any) -> float | None:
    """The number of batches, `math.inf` if endless, None if unknown."""
    tf = sys.modules.get("tensorflow")
    if tf is not None and isinstance(data, tf.data.Dataset):
        size = int(data.cardinality())
        return {-1: math.inf, -2: None}.get(size, size)
    try:
        size = len(data)
    except TypeError:  # no length, or one that is unknown beforehand
        return None
    # What grain repeats without end has this length.
    return math.inf if size == sys.maxsize else size


def endless(data: Any) -> str:
    """What is said of data without end."""
    return (
        f"The {type(data).__name__} never ends. One pass needs an end: limit "
        "it to the batches to learn from (`dataset.take(100)`)."
    )


def describe(x: Any) -> str:
    """What something is, for messages."""
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    return f"an object of type {kind.removeprefix('builtins.')}"
