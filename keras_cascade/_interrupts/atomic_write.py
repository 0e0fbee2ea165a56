"""Moves files and folders to their final names only when they are complete.

A writer that is killed leaves its hidden folder, with the operating system's
lock on a file in it released. The next writer to the same place deletes it.
"""

import contextlib
import errno
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

# A folder with this file is one of ours, and its writer lives while it is
# locked.
_LOCK = "keras_cascade_writer.lock"
# The last one: the file system, or a limit of the process, takes no such file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Yields a folder beside a future file, and deletes it afterwards.

    The folder is on the file's own disk, so that a finished file can be moved
    to its place at once. Parent folders that it needed are deleted as well if
    they are still empty.

    Raises:
        OSError: Nothing can be written there, the disk is full, or a folder
            with other files is in the way.
    """
    _check_replaceable(path)
    with contextlib.ExitStack() as stack:
        # What is pushed last runs first: the free bytes are counted at the end.
        stack.push(partial(_explain_full_disk, path))
        missing = [x for x in path.parents if not os.path.lexists(x)]
        stack.callback(_remove_empty, missing)
        _remove_abandoned(path)
        folder = _make_folder(path)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_shown_alive(folder))
        yield folder


def data_file(path: Path) -> Path:
    """Returns the file for the data that does not fit into a file."""
    return path.with_name(f"{path.name}.data")


def move_into_place(staged: Path, path: Path) -> None:
    """Moves a finished file or folder to its place, over an earlier one.

    Args:
        staged: The file or folder, in the workspace of `path`. Its data file
            moves with it.
        path: Its place.
    """
    _check_replaceable(path)
    # After a power cut, the old file or the new one is there.
    for part in (staged, data_file(staged), *staged.rglob("*")):
        if part.is_file():
            _sync(part)
    if path.is_file() and not path.is_symlink():
        _copy_permissions(path, staged)
    if data_file(staged).is_file():
        _swap_pair(staged, path)
    elif not os.path.lexists(path) or not (path.is_dir() or staged.is_dir()):
        had_data = _has_data(path)
        staged.replace(path)
        if had_data:
            data_file(path).unlink()
    else:
        _swap(staged, path)
    with contextlib.suppress(OSError):  # Windows opens no folders
        _sync(path.parent)


def _swap(staged: Path, path: Path) -> None:
    # Unlike files, folders cannot be replaced in one step. `_restore` knows
    # the name.
    earlier = staged.with_name(f"{path.name}.earlier")
    path.rename(earlier)
    try:
        staged.rename(path)
    finally:
        if not os.path.lexists(path):
            earlier.rename(path)


def _swap_pair(staged: Path, path: Path) -> None:
    """Moves a file and its data file to their places.

    The earlier file leaves first and the new one comes last, so that a file is
    never beside the data of another one. `_restore` knows the folder's name.
    """
    earlier = staged.with_name(f"{path.name}.earlier_pair")
    earlier.mkdir()
    try:
        for old in (path, data_file(path)):
            if os.path.lexists(old):
                old.rename(earlier / old.name)
        data_file(staged).rename(data_file(path))
        staged.rename(path)
    finally:
        if not os.path.lexists(path):
            _restore_pair(earlier, path)


def _restore_pair(earlier: Path, path: Path) -> None:
    data, old_data = data_file(path), earlier / data_file(path).name
    if old_data.exists():
        old_data.replace(data)
    elif not earlier.with_name(data.name).exists():
        # The new data has left the workspace, and its file never came.
        data.unlink(missing_ok=True)
    if os.path.lexists(earlier / path.name):
        (earlier / path.name).rename(path)


def _has_data(path: Path) -> bool:
    """Returns whether a file refers to the data file beside it."""
    if not (path.is_file() and data_file(path).is_file()):
        return False
    with path.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(data_file(path).name.encode()) >= 0


def _sync(path: Path) -> None:
    """Waits until a file or a folder's list of names is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _copy_permissions(earlier: Path, staged: Path) -> None:
    known = earlier.stat()
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):
            os.chown(staged, known.st_uid, known.st_gid)
    if staged.is_file():
        staged.chmod(stat.S_IMODE(known.st_mode))


@contextlib.contextmanager
def _shown_alive(folder: Path) -> Iterator[None]:
    """Holds a lock that the operating system releases if this process dies."""
    lock = FileLock(folder / _LOCK)
    # Without locks, as on some network disks, other writers delete nothing.
    with contextlib.suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_abandoned(path: Path) -> None:
    """Deletes the folders of dead writers in the folder of a path."""
    for folder in path.parent.glob(f".*-{'?' * 8}"):
        if folder.is_symlink() or not folder.is_dir():
            continue
        if (folder / _LOCK).is_file():
            _remove_if_dead(folder)
        elif folder.name[:-8] == f".{path.name}-":
            # Killed before it wrote anything; a living writer makes it again.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _remove_if_dead(folder: Path) -> None:
    try:
        with FileLock(folder / _LOCK, blocking=False):
            _restore(folder)
    except (Timeout, OSError, NotImplementedError):
        return
    shutil.rmtree(folder, ignore_errors=True)


def _restore(folder: Path) -> None:
    """Moves back what a writer had moved away when it was killed."""
    for earlier in folder.rglob("*.earlier"):
        path = folder.with_name(earlier.name.removesuffix(".earlier"))
        if not os.path.lexists(path):
            earlier.rename(path)
    for earlier in folder.rglob("*.earlier_pair"):
        path = folder.with_name(earlier.name.removesuffix(".earlier_pair"))
        if not os.path.lexists(path):
            _restore_pair(earlier, path)


def _check_replaceable(path: Path) -> None:
    """Raises a FileExistsError for a folder that is no SavedModel."""
    if not path.is_dir() or (path / "saved_model.pb").is_file():
        return
    if any(path.iterdir()):
        raise FileExistsError(
            errno.EEXIST,
            f"'{path}' is a folder with other files in it, which would be "
            f"lost. Write to a new name, such as '{path / 'model'}', or "
            "remove the folder",
        )


def _make_folder(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise _cannot_write(path, error) from error
    return Path(folder)


def _cannot_write(path: Path, error: OSError) -> OSError:
    files = [x for x in path.parents if x.exists() and not x.is_dir()]
    if files:
        return NotADirectoryError(
            errno.ENOTDIR,
            f"Cannot write '{path}': '{files[-1]}' is no folder. Choose "
            "another path",
        )
    return type(error)(
        error.errno,
        f"Cannot write to the folder of '{path}': {error.strerror}. Choose "
        "another path, or make its folder one that can be written to",
    )


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        # The finished file, or another program's, may be in there.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _explain_full_disk(
    path: Path,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Raises an OSError with the free bytes if an error reports a full disk.

    The arguments after the path are those of `__exit__`.
    """
    number = getattr(error, "errno", None)
    if number not in _FULL:
        # h5py, TensorFlow and child processes report a full disk in errors of
        # their own, with the system's words.
        reported = (x for x in _FULL if os.strerror(x) in str(error))
        number = next(reported, None)
    if number is None:
        return
    place = next(x for x in path.parents if x.is_dir())
    free = shutil.disk_usage(place).free
    why = (
        f"'{path}' would be larger than files can be there."
        if number == errno.EFBIG
        else f"The disk is full: writing '{path}' needs more than the {free:,} "
        "bytes that are free."
    )
    raise OSError(number, f"{why} Nothing was left behind") from error
