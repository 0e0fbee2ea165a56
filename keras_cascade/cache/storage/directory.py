"""The folder of a store: whose it is, and what killed writers left in it."""

import contextlib
import itertools
import json
import re
import shutil
from pathlib import Path

from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.files import (
    is_full,
    is_temporary,
    write_small,
)
from keras_cascade.cache.storage.shards import remove_shard, unfinished_numbers

MARKER = "keras_cascade_features.json"
# No hex string, so that it cannot be a column.
VALUES = "values"
PROGRAM, FORMAT = "keras_cascade", 1
_COLUMN = re.compile(r"[0-9a-f]+")


def claim(path: Path) -> None:
    """Makes a folder the store's, or finds that it is.

    Args:
        path: The folder; it may be missing, or empty.

    Raises:
        ValueError: It holds something else, or features of another format.
        CacheFull: Its disk is full.
        OSError: It cannot be read or made, or a file has its name.
    """
    try:
        if path.is_dir() and not all(map(_is_marker_to_be, path.iterdir())):
            _check_marker(path)
        else:
            _make(path)
    except OSError as error:
        raise no_use(path, error) from error


def remove_leftovers(path: Path) -> None:
    """Removes what writers left that were killed, while no other writes.

    Args:
        path: The folder.
    """
    columns = [x for x in path.iterdir() if _is_column(x)]
    places = [path.iterdir(), (path / VALUES).rglob("*")]
    places += [folder.iterdir() for folder in columns]
    for leftover in filter(is_temporary, itertools.chain(*places)):
        leftover.unlink(missing_ok=True)
    for folder in columns:
        for number in unfinished_numbers(folder):
            remove_shard(folder, number)


def no_use(path: Path, error: OSError) -> OSError:
    """The error that says of a folder that it is no place for features.

    Args:
        path: The folder.
        error: What the system said.
    """
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


def _is_marker_to_be(path: Path) -> bool:
    """What a process leaves that is killed while it makes a folder its own."""
    return path.name.startswith(f"{MARKER}.") and is_temporary(path)


def _make(path: Path) -> None:
    missing = [x for x in (path, *path.parents) if not x.exists()]
    made = False
    try:
        path.mkdir(parents=True, exist_ok=True)
        marker = {"program": PROGRAM, "format": FORMAT}
        write_small(path / MARKER, json.dumps(marker).encode())
        made = True
    finally:
        for folder in [] if made else missing:
            # What lies in one by now is not ours to remove.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _check_marker(path: Path) -> None:
    text = (path / MARKER).read_bytes() if (path / MARKER).exists() else None
    if text is None:
        raise ValueError(
            f"'{path}' holds other files, and no features of keras_cascade. "
            "Nothing in it was touched. Choose a new or an empty folder."
        )
    try:
        marker = json.loads(text)
    except ValueError:
        marker = None
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
    return folder.is_dir() and _COLUMN.fullmatch(folder.name) is not None
