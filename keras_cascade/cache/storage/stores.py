"""Stores of columns, with small values beside them; one in memory.

Tested by `tests/cache/storage/test_disk.py` and
`tests/cache/storage/test_columns.py`.
"""

import contextlib
import json
import re
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from operator import mul
from typing import Any, Generic, TypeVar

from numpy.typing import DTypeLike

from keras_cascade.cache.storage.columns import (
    CacheFull,
    Column,
    MemoryColumn,
    checked_dtype,
    checked_shape,
)

_KEY = re.compile(r"[0-9a-f]+")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})?")
AnyColumn = TypeVar("AnyColumn", bound=Column)


class Store(ABC, Generic[AnyColumn]):
    """Cached features: columns by key, and JSON values by name.

    Args:
        make_column: Returns the object of a column, from the arguments of
            `column()`.
    """

    def __init__(
        self,
        make_column: Callable[[str, Sequence[int], DTypeLike, dict], AnyColumn],
    ):
        self._make_column = make_column
        self._columns: dict[str, AnyColumn] = {}
        self._lock = threading.RLock()

    def column(
        self,
        key: str,
        shape: Sequence[int],
        dtype: DTypeLike,
        description: dict[str, Any],
    ) -> AnyColumn:
        """Opens a column, or makes it.

        Args:
            key: The column's name, a hex string.
            shape: The shape of one row.
            dtype: The dtype to store.
            description: The contents, as JSON; on disk it is kept for people
                to read.

        Raises:
            ValueError: There is a column of another shape or dtype, or the
                key is no hex string.
            OSError: A file of it cannot be read.
        """
        # Keys become names of folders.
        if not is_key(key):
            raise ValueError(f"A column's key is a hex string, not {key!r}.")
        with self._lock:
            if key not in self._columns:
                made = self._make_column(key, shape, dtype, description)
                self._columns[key] = made
            column = self._columns[key]
        asked = checked_shape(shape), checked_dtype(dtype)
        if (column.shape, column.dtype) != asked:
            raise ValueError(
                f"Column {key} holds rows of {column.dtype.name}"
                f"{column.shape}, but {asked[1].name}{asked[0]} is asked for."
            )
        return column

    def contents(self) -> tuple[int, int]:
        """Returns the rows of the columns in use here, and their bytes."""
        columns = list(self._columns.values())
        rows = [len(column) for column in columns]
        sizes = [column.row_bytes for column in columns]
        return sum(rows), sum(map(mul, rows, sizes))

    @abstractmethod
    def save_json(self, name: str, value: object) -> None:
        """Stores a value of JSON under a name, which may have one slash.

        Raises:
            CacheFull: There is no room for it.
        """

    @abstractmethod
    def load_json(self, name: str) -> Any | None:
        """Returns a value; None where there is none, or it is damaged."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """Returns a context in which rows may be appended, by one process."""

    @abstractmethod
    def room(self) -> int:
        """Returns how many bytes may still be written."""


class MemoryStore(Store[MemoryColumn]):
    """Columns in memory, which go with the process.

    Args:
        max_bytes: What all columns together may take. Defaults to `None`: as
            much as there is.
    """

    def __init__(self, max_bytes: int | None = None):
        super().__init__(
            lambda key, shape, dtype, _: MemoryColumn(shape, dtype, self._take)
        )
        self.max_bytes = max_bytes
        self._values: dict[str, str] = {}
        self._taken = 0

    def save_json(self, name: str, value: object) -> None:
        """Stores a value, as in `Store`."""
        check_name(name)
        # As text, so that both stores give back what JSON makes of a value.
        self._values[name] = json.dumps(value)

    def load_json(self, name: str) -> Any | None:
        """Returns a value or None, as in `Store`."""
        check_name(name)
        return json.loads(self._values.get(name, "null"))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Waits for nobody: no other process sees this memory."""
        yield

    def room(self) -> int:
        """Returns how many bytes may still be written."""
        if self.max_bytes is None:
            return sys.maxsize
        return max(0, self.max_bytes - self._taken)

    def _take(self, count: int) -> None:
        with self._lock:
            if count > self.room():
                raise CacheFull(
                    f"No room for cached features in memory: {count:,} bytes "
                    f"more are needed, {self.room():,} are left of "
                    f"max_bytes={self.max_bytes:,}."
                )
            self._taken += count


def is_key(key: str) -> bool:
    """Whether a text can be the key of a column."""
    return _KEY.fullmatch(key) is not None


def check_name(name: str) -> None:
    """Raises a ValueError for the name of a value that is no file's."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "A value's name is letters, digits, '_', '-' and '.', with one "
            f"'/' at most, not {name!r}."
        )
