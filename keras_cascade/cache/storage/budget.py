"""What may still be written in a folder."""

import contextlib
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.files import is_full

_STAYS = "What was stored before stays valid."


class Budget:
    """What may still be written in a folder, by a limit and by its disk.

    Args:
        path: The folder.
        max_bytes: What everything in it together may take. `None`: anything.
    """

    def __init__(self, path: Path, max_bytes: int | None):
        self._path = path
        self._max_bytes = max_bytes
        self._reserved: weakref.WeakKeyDictionary[object, int] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()
        self.count()

    def count(self) -> None:
        """Looks what is there by now."""
        sizes = (_size(path) for path in self._path.rglob("*"))
        self._taken = sum(sizes)

    def room(self) -> int:
        """Bytes that are neither taken nor reserved."""
        left, _ = self._left()
        return max(0, left - sum(self._reserved.values()))

    def reserve(self, owner: object, count: int) -> None:
        """Sets what an owner is going to write.

        Args:
            owner: Whoever writes.
            count: Its bytes in all; less than before always passes.

        Raises:
            CacheFull: There is no room for them.
        """
        with self._lock:
            more = count - self._reserved.get(owner, 0)
            if more > 0:
                self.check(more)
            self._reserved[owner] = count

    def written(self, owner: object, reserved: int, count: int) -> None:
        """Tells that a part of what was reserved is written now.

        Args:
            owner: Who has written.
            reserved: How much of what it had reserved that was.
            count: What it takes.
        """
        with self._lock:
            left = self._reserved.get(owner, 0) - reserved
            self._reserved[owner] = max(0, left)
            self._taken += count

    def check(self, needed: int) -> None:
        """Whether something has room.

        Args:
            needed: Its bytes.

        Raises:
            CacheFull: It has not.
        """
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
        """Says of a disk that turns out to be full what is there.

        Args:
            needed: How many bytes are written.

        Raises:
            CacheFull: The disk is full, or a quota used up.
        """
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            free = shutil.disk_usage(self._path).free
            raise CacheFull(
                f"No room for cached features in '{self._path}': writing "
                f"{needed:,} bytes ended with '{error.strerror}', and {free:,} "
                f"are free on its disk. {_STAYS}"
            ) from error

    def _left(self) -> tuple[int, str]:
        free = shutil.disk_usage(self._path).free
        if self._max_bytes is None or self._max_bytes - self._taken > free:
            return free, "its disk"
        return self._max_bytes - self._taken, f"max_bytes={self._max_bytes:,}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
