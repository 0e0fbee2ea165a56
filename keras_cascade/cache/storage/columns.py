"""Columns of features: those of one tensor, a row for each sample."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from keras_cascade.cache.storage.gathering import gather
from keras_cascade.cache.storage.identifiers import IDS, IdentifierIndex

# Without a hint, memory is taken in pieces of half of what is there already.
_FIRST_BYTES = 16 * 2**20


# Named for the state that it reports, as StopIteration is: training goes on.
class CacheFull(OSError):  # noqa: N818
    """There is no room for more features. What was stored before stays."""


class Column:
    """The features of one tensor, addressed by the hashes of samples.

    Rows arrive in any order, each sample's once, and stay as they are. A
    position is the number of a row in the order of arrival, and stays valid
    for the life of the object. Threads may share a column.

    Args:
        shape: The shape of one row.
        dtype: The dtype to store, those of `ml_dtypes` included.

    Attributes:
        row_bytes: The bytes of a row, with its identifier.
        damaged: How many files were left out because they were damaged. Their
            rows are missing, and can be appended again.

    Raises:
        ValueError: The shape is open or empty, or the dtype is of something
            other than numbers and truth values.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike):
        self.shape = checked_shape(shape)
        self.dtype = checked_dtype(dtype)
        values = math.prod(self.shape) * self.dtype.itemsize
        self.row_bytes = values + IDS.itemsize
        self.damaged = 0
        self._index = IdentifierIndex()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        raise NotImplementedError

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Returns the positions of rows, as int64; -1 for missing ones."""
        _check_ids(ids)
        with self._lock:
            return self._index.find(ids)

    def append(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Adds rows, except for samples that are there or come twice.

        Args:
            ids: Hashes of samples, of dtype `IDS`.
            rows: Their features, of the column's shape; floats are converted
                to its dtype.

        Raises:
            CacheFull: They do not fit. None of these rows was added, or, where
                the disk turned out to be full, the first ones.
            ValueError: The arrays have other shapes or dtypes.
        """
        _check_ids(ids)
        rows = self._checked_rows(np.asarray(rows), len(ids))
        with self._lock:
            new = self._index.unknown(ids)
            if len(new) < len(ids):
                ids, rows = ids[new], rows[new]
            if len(ids):
                self._add(ids, rows)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Returns rows in the order of their positions, as a new array.

        Raises:
            IndexError: A position is -1, or after the last row.
        """
        positions = np.asarray(positions, np.int64)
        with self._lock:
            empty = np.empty((0, *self.shape), self.dtype)
            return gather(self._segments() or [empty], positions)

    def reserve(self, rows: int) -> None:
        """Prepares for a number of rows in all, so that they lie together."""

    def finish(self) -> None:
        """Stores the rows that wait for more to come."""

    def _add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _segments(self) -> list[np.ndarray]:
        """Returns the arrays that make up all rows, in their order."""
        raise NotImplementedError

    def _checked_rows(self, rows: np.ndarray, count: int) -> np.ndarray:
        if rows.shape != (count, *self.shape):
            raise ValueError(
                f"{count} rows of shape {self.shape} are to be appended, but "
                f"the array has the shape {rows.shape}."
            )
        if rows.dtype != self.dtype and not (
            _is_float(rows.dtype) and _is_float(self.dtype)
        ):
            raise ValueError(
                f"The column is of {self.dtype.name}, the rows to be appended "
                f"are of {rows.dtype.name}. Only floats are converted."
            )
        return rows


class MemoryColumn(Column):
    """A column in memory.

    Before bytes are added, `take` raises `CacheFull` if they have no room.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike,
        take: Callable[[int], None],
    ):
        super().__init__(shape, dtype)
        self._take = take
        self._pieces: list[np.ndarray] = []
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def reserve(self, rows: int) -> None:
        """Prepares for a number of rows, as in `Column`."""
        with self._lock:
            missing = rows - self._capacity()
            if missing > 0:
                self._pieces.append(self._piece(missing))

    def _add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        self._take(len(ids) * self.row_bytes)
        missing = self._rows + len(ids) - self._capacity()
        if missing > 0:
            grown = max(self._capacity() // 2, _FIRST_BYTES // self.row_bytes)
            self._pieces.append(self._piece(max(missing, grown)))
        self._write(rows)
        position = self._rows
        # Counted before the index finds them: an interrupt in between loses
        # these rows, where others would be taken for them.
        self._rows += len(ids)
        self._index.add(ids, position)

    def _write(self, rows: np.ndarray) -> None:
        """Copies rows to the pieces, after the rows that are there."""
        begin = self._rows
        for piece in self._pieces:
            if len(rows) and begin < len(piece):
                count = min(len(rows), len(piece) - begin)
                piece[begin : begin + count] = rows[:count]
                rows, begin = rows[count:], len(piece)
            begin -= len(piece)

    def _segments(self) -> list[np.ndarray]:
        segments, left = [], self._rows
        for piece in self._pieces:
            segments.append(piece[:left])
            left -= len(segments[-1])
        return [x for x in segments if len(x)]

    def _capacity(self) -> int:
        return sum(map(len, self._pieces))

    def _piece(self, rows: int) -> np.ndarray:
        # Pages that are not written yet take no memory, only addresses.
        return np.empty((rows, *self.shape), self.dtype)


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of a row, or raises a ValueError for an open one."""
    sizes = tuple(shape)
    if not all(isinstance(x, int | np.integer) and x > 0 for x in sizes):
        raise ValueError(
            f"Rows have one shape of positive sizes, but {sizes} was given."
        )
    return tuple(map(int, sizes))


def checked_dtype(dtype: DTypeLike) -> np.dtype:
    """Returns a dtype of numbers or truth values, or raises a ValueError."""
    found = np.dtype(dtype).newbyteorder("=")
    if found.kind not in "biufc" and not hasattr(ml_dtypes, found.name):
        raise ValueError(
            f"Features are numbers or truth values, but the dtype is {found}."
        )
    return found


def is_kind(value: Any) -> bool:
    """Whether a value of JSON is a list of a row's shape and dtype."""
    try:
        shape, dtype = value
        checked_shape(shape)
        checked_dtype(dtype)
    except (TypeError, ValueError):
        return False
    return True


def _is_float(dtype: np.dtype) -> bool:
    if dtype.kind == "f":
        return True
    # NumPy does not know those of ml_dtypes as floats.
    own = getattr(ml_dtypes, dtype.name, None)
    return own is not None and dtype == own and "float" in dtype.name


def _check_ids(ids: np.ndarray) -> None:
    if ids.dtype != IDS or ids.ndim != 1:
        raise ValueError(
            f"Identifiers are a vector of {IDS}, but an array of {ids.dtype} "
            f"with the shape {ids.shape} was given."
        )
