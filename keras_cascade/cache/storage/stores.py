"""A store: columns, and small values beside them; here in memory."""

import contextlib
import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from keras_cascade.cache.storage.columns import CacheFull, Column, MemoryColumn

_KEY = re.compile(r"[0-9a-f]+")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})?")


class Store(Protocol):
    """Where cached features are: columns by key, and JSON values by name."""

    def column(
        self, key: str, shape: Sequence[int], dtype: Any, description: dict
    ) -> Column:
        """Opens a column, or makes it; the key is a hex string."""
        ...

    def save_json(self, name: str, value: Any) -> None:
        """Stores a value under a name, which may hold one slash."""
        ...

    def load_json(self, name: str) -> Any | None:
        """The value of that name, or `None` where there is none."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Of the JSON values, those that begin with `prefix`, sorted."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """One process writes at a time; rows are appended within this."""
        ...

    def room(self) -> int:
        """How many bytes may still be written."""
        ...

    def close(self) -> None:
        """Lets go of columns."""
        ...


class MemoryStore:
    """Columns in memory, which go with the process.

    Args:
        max_bytes: What all columns together may take. Defaults to `None`: as
            much as there is.
    """

    def __init__(self, max_bytes: int | None = None):
        self.max_bytes = max_bytes
        self._columns: dict[str, MemoryColumn] = {}
        self._values: dict[str, str] = {}
        self._taken = 0
        self._lock = threading.RLock()

    def column(
        self, key: str, shape: Sequence[int], dtype: Any, description: dict
    ) -> MemoryColumn:
        """Opens a column, or makes it.

        Args:
            key: Its name, a hex string.
            shape: Of one row.
            dtype: As stored.
            description: What it holds; on disk it is kept for people to read.

        Raises:
            ValueError: There is one of another shape or dtype.
        """
        check_key(key)
        with self._lock:
            if key not in self._columns:
                self._columns[key] = MemoryColumn(shape, dtype, self._take)
            column = self._columns[key]
        check_same(key, column, shape, dtype)
        return column

    def save_json(self, name: str, value: Any) -> None:
        """Stores a value.

        Args:
            name: Its name, which may hold one slash.
            value: Anything JSON has.
        """
        check_name(name)
        self._values[name] = json.dumps(value)

    def load_json(self, name: str) -> Any | None:
        """Gives a value back, or `None` where there is none.

        Args:
            name: Its name.
        """
        check_name(name)
        text = self._values.get(name)
        return None if text is None else json.loads(text)

    def names(self, prefix: str) -> list[str]:
        """Of the JSON values, sorted.

        Args:
            prefix: What they begin with.
        """
        return sorted(x for x in list(self._values) if x.startswith(prefix))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing to wait for: no other process sees this memory."""
        yield

    def room(self) -> int:
        """How many bytes may still be written."""
        if self.max_bytes is None:
            return sys.maxsize
        return max(0, self.max_bytes - self._taken)

    def close(self) -> None:
        """Lets go of columns, which frees their memory, and of values."""
        with self._lock:
            self._columns.clear()
            self._values.clear()
            self._taken = 0

    def _take(self, count: int) -> None:
        with self._lock:
            if count > self.room():
                raise CacheFull(
                    f"No room for cached features in memory: {count:,} bytes "
                    f"more are needed, {self.room():,} are left of "
                    f"max_bytes={self.max_bytes:,}."
                )
            self._taken += count


def check_key(key: str) -> None:
    """Keys become names of folders.

    Args:
        key: A column's key.

    Raises:
        ValueError: It is no hex string.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"A column's key is a hex string, not {key!r}.")


def check_name(name: str) -> None:
    """Names become names of files.

    Args:
        name: A JSON value's name.

    Raises:
        ValueError: It holds anything but letters, digits, `_-.` and one slash.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            "A value's name is letters, digits, '_', '-' and '.', with one "
            f"'/' at most, not {name!r}."
        )


def check_same(
    key: str, column: Column, shape: Sequence[int], dtype: Any
) -> None:
    """A key stands for one shape and dtype.

    Args:
        key: The column's key.
        column: What is there.
        shape: The shape that is asked for.
        dtype: The dtype that is asked for.

    Raises:
        ValueError: They differ.
    """
    asked = MemoryColumn(shape, dtype)
    if (column.shape, column.dtype) != (asked.shape, asked.dtype):
        raise ValueError(
            f"Column {key} holds rows of {column.dtype.name}{column.shape}, "
            f"but {asked.dtype.name}{asked.shape} is asked for."
        )
