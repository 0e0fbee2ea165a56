"""A file under its final name is a whole file."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """A folder beside a file to be, gone when the work ends.

    It is on the file's own disk, so that what is ready can be moved to its
    place at once. Folders that are made on the way go as well where nothing
    comes to lie in them.

    Args:
        path: The file to be.

    Raises:
        OSError: If nothing can be written there, or the disk is full; or a
            folder of the user's is there, with other things in it.
    """
    check_replaceable(path)
    made = _missing_parents(path)
    folder = _make_folder(path)
    with _TellingOfFullDisks(path):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _remove_empty(made)


def check_replaceable(path: Path) -> None:
    """Keeps folders that hold something else from being replaced.

    Args:
        path: Where something is to be put.

    Raises:
        FileExistsError: A folder is there that is no SavedModel.
    """
    if not path.is_dir() or (path / "saved_model.pb").is_file():
        return
    if any(path.iterdir()):
        raise FileExistsError(
            errno.EEXIST,
            f"'{path}' is a folder with other files in it, which would be "
            f"lost. Write to a new name, such as '{path / 'model'}', or "
            "remove the folder",
        )


def put(staged: Path, path: Path) -> None:
    """Moves a file or folder to its place, over an earlier one.

    Args:
        staged: What is ready, in the workspace of `path`.
        path: Its place.
    """
    check_replaceable(path)
    _to_disk(staged)
    if not os.path.lexists(path) or not (path.is_dir() or staged.is_dir()):
        staged.replace(path)
        return
    # Unlike files, folders cannot be replaced in one step.
    earlier = staged.with_name(f"{staged.name}.earlier")
    path.rename(earlier)
    try:
        staged.rename(path)
    except OSError:
        earlier.rename(path)
        raise


class _TellingOfFullDisks:
    """Says of a full disk what was being written, and how much is free.

    Whatever the error: h5py and TensorFlow have the system's words in errors
    of their own, and so has a child process.
    """

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        number = _full_disk(error)
        if number is None:
            return
        place = next(x for x in self._path.parents if x.is_dir())
        free = shutil.disk_usage(place).free
        raise OSError(
            number,
            f"The disk is full: writing '{self._path}' needs more than the "
            f"{free:,} bytes that are free. Nothing was left behind",
        ) from error


def _full_disk(error: BaseException | None) -> int | None:
    """The system's number for a full disk, if that is what an error is of."""
    own = getattr(error, "errno", None)
    if own in _FULL:
        return own
    told = [x for x in _FULL if error and os.strerror(x) in str(error)]
    return told[0] if told else None


def _missing_parents(path: Path) -> list[Path]:
    """The folders that are to be made, the innermost first."""
    return [x for x in path.parents if not os.path.lexists(x)]


def _make_folder(path: Path) -> Path:
    made = _missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        _remove_empty(made)
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
        # What lies in one by now is not ours to remove.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _to_disk(staged: Path) -> None:
    """What a power cut leaves is the old file or the new one."""
    for path in (staged, *staged.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
