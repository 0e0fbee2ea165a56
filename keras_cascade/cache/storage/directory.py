"""The folder of a store: its marker, and the leftovers of killed writers."""

import contextlib
import errno
import itertools
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.files import (
    is_folder,
    is_full,
    is_temporary,
    is_there,
    read_json,
    remove_file,
    write_small,
)
from keras_cascade.cache.storage.shards import remove_shard, unfinished_numbers

MARKER = "keras_cascade_features.json"
# No hex string, so that it cannot be the key of a column.
VALUES = "values"
PROGRAM, FORMAT = "keras_cascade", 1
_COLUMN = re.compile(r"[0-9a-f]+")


def claim(path: Path) -> None:
    """Marks a folder as a store, unless it is marked.

    Args:
        path: The folder; it may be missing, or empty.

    Raises:
        ValueError: It has other files, or features of another format.
        CacheFull: Its disk is full.
        OSError: It cannot be read or made, or a file has its name.
    """
    try:
        if path.is_dir() and not all(map(_is_marker_to_be, path.iterdir())):
            _check_marker(path)
        else:
            _make(path)
    except OSError as error:
        raise unusable(path, error) from error


def remove_leftovers(path: Path) -> None:
    """Removes the files that killed writers left, while nobody writes."""
    columns = [x for x in path.iterdir() if _is_column(x)]
    values = [path / VALUES, *filter(is_folder, _inside(path / VALUES))]
    places = map(_inside, (path, *values, *columns))
    for leftover in filter(is_temporary, itertools.chain(*places)):
        remove_file(leftover)
    for folder in columns:
        for number in unfinished_numbers(folder):
            remove_shard(folder, number)


def unusable(path: Path, error: OSError) -> OSError:
    """Returns an error that says why features cannot be kept in a folder."""
    if error.errno == errno.ENOENT:
        return CacheFull(
            f"'{path}', or a folder in it, was removed while features were "
            "kept there."
        )
    if is_full(error):
        place = next(x for x in (path, *path.parents) if x.exists())
        return CacheFull(
            f"No room for cached features in '{path}': making a file ended "
            f"with '{error.strerror}', and {shutil.disk_usage(place).free:,} "
            "bytes are free on its disk."
        )
    return type(error)(
        error.errno,
        f"Cannot keep features in '{path}': {error.strerror}. Choose a folder "
        "that can be written to, or one that does not exist yet",
    )


def check_folder(path: Path) -> None:
    """Raises an OSError for what has the name of a folder and is none.

    A link may lead anywhere: nothing is read, written or removed there.
    """
    if is_there(path) and not is_folder(path):
        raise OSError(
            errno.ENOTDIR,
            f"'{path}' is a link or a file where features are kept in a "
            "folder. Nothing was touched. Remove it, or choose another folder",
        )


def make_folder(path: Path) -> None:
    """Makes a folder of a store, whose parent is there."""
    check_folder(path)
    path.mkdir(exist_ok=True)


def _is_marker_to_be(path: Path) -> bool:
    """Whether a file is the leftover of a process killed in `claim`."""
    return path.name.startswith(f"{MARKER}.") and is_temporary(path)


def _make(path: Path) -> None:
    missing = [x for x in (path, *path.parents) if not x.exists()]
    with contextlib.ExitStack() as undo:
        undo.callback(_remove_empty, missing)
        path.mkdir(parents=True, exist_ok=True)
        marker = {"program": PROGRAM, "format": FORMAT}
        write_small(path / MARKER, json.dumps(marker).encode())
        undo.pop_all()


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        # Another process may have written to it by now.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_marker(path: Path) -> None:
    if not is_there(path / MARKER):
        raise ValueError(
            f"'{path}' holds other files, and no features of keras_cascade. "
            "Nothing in it was touched. Choose a new or an empty folder."
        )
    marker = read_json(path / MARKER)
    if not isinstance(marker, dict) or marker.get("program") != PROGRAM:
        raise ValueError(
            f"'{path / MARKER}' was not written by keras_cascade. Nothing was "
            "touched. Choose a new or an empty folder."
        )
    if marker.get("format") != FORMAT:
        raise ValueError(
            f"'{path}' holds features in format {marker.get('format')!r}, of "
            f"another version of keras_cascade; this one has format {FORMAT}. "
            "Nothing was touched. Choose another folder, or remove this one."
        )


def _is_column(folder: Path) -> bool:
    return is_folder(folder) and _COLUMN.fullmatch(folder.name) is not None


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if is_folder(folder) else []
