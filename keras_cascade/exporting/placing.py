"""A file under its final name is a whole file."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """A folder beside a file to be, gone when the work ends.

    It is on the file's own disk, so that what is ready can be moved to its
    place at once.

    Args:
        path: The file to be.

    Raises:
        OSError: If nothing can be written there, or the disk is full.
    """
    parent = path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=parent, prefix=f".{path.name}-")
    except OSError as error:
        raise type(error)(
            error.errno,
            f"Cannot write to the folder of '{path}': {error.strerror}. Make "
            "the folder, or choose another path",
        ) from error
    try:
        with telling_of_full_disks(path):
            yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def telling_of_full_disks(path: Path) -> Iterator[None]:
    """Says of a full disk what was being written, and how much is free."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            error.errno,
            f"The disk is full: writing '{path}' needs more than the "
            f"{free:,} bytes that are free. Nothing was left behind",
        ) from error


def put(staged: Path, path: Path) -> None:
    """Moves a file or folder to its place, over an earlier one.

    Args:
        staged: What is ready, in the workspace of `path`.
        path: Its place.
    """
    if path.exists() and (path.is_dir() or staged.is_dir()):
        # Unlike files, folders cannot be replaced in one step.
        earlier = staged.with_name("earlier")
        path.rename(earlier)
        try:
            staged.rename(path)
        except OSError:
            earlier.rename(path)
            raise
        return
    _to_disk(staged)
    staged.replace(path)


def _to_disk(path: Path) -> None:
    """What a power cut leaves is the old file or the new one."""
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
