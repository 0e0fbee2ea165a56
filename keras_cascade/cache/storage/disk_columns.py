"""A column on disk: finished shards, and a buffer that becomes the next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from keras_cascade.cache.storage.budget import Budget
from keras_cascade.cache.storage.columns import Column
from keras_cascade.cache.storage.directory import check_folder, make_folder
from keras_cascade.cache.storage.files import (
    checked_text,
    read_checked,
    write_small,
)
from keras_cascade.cache.storage.identifiers import IDS
from keras_cascade.cache.storage.locking import WriterLock
from keras_cascade.cache.storage.shards import (
    OVERHEAD_BYTES,
    Mapped,
    Shard,
    map_rows,
    open_shard,
    remove_shard,
    shard_numbers,
    unfinished_numbers,
    write_shard,
)

MANIFEST = "column.json"


class _Stored(NamedTuple):
    """The rows of a column: finished shards, and rows waiting in the buffer.

    It is replaced as a whole, so that an interrupt leaves the old or the new.
    """

    shards: tuple[Mapped, ...] = ()
    finished: int = 0
    waiting: int = 0


class DiskColumn(Column):
    """A column in a folder.

    The folder need not be there. Other arguments are as in `Store.column` and
    `DiskStore`.

    Raises:
        ValueError: There is one of another shape or dtype.
        OSError: A file of it cannot be read, or it is a link.
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        dtype: DTypeLike,
        description: dict[str, Any],
        shard_bytes: int,
        budget: Budget,
        writer: WriterLock,
    ):
        super().__init__(shape, dtype)
        self.path = path
        self._budget = budget
        self._writer = writer
        self._shard_rows = max(1, shard_bytes // self.row_bytes)
        self._stored = _Stored()
        self._known: set[int] = set()
        self._buffer: tuple[np.ndarray, np.ndarray] | None = None
        self._left_out: set[int] = set()
        self._manifest = checked_text(
            {
                "shape": list(self.shape),
                "dtype": self.dtype.name,
                "description": description,
            }
        )
        check_folder(path)
        self._check_manifest()
        self.refresh()

    def __len__(self) -> int:
        return self._stored.finished + self._stored.waiting

    def refresh(self) -> None:
        """Takes up shards that others have finished; removes damaged ones.

        Only a process that may write removes them. Nothing is taken up while
        rows wait in the buffer, since their positions come last.
        """
        with self._lock:
            if self._stored.waiting:
                return
            numbers = {*shard_numbers(self.path)} - self._known
            found = {number: self._open(number) for number in sorted(numbers)}
            self._take_up({n: x for n, x in found.items() if x is not None})
            self.damaged = len(self._left_out)

    def finish(self) -> None:
        """Writes the rows in the buffer as a last, shorter shard.

        Raises:
            CacheFull: The disk is full. The rows stay in memory.
            RuntimeError: Outside of the store's `writing()`.
        """
        with self._lock:
            if self._stored.waiting:
                self._check_writer()
                self._write_buffer()
            self._buffer = None

    def drop_unfinished(self) -> None:
        """Forgets the rows that are in no shard yet."""
        with self._lock:
            # The index first, so that all that it finds is there.
            self._index.truncate(self._stored.finished)
            self._stored = self._stored._replace(waiting=0)
            self._buffer = None
            self._budget.reserve(self, 0)

    def _add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        self._check_writer()
        self._budget.reserve(self, self._cost(self._stored.waiting + len(ids)))
        try:
            # A shard that could not be written waits in a full buffer.
            self._write_buffer_if_full()
            while len(ids):
                count = min(len(ids), self._shard_rows - self._stored.waiting)
                self._fill(ids[:count], rows[:count])
                ids, rows = ids[count:], rows[count:]
                self._write_buffer_if_full()
        finally:
            self._budget.reserve(self, self._cost(self._stored.waiting))

    def _segments(self) -> list[np.ndarray]:
        shards, _, waiting = self._stored
        found = [shard.read() for shard in shards]
        if waiting and self._buffer is not None:
            found.append(self._buffer[1][:waiting])
        return found

    def _open(self, number: int) -> Shard | None:
        # Asked before reading: a shard that was damaged when this process
        # could not write may have been replaced since.
        removing = self._writer.is_held
        shard = open_shard(self.path, number, self.shape, self.dtype)
        if shard is not None:
            self._left_out.discard(number)
            return shard
        self._left_out.add(number)
        if removing:
            remove_shard(self.path, number)
        return None

    def _take_up(self, shards: dict[int, Shard]) -> None:
        if not shards:
            return
        ids = np.concatenate([shard.ids for shard in shards.values()])
        position = len(self)
        self._stored = _Stored(
            (*self._stored.shards, *(x.rows for x in shards.values())),
            position + len(ids),
        )
        self._known.update(shards)
        self._index.add(ids, position)

    def _fill(self, ids: np.ndarray, rows: np.ndarray) -> None:
        if self._buffer is None:
            self._buffer = (
                np.empty(self._shard_rows, IDS),
                np.empty((self._shard_rows, *self.shape), self.dtype),
            )
        position, waiting = len(self), self._stored.waiting + len(ids)
        part = slice(self._stored.waiting, waiting)
        self._buffer[0][part] = ids
        self._buffer[1][part] = rows
        # Counted before the index finds them, as in MemoryColumn.
        self._stored = self._stored._replace(waiting=waiting)
        self._index.add(ids, position)

    def _write_buffer_if_full(self) -> None:
        if self._stored.waiting == self._shard_rows:
            self._write_buffer()

    def _write_buffer(self) -> None:
        shards, finished, waiting = self._stored
        ids, rows = (x[:waiting] for x in self._buffer or ())
        cost = self._cost(waiting)
        with self._writer.committing, self._budget.writing(cost):
            written = self._write_manifest()
            number = self._next_number()
            written += write_shard(self.path, number, ids, rows)
            mapped = map_rows(self.path, number, rows.shape, self.dtype)
        self._known.add(number)
        self._stored = _Stored((*shards, mapped), finished + waiting)
        self._budget.written(self, cost, written)

    def _next_number(self) -> int:
        taken = (*shard_numbers(self.path), *unfinished_numbers(self.path))
        return max(taken, default=-1) + 1

    def _cost(self, rows: int) -> int:
        """Returns the bytes on disk of rows that are not written yet."""
        shards = -(-rows // self._shard_rows)
        manifest = 0 if self._described or not rows else len(self._manifest)
        return rows * self.row_bytes + shards * OVERHEAD_BYTES + manifest

    def _check_writer(self) -> None:
        if not self._writer.is_held:
            raise RuntimeError(
                f"Rows are appended to '{self.path}' within the store's "
                "writing() only."
            )

    def _write_manifest(self) -> int:
        if self._described:
            return 0
        make_folder(self.path)
        write_small(self.path / MANIFEST, self._manifest)
        self._described = True
        return len(self._manifest)

    def _check_manifest(self) -> None:
        """Raises a ValueError if the folder is of another shape or dtype."""
        found = read_checked(self.path / MANIFEST)
        asked = {"shape": list(self.shape), "dtype": self.dtype.name}
        # A damaged one is written again: this object knows all it says.
        self._described, there = False, asked
        if isinstance(found, dict) and asked.keys() <= {*found}:
            self._described = True
            there = {x: found[x] for x in asked}
        if there != asked:
            raise ValueError(
                f"'{self.path}' holds rows of {there}, but {asked} is asked "
                "for."
            )
