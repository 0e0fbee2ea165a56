"""The bytes that may still be written in a folder."""

import contextlib
import shutil
import stat
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.directory import unusable
from keras_cascade.cache.storage.files import is_full

_STAYS = "What was stored before stays valid."


class Budget:
    """The bytes that may still be written, by a limit and by the disk."""

    def __init__(self, path: Path, max_bytes: int | None):
        self._path = path
        self._max_bytes = max_bytes
        self._reserved: weakref.WeakKeyDictionary[object, int] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()
        self.count()

    def count(self) -> None:
        """Counts the bytes of all files that are there by now."""
        self._taken = sum(map(_size, self._path.rglob("*")))

    def room(self) -> int:
        """Returns the bytes that are neither taken nor reserved."""
        try:
            left, _ = self._left()
        except CacheFull:  # the folder was removed
            return 0
        return max(0, left - sum(self._reserved.values()))

    def reserve(self, owner: object, count: int) -> None:
        """Sets how many bytes an owner is going to write in all.

        Raises:
            CacheFull: There is no room for them. Less than before always has
                room.
        """
        with self._lock:
            more = count - self._reserved.get(owner, 0)
            if more > 0:
                self.check(more)
            self._reserved[owner] = count

    def written(self, owner: object, reserved: int, count: int) -> None:
        """Counts bytes as written, and fewer as reserved by their owner."""
        with self._lock:
            left = self._reserved.get(owner, 0) - reserved
            self._reserved[owner] = max(0, left)
            self._taken += count

    def check(self, needed: int) -> None:
        """Raises `CacheFull` if some bytes have no room."""
        room = self.room()
        if needed > room:
            _, what = self._left()
            raise CacheFull(
                f"No room for cached features in '{self._path}': {needed:,} "
                f"bytes more are needed, {room:,} are left of {what}. "
                f"{_STAYS}"
            )

    @contextlib.contextmanager
    def writing(self, needed: int) -> Iterator[None]:
        """Raises `CacheFull` where the system says that the disk is full."""
        try:
            yield
        except CacheFull:
            raise
        except OSError as error:
            if not is_full(error):
                raise unusable(self._path, error) from error
            free = shutil.disk_usage(self._path).free
            raise CacheFull(
                f"No room for cached features in '{self._path}': writing "
                f"{needed:,} bytes ended with '{error.strerror}', and {free:,} "
                f"are free on its disk. {_STAYS}"
            ) from error

    def _left(self) -> tuple[int, str]:
        try:
            free = shutil.disk_usage(self._path).free
        except FileNotFoundError as error:
            raise unusable(self._path, error) from error
        if self._max_bytes is None or self._max_bytes - self._taken > free:
            return free, "its disk"
        return self._max_bytes - self._taken, f"max_bytes={self._max_bytes:,}"


def _size(path: Path) -> int:
    # Another process may remove its temporary file meanwhile.
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
