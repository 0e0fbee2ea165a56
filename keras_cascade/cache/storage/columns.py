"""A column: the features of one tensor, a row a sample."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from keras_cascade.cache.storage.gathering import gather
from keras_cascade.cache.storage.identifiers import IDS, IdentifierIndex

# Without a hint, memory comes in pieces of half of what is there already.
_FIRST_BYTES = 16 * 2**20


# Named for what the caller finds, as StopIteration is: training goes on.
class CacheFull(OSError):  # noqa: N818
    """There is no room for more features. What was stored before stays."""


class Column(Protocol):
    """The features of one tensor, addressed by the digests of samples.

    Rows arrive in any order, each sample's once, and stay as they are. A
    position is the number of a row in the order of arrival, and holds for the
    life of the object. Threads may share a column.

    Attributes:
        shape: Of one row.
        dtype: As stored.
        row_bytes: What a row takes, with its identifier.
        damaged: How many files were left out because they were damaged. Their
            rows are missing, and can be appended again.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    row_bytes: int
    damaged: int

    def __len__(self) -> int: ...

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Where rows are, as int64; -1 for those that are missing."""
        ...

    def append(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Adds rows, but for samples that are there, or twice in one call."""
        ...

    def read(self, positions: np.ndarray) -> np.ndarray:
        """A new array, its rows in the order of `positions`."""
        ...

    def reserve(self, rows: int) -> None:
        """Tells how many rows there will be, so that they lie in one piece."""
        ...

    def finish(self) -> None:
        """Stores what has been waiting for more rows to come."""
        ...


class IndexedColumn:
    """What columns have in common; where rows lie is up to the subclass.

    Args:
        shape: Of one row.
        dtype: As stored; anything `checked_dtype` takes.
    """

    def __init__(self, shape: Sequence[int], dtype: Any):
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
        """Where rows are.

        Args:
            ids: Digests of samples, of dtype `IDS`.

        Returns:
            Positions, as int64; -1 for those that are missing.
        """
        _check_ids(ids)
        with self._lock:
            return self._index.find(ids)

    def append(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Adds rows, but for samples that are there, or twice in one call.

        Args:
            ids: Digests of samples, of dtype `IDS`.
            rows: Their features, of the column's shape; floats are converted
                to its dtype.

        Raises:
            CacheFull: They do not fit. None of these rows was added, or, where
                the disk turned out to be full, the first ones.
            ValueError: Arrays of other shapes or dtypes.
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
        """Reads rows.

        Args:
            positions: As `positions()` gives them, in any order.

        Returns:
            A new array, its rows in the order of `positions`.

        Raises:
            IndexError: A position is -1, or behind the last row.
        """
        positions = np.asarray(positions, np.int64)
        with self._lock:
            empty = np.empty((0, *self.shape), self.dtype)
            return gather(self._segments() or [empty], positions)

    def reserve(self, rows: int) -> None:
        """Tells how many rows there will be. Here nothing depends on it.

        Args:
            rows: How many rows in all.
        """

    def finish(self) -> None:
        """Stores what has been waiting for more rows. Here nothing does."""

    def _add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _segments(self) -> list[np.ndarray]:
        raise NotImplementedError

    def _checked_rows(self, rows: np.ndarray, count: int) -> np.ndarray:
        if rows.shape != (count, *self.shape):
            raise ValueError(
                f"{count} rows of shape {self.shape} are to be appended, but "
                f"the array has the shape {rows.shape}."
            )
        if rows.dtype != self.dtype and not (
            is_float(rows.dtype) and is_float(self.dtype)
        ):
            raise ValueError(
                f"The column is of {self.dtype.name}, the rows to be appended "
                f"are of {rows.dtype.name}. Only floats are converted."
            )
        return rows


class MemoryColumn(IndexedColumn):
    """A column in memory.

    Args:
        shape: Of one row.
        dtype: As stored.
        take: Called with the bytes that are about to be added; raises
            `CacheFull` if there is no room for them. Defaults to `None`: there
            always is.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        take: Callable[[int], None] | None = None,
    ):
        super().__init__(shape, dtype)
        self._take = take
        self._pieces: list[np.ndarray] = []
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def reserve(self, rows: int) -> None:
        """Has room for that many rows in one piece, as far as none is there.

        Args:
            rows: How many rows in all.
        """
        with self._lock:
            missing = rows - self._capacity()
            if missing > 0:
                self._pieces.append(self._piece(missing))

    def _add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self._take is not None:
            self._take(len(ids) * self.row_bytes)
        missing = self._rows + len(ids) - self._capacity()
        if missing > 0:
            grown = max(self._capacity() // 2, _FIRST_BYTES // self.row_bytes)
            self._pieces.append(self._piece(max(missing, grown)))
        self._write(rows)
        position = self._rows
        # Counted before it is found: an interrupt in between loses these rows,
        # where others would be taken for them.
        self._rows += len(ids)
        self._index.add(ids, position)

    def _write(self, rows: np.ndarray) -> None:
        """Behind the rows that are there; the pieces have room for them."""
        begin = self._rows
        for piece in self._pieces:
            if len(rows) and begin < len(piece):
                count = min(len(rows), len(piece) - begin)
                piece[begin : begin + count] = rows[:count]
                rows, begin = rows[count:], len(piece)
            begin -= len(piece)

    def _segments(self) -> list[np.ndarray]:
        """The pieces, less the room at their end."""
        segments, left = [], self._rows
        for piece in self._pieces:
            segments.append(piece[:left])
            left -= len(segments[-1])
        return [x for x in segments if len(x)]

    def _capacity(self) -> int:
        return sum(map(len, self._pieces))

    def _piece(self, rows: int) -> np.ndarray:
        # What is not written yet takes no memory, only addresses.
        return np.empty((rows, *self.shape), self.dtype)


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A row's shape, in which no size is open or zero.

    Args:
        shape: The shape, without samples.

    Raises:
        ValueError: A size is no positive whole number.
    """
    sizes = tuple(shape)
    if not all(isinstance(x, int | np.integer) and x > 0 for x in sizes):
        raise ValueError(
            f"Rows have one shape of positive sizes, but {sizes} was given."
        )
    return tuple(map(int, sizes))


def checked_dtype(dtype: Any) -> np.dtype:
    """A dtype of numbers or truth values, in the machine's byte order.

    Args:
        dtype: A dtype or its name, those of `ml_dtypes` included.

    Raises:
        ValueError: It is of something else, such as objects or text.
    """
    found = np.dtype(dtype).newbyteorder("=")
    if found.kind not in "biufc" and not hasattr(ml_dtypes, found.name):
        raise ValueError(
            f"Features are numbers or truth values, but the dtype is {found}."
        )
    return found


def is_float(dtype: np.dtype) -> bool:
    """Whether a dtype is of floats, those of `ml_dtypes` included.

    Args:
        dtype: The dtype.
    """
    if dtype.kind == "f":
        return True
    own = getattr(ml_dtypes, dtype.name, None)
    return own is not None and dtype == own and "float" in dtype.name


def _check_ids(ids: np.ndarray) -> None:
    if ids.dtype != IDS or ids.ndim != 1:
        raise ValueError(
            f"Identifiers are a vector of {IDS}, but an array of {ids.dtype} "
            f"with the shape {ids.shape} was given."
        )
