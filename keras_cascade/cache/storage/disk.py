"""A store on disk, for this process and those that come after it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_cascade.cache.storage.budget import Budget
from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.directory import (
    VALUES,
    check_folder,
    claim,
    make_folder,
)
from keras_cascade.cache.storage.disk_columns import DiskColumn
from keras_cascade.cache.storage.files import (
    checked_text,
    read_checked,
    write_small,
)
from keras_cascade.cache.storage.locking import WriterLock
from keras_cascade.cache.storage.stores import Store, check_name

SHARD_BYTES = 32 * 2**20


def _say_nothing(message: str) -> None:
    pass


class DiskStore(Store[DiskColumn]):
    """Columns and JSON values in a folder.

    A folder belongs to the store or is left alone. One process writes at a
    time; any may read meanwhile. Finished rows stay, whatever happens to a
    process, and are checked when they are opened.

    Args:
        path: The folder; made if it is missing.
        max_bytes: What everything in the folder together may take. Defaults
            to `None`: what its disk has.
        shard_bytes: How much of a column is kept in memory until it is
            written. Defaults to 32 MiB.
        notify: Called with a message, once each time, when another process is
            waited for. Defaults to saying nothing.

    Raises:
        ValueError: The folder has other files, or features of another
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
        super().__init__(
            lambda key, shape, dtype, description: DiskColumn(
                self.path / key,
                shape,
                dtype,
                description,
                shard_bytes,
                self._budget,
                self._writer,
            )
        )
        self.path = Path(path)
        claim(self.path)
        self._notify = notify
        self._budget = Budget(self.path, max_bytes)
        self._writer = WriterLock.of(self.path)
        self._depth = 0

    def save_json(self, name: str, value: object) -> None:
        """Stores a value, all of it or nothing; also while others write."""
        path = self._value_path(name)
        text = checked_text(value)
        # Values are small: their bytes are counted, not reserved.
        self._budget.check(len(text))
        with self._budget.writing(len(text)):
            # Values have one folder above them, or two.
            for folder in dict.fromkeys((self.path / VALUES, path.parent)):
                make_folder(folder)
            write_small(path, text)
        self._budget.count()

    def load_json(self, name: str) -> Any | None:
        """Returns a value or None, as in `Store`."""
        path = self._value_path(name)
        for folder in (self.path / VALUES, path.parent):
            check_folder(folder)
        return read_checked(path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Waits for other processes, then lets this one append.

        On entry, columns take up the rows that others have finished
        meanwhile, and damaged files are removed. On leaving, columns are
        finished. May be nested, and entered by several threads.

        Raises:
            CacheFull: On leaving, rows that are left have no room. They are
                dropped.
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
        """Returns how many bytes may still be written."""
        return self._budget.room()

    def _value_path(self, name: str) -> Path:
        check_name(name)
        return self.path / VALUES / f"{name}.json"

    def _refresh(self) -> None:
        self._budget.count()
        for column in self._columns.values():
            column.refresh()

    def _finish(self, raising: bool) -> None:
        """Finishes all columns; raises unless another error is on its way."""
        errors = []
        for column in self._columns.values():
            try:
                column.finish()
            except CacheFull as error:
                column.drop_unfinished()
                errors.append(error)
        if raising and errors:
            raise errors[0]
