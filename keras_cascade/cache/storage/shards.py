"""Shards: rows and their identifiers, in files that never change.

`000007.npy` has rows, `000007.ids.npy` their identifiers. The record
`000007.json` has their number and both files' sizes and checksums. It is
written last, and makes them a shard: files without it are ignored.
"""

import contextlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_cascade.cache.storage.files import (
    checked_text,
    read_checked,
    write_whole,
)
from keras_cascade.cache.storage.identifiers import IDS

# More than the headers of both arrays and the record take.
OVERHEAD_BYTES = 1024
_FILE = re.compile(r"(\d{6,})\.(json|npy|ids\.npy)")
# Of 256 MiB on one core: crc32 3.8 GB/s, sha1 1.8, sha256 1.5, blake2b 0.9.
_CHUNK_BYTES = 2**20


class Shard(NamedTuple):
    """The contents of a shard; its rows are mapped to memory, not read."""

    ids: np.ndarray
    rows: np.ndarray


def write_shard(
    folder: Path, number: int, ids: np.ndarray, rows: np.ndarray
) -> int:
    """Writes a shard under a new number, and returns the bytes of its files.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(remove_shard, folder, number)
        paths = _arrays(folder, number)
        files = {
            path.name: _write_array(path, array)
            for path, array in zip(paths, (rows, ids), strict=True)
        }
        record = checked_text({"rows": len(ids), "files": files})
        write_whole(_record(folder, number), [record])
        undo.pop_all()
    return len(record) + sum(file["bytes"] for file in files.values())


def map_rows(folder: Path, number: int, dtype: np.dtype) -> np.ndarray:
    """Returns the rows of a shard that this process has written itself."""
    return _mapped(_arrays(folder, number)[0]).view(dtype)


def open_shard(
    folder: Path, number: int, shape: tuple[int, ...], dtype: np.dtype
) -> Shard | None:
    """Returns a shard, or None if any byte of it is not as it was written.

    Raises:
        OSError: A file is there that cannot be read.
    """
    record: Any = read_checked(_record(folder, number))
    paths = _arrays(folder, number)
    try:
        count = record["rows"]
        for path in paths:
            if _checksum(path) != record["files"][path.name]:
                return None
        # `open_memmap` never unpickles: arrays of objects are refused.
        rows, ids = map(_mapped, paths)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    if (rows.shape, rows.dtype) != ((count, *shape), _stored(dtype)):
        return None
    if (ids.shape, ids.dtype) != ((count,), IDS):
        return None
    return Shard(np.array(ids), rows.view(dtype))


def remove_shard(folder: Path, number: int) -> None:
    """Removes the files of a shard, as far as they are there."""
    # The record first: without it the others are no shard any more.
    for path in (_record(folder, number), *_arrays(folder, number)):
        path.unlink(missing_ok=True)


def shard_numbers(folder: Path) -> list[int]:
    """Returns the shards of a column, which need not have a folder, sorted."""
    found = _files(folder)
    return sorted(number for number, kind in found if kind == "json")


def unfinished_numbers(folder: Path) -> set[int]:
    """Returns the numbers of files that are no shard, for lack of a record."""
    return {number for number, _ in _files(folder)} - {*shard_numbers(folder)}


def _files(folder: Path) -> Iterator[tuple[int, str]]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = _FILE.fullmatch(path.name)
        if match:
            yield int(match[1]), match[2]


def _record(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _arrays(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:06d}.npy", folder / f"{number:06d}.ids.npy"


def _write_array(path: Path, array: np.ndarray) -> dict[str, int]:
    """Writes a .npy file, and returns its size and checksum."""
    # NumPy's own writer does not report a full disk.
    stored = np.ascontiguousarray(array).view(_stored(array.dtype))
    header = io.BytesIO()
    described = np.lib.format.header_data_from_array_1_0(stored)
    np.lib.format.write_array_header_1_0(header, described)
    values = stored.reshape(-1).view(np.uint8).data
    checksum = write_whole(path, [header.getvalue(), values])
    return {"bytes": header.tell() + values.nbytes, "crc32": checksum}


def _stored(dtype: np.dtype) -> np.dtype:
    """Returns the dtype of the file that stores the bits of a dtype."""
    # NumPy's files have no bfloat16 and its kin.
    if dtype == IDS or dtype.isbuiltin == 1:
        return dtype
    return np.dtype(f"u{dtype.itemsize}")


def _checksum(path: Path) -> dict[str, int]:
    checksum = 0
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(chunk):
            checksum = zlib.crc32(chunk[:count], checksum)
        return {"bytes": stream.tell(), "crc32": checksum}


def _mapped(path: Path) -> np.ndarray:
    # A plain array, since indexing a memmap takes several times as long.
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))
