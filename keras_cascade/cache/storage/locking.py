"""The lock of the process that writes in a folder."""

import contextlib
import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from keras_cascade.cache.storage.directory import remove_leftovers, unusable
from keras_cascade.cache.storage.files import is_file, is_there

LOCK = "writing.lock"


class WriterLock:
    """Lets one process at a time write in a folder.

    All stores of one process on one folder share the lock, which the process
    can hold many times at once. The operating system takes it from a process
    that dies.
    """

    @classmethod
    def of(cls, path: Path) -> "WriterLock":
        """Returns the lock of a folder in this process."""
        key = os.path.realpath(path)
        with _SHARING:
            lock = _LOCKS.get(key) or cls(Path(key))
            _LOCKS[key] = lock
        return lock

    def __init__(self, path: Path):
        self._path = path
        # All threads of the process hold it: a loader may read in its own.
        self._file = FileLock(path / LOCK, thread_local=False)
        self._entering = threading.Lock()
        self._holders = 0
        # Held while a shard takes a number that no other has.
        self.committing = threading.Lock()

    @property
    def is_held(self) -> bool:
        """Whether this process may write."""
        return self._holders > 0

    @contextlib.contextmanager
    def hold(self, notify: Callable[[str], None]) -> Iterator[None]:
        """Waits for other processes to end, and keeps them waiting.

        Args:
            notify: Called with a message if there is a process to wait for.

        Raises:
            OSError: Nothing can be written in the folder.
        """
        with self._entering:
            if self._holders == 0:
                self._acquire(notify)
            self._holders += 1
        try:
            yield
        finally:
            with self._entering:
                self._holders -= 1
                if self._holders == 0:
                    self._file.release()

    def _acquire(self, notify: Callable[[str], None]) -> None:
        try:
            self._check()
            try:
                self._file.acquire(blocking=False)
            except Timeout:
                notify(
                    f"Another process is writing features to '{self._path}': "
                    "waiting for it to end."
                )
                self._file.acquire()
        except OSError as error:
            raise unusable(self._path, error) from error
        with contextlib.ExitStack() as undo:
            undo.callback(self._file.release)
            remove_leftovers(self._path)
            undo.pop_all()

    def _check(self) -> None:
        """Raises an OSError where locking would make or empty other files."""
        if not self._path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such folder")
        lock = self._path / LOCK
        if is_there(lock) and not is_file(lock):
            raise OSError(errno.EINVAL, f"its '{LOCK}' is no file")


# One for each folder, as long as a store of this process uses it.
_LOCKS: weakref.WeakValueDictionary[str, WriterLock] = (
    weakref.WeakValueDictionary()
)
_SHARING = threading.Lock()
