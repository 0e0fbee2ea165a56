"""A store on disk, for this process and those that come after it."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_cascade.cache.storage.budget import Budget
from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.directory import VALUES, claim
from keras_cascade.cache.storage.disk_columns import DiskColumn
from keras_cascade.cache.storage.files import (
    checked_text,
    read_checked,
    write_small,
)
from keras_cascade.cache.storage.locking import WriterLock
from keras_cascade.cache.storage.stores import check_key, check_name, check_same

SHARD_BYTES = 32 * 2**20


def _say_nothing(message: str) -> None:
    pass


class DiskStore:
    """Columns and JSON values in a folder.

    A folder belongs to the store or is left alone. One process writes at a
    time; any may read meanwhile. What was finished stays, whatever happens to
    a process, and is checked when it is opened.

    Args:
        path: The folder; made if it is missing.
        max_bytes: What everything in the folder together may take. Defaults
            to `None`: what its disk has.
        shard_bytes: How much of a column is kept in memory until it is
            written. Defaults to 32 MiB.
        notify: Told, once each time, that another process is waited for.
            Defaults to saying nothing.

    Raises:
        ValueError: The folder holds something else, or features of another
            format. Nothing in it is touched.
        OSError: It cannot be read or made, or a file has its name.
    """

    def __init__(
        self,
        path: Path | str,
        max_bytes: int | None = None,
        shard_bytes: int = SHARD_BYTES,
        notify: Callable[[str], None] = _say_nothing,
    ):
        self.path = Path(path)
        claim(self.path)
        self._shard_bytes = shard_bytes
        self._notify = notify
        self._budget = Budget(self.path, max_bytes)
        self._writer = WriterLock.of(self.path)
        self._columns: dict[str, DiskColumn] = {}
        self._depth = 0
        self._lock = threading.RLock()

    def column(
        self, key: str, shape: Sequence[int], dtype: Any, description: dict
    ) -> DiskColumn:
        """Opens a column, whose files are checked, or makes it.

        Args:
            key: Its name, a hex string.
            shape: Of one row.
            dtype: As stored.
            description: What it holds, as JSON; kept for people to read.

        Raises:
            ValueError: There is one of another shape or dtype.
            OSError: A file of it cannot be read.
        """
        check_key(key)
        with self._lock:
            if key not in self._columns:
                self._columns[key] = DiskColumn(
                    self.path / key,
                    shape,
                    dtype,
                    description,
                    self._shard_bytes,
                    self._budget,
                    self._writer,
                )
            column = self._columns[key]
        check_same(key, column, shape, dtype)
        return column

    def save_json(self, name: str, value: Any) -> None:
        """Stores a value, all of it or nothing; also while others write.

        Args:
            name: Its name, which may hold one slash.
            value: Anything JSON has.

        Raises:
            CacheFull: There is no room for it.
        """
        path = self._value_path(name)
        text = checked_text(value)
        self._budget.check(len(text))
        with self._budget.writing(len(text)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_small(path, text)
        self._budget.count()

    def load_json(self, name: str) -> Any | None:
        """Gives a value back; `None` where there is none, or it is damaged.

        Args:
            name: Its name.
        """
        return read_checked(self._value_path(name))

    def names(self, prefix: str) -> list[str]:
        """Of the JSON values, sorted.

        Args:
            prefix: What they begin with.
        """
        folder = self.path / VALUES
        paths = (x.relative_to(folder) for x in folder.rglob("*.json"))
        names = (path.as_posix().removesuffix(".json") for path in paths)
        return sorted(name for name in names if name.startswith(prefix))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Waits for other processes, then lets this one append.

        On entry, columns take up what others have finished meanwhile, and
        what is damaged is removed. On leaving, they are finished. May be
        nested, and entered by several threads.

        Raises:
            CacheFull: On leaving, what is left has no room. It is dropped.
            OSError: Nothing can be written in the folder.
        """
        with self._writer.hold(self._notify):
            with self._lock:
                if self._depth == 0:
                    self._refresh()
                self._depth += 1
            well = False
            try:
                yield
                well = True
            finally:
                with self._lock:
                    self._depth -= 1
                    if self._depth == 0:
                        self._finish(raising=well)

    def room(self) -> int:
        """How many bytes may still be written."""
        return self._budget.room()

    def close(self) -> None:
        """Lets go of columns and their files."""
        with self._lock:
            self._columns.clear()

    def _value_path(self, name: str) -> Path:
        check_name(name)
        return self.path / VALUES / f"{name}.json"

    def _refresh(self) -> None:
        self._budget.count()
        for column in self._columns.values():
            column.refresh()

    def _finish(self, raising: bool) -> None:
        """Finishes all columns; another error on its way comes first."""
        errors = []
        for column in self._columns.values():
            try:
                column.finish()
            except CacheFull as error:
                column.drop_unfinished()
                errors.append(error)
        if raising and errors:
            raise errors[0]
