"""Shards: rows and their identifiers, in files that never change.

`000007.npy` has rows, `000007.ids.npy` their identifiers. The record
`000007.json` has their number and both files' sizes and checksums. It is
written last, and makes them a shard: files without it are ignored.
"""

import contextlib
import errno
import io
import math
import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_cascade.cache.storage.files import (
    checked_text,
    is_folder,
    open_file,
    read_checked,
    remove_file,
    size_of,
    write_whole,
)
from keras_cascade.cache.storage.identifiers import IDS

# More than the headers of both arrays and the record take.
OVERHEAD_BYTES = 1024
_FILE = re.compile(r"([0-9]{6,15})\.(json|npy|ids\.npy)")
# A writer ends a shard at 32 MiB, or at one row.
_MOST_BYTES = 2**30
# Of 256 MiB on one core: crc32 3.8 GB/s, sha1 1.8, sha256 1.5, blake2b 0.9.
_CHUNK_BYTES = 2**20


class Mapped(NamedTuple):
    """An array in a file that is mapped to memory, not read."""

    array: np.ndarray
    path: Path
    file: mmap.mmap

    def read(self) -> np.ndarray:
        """Returns the array, if all of it is in its file still.

        To read beyond the end of a mapped file would end the whole process.

        Raises:
            OSError: The file was truncated.
        """
        if self.file.size() < len(self.file):
            raise OSError(
                errno.EIO,
                f"'{self.path}' was truncated while cached features were read "
                "from it. Train again: what is missing is computed anew",
            )
        return self.array


class Shard(NamedTuple):
    """The contents of a shard."""

    ids: np.ndarray
    rows: Mapped


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


def map_rows(
    folder: Path, number: int, shape: tuple[int, ...], dtype: np.dtype
) -> Mapped:
    """Returns the rows of a shard that this process has written itself.

    Args:
        folder: The folder.
        number: The shard.
        shape: The shape of all its rows together.
        dtype: Their dtype.

    Raises:
        FileNotFoundError: Somebody removed it meanwhile.
    """
    path = _arrays(folder, number)[0]
    mapped = _mapped(path, shape, dtype, None)
    if mapped is None:
        raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
    return mapped


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
        count, written = record["rows"], record["files"]
        of_rows, of_ids = (written[path.name] for path in paths)
    except (KeyError, TypeError, ValueError):
        return None
    if type(count) is not int or count < 1:
        return None
    rows = _mapped(paths[0], (count, *shape), dtype, of_rows)
    ids = _mapped(paths[1], (count,), IDS, of_ids)
    if rows is None or ids is None:
        return None
    return Shard(np.array(ids.array), rows)


def remove_shard(folder: Path, number: int) -> None:
    """Removes the files of a shard, as far as they are there."""
    # The record first: without it the others are no shard any more.
    for path in (_record(folder, number), *_arrays(folder, number)):
        remove_file(path)


def shard_numbers(folder: Path) -> list[int]:
    """Returns the shards of a column, which need not have a folder, sorted."""
    found = [number for number, kind in _files(folder) if kind == "json"]
    return sorted(x for x in found if not is_folder(_record(folder, x)))


def unfinished_numbers(folder: Path) -> set[int]:
    """Returns the numbers of files that are no shard, for lack of a record."""
    return {number for number, _ in _files(folder)} - {*shard_numbers(folder)}


def _files(folder: Path) -> Iterator[tuple[int, str]]:
    if not is_folder(folder):
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
    header = _header(array.shape, _stored(array.dtype))
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    checksum = write_whole(path, [header, values])
    return {"bytes": len(header) + values.nbytes, "crc32": checksum}


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Returns the beginning of a .npy file, as NumPy writes it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )
    return stream.getvalue()


def _stored(dtype: np.dtype) -> np.dtype:
    """Returns the dtype of the file that stores the bits of a dtype."""
    # NumPy's files have no bfloat16 and its kin.
    if dtype == IDS or dtype.isbuiltin == 1:
        return dtype
    return np.dtype(f"u{dtype.itemsize}")


def _mapped(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, written: object
) -> Mapped | None:
    """Returns the array in a file; None if it is not as it was written.

    Its size comes first: of a file of any other nothing is read. Then its
    header is compared, so that nothing in it is parsed or unpickled.
    """
    header = _header(shape, _stored(dtype))
    size = len(header) + math.prod(shape) * dtype.itemsize
    with open_file(path) as stream:
        if stream is None or size_of(stream) != size:
            return None
        if shape[0] > 1 and size > _MOST_BYTES:
            return None
        if written is not None and written != _checksum(stream):
            return None
        file = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    if file[: len(header)] != header:
        return None
    # A plain array, since indexing a memmap takes several times as long.
    array = np.frombuffer(file, dtype, offset=len(header))
    return Mapped(array.reshape(shape), path, file)


def _checksum(stream: Any) -> dict[str, int]:
    checksum, count = 0, 0
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    while read := stream.readinto(chunk):
        checksum = zlib.crc32(chunk[:read], checksum)
        count += read
    return {"bytes": count, "crc32": checksum}
