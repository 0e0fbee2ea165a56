"""Reads the user's data, of whatever kind, as batches of NumPy arrays."""

import itertools
from collections.abc import Iterator
from typing import Any, SupportsIndex

import numpy as np

from keras_cascade.data.arrays import count_rows, map_arrays
from keras_cascade.data.sources import Arrays, Batch, open_data


def batches(data: object, batch_size: int = 32) -> Iterator[Any]:
    """Yields the inputs of each batch of `data`, as NumPy arrays.

    For learning from inputs alone (an adapter, a calibration): labels and
    sample weights are left out. Arrays are cut into batches of `batch_size`.
    Everything else comes in batches of its own, which are read as `fit` reads
    them: a tuple or list is `(x, y)`.

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
    return (x for x, _, _ in _read(data, batch_size, parts=1))


def labelled_batches(
    data: object, batch_size: int = 32, limit: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yields the inputs and labels of each batch of `data`.

    The other arguments and errors are those of `batches`.

    Args:
        data: As in `batches`; with a limit it may be without end.
        batch_size: As in `batches`.
        limit: int, the number of samples after which reading ends. Defaults
            to `None`: all.

    Returns:
        An iterator over `(x, y)`, each an array or a structure of arrays;
        `y` is None where the data has no labels.

    Example:
    >>> import numpy as np
    >>> x, y = np.zeros((5, 3)), np.arange(5)
    >>> [labels.tolist() for _, labels in labelled_batches((x, y), 2)]
    [[0, 1], [2, 3], [4]]
    """
    found = _read(data, batch_size, parts=2, endless=limit is not None)
    pairs = ((x, y) for x, y, _ in found)
    return pairs if limit is None else _first_rows(pairs, limit)


def _first_rows(
    pairs: Iterator[tuple[Any, Any]], limit: int
) -> Iterator[tuple[Any, Any]]:
    """Yields batches up to a number of rows; the last may be cut."""
    left = limit
    while left > 0 and (pair := next(pairs, None)) is not None:
        rows = min(left, count_rows(pair[0]))
        left -= rows
        yield map_arrays(lambda x, n=rows: x[:n], pair)


def training_batches(
    data: object, batch_size: int = 32, seed: int = 0
) -> Iterator[Batch]:
    """Yields whole batches of `data` to train on, over and over.

    Arrays are shuffled again for every pass, by a generator of its own, so
    that no global random state changes. Rows that are left over for a batch
    that is not full are left out of that pass. Everything else comes in its
    own order, from its beginning again after its end.

    Args:
        data: As in `batches`; it may be a data set without end.
        batch_size: int, rows of a batch that is cut from arrays, all rows if
            there are fewer. Defaults to `32`.
        seed: int, of the generator that shuffles. Defaults to `0`.

    Returns:
        An iterator without end over `(x, y, sample_weight)`; parts that the
        data lacks are None.

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
    source = open_data(data, may_be_endless=True)
    if isinstance(source, Arrays):
        return _shuffle(source, batch_size, seed)
    if not source.reiterable:
        raise ValueError(
            f"A {source.kind} can be read only once. Pass arrays, a data set "
            "or a PyDataset."
        )
    return itertools.chain.from_iterable(
        source.read() for _ in itertools.count()
    )


def is_reiterable(data: object) -> bool:
    """Whether `data` can be read more than once, unlike a generator.

    Example:
    >>> import numpy as np
    >>> is_reiterable(np.zeros((5, 3)))
    True
    >>> is_reiterable(np.zeros((1, 3)) for _ in range(5))
    False
    """
    source = open_data(data)
    return isinstance(source, Arrays) or source.reiterable


def length(data: object, batch_size: int = 32) -> int | None:
    """Returns the number of batches in `data`, or None if it is unknown.

    Example:
    >>> import numpy as np
    >>> length(np.zeros((5, 3)), batch_size=2)
    3
    """
    source = open_data(data)
    if isinstance(source, Arrays):
        return len(_starts(Arrays(source.x), batch_size))
    return source.length


def _read(
    data: object, batch_size: int, parts: int, endless: bool = False
) -> Iterator[Batch]:
    """Yields the batches of one pass, with so many of `x`, `y` and weights."""
    source = open_data(data, may_be_endless=endless)
    if not isinstance(source, Arrays):
        return source.read(parts)
    # Labels that nobody reads may be of any kind.
    arrays = Arrays(*(source.x, source.y)[:parts])
    return (
        arrays.take(slice(start, start + batch_size))
        for start in _starts(arrays, batch_size)
    )


def _starts(arrays: Arrays, batch_size: int) -> range:
    if not isinstance(batch_size, SupportsIndex) or int(batch_size) < 1:
        raise ValueError(
            f"`batch_size` is a whole number of at least 1; received "
            f"{batch_size!r}."
        )
    return range(0, arrays.rows, batch_size)


def _shuffle(arrays: Arrays, batch_size: int, seed: int) -> Iterator[Batch]:
    # Before converting, which would not notice unequal lengths.
    rows, arrays = arrays.rows, arrays.to_numpy()
    size, draw = min(batch_size, rows), np.random.default_rng(seed)
    while True:
        order = draw.permutation(rows)
        for start in range(0, rows - size + 1, size):
            yield arrays.take(order[start : start + size])
