"""Files that are whole under their names, and JSON with a checksum.

Nothing is flushed to the disk by force: after a power cut a name may stand for
less than was written. The checksums find it, and it is computed again.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

Bytes = bytes | bytearray | memoryview

_TEMPORARY = re.compile(r".+\.[0-9a-f]{16}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Windows has neither: there a link or a pipe is told by its status alone.
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# Of the record of a stream, some millions of batches.
MOST_JSON_BYTES = 2**26


def write_whole(path: Path, parts: Iterable[Bytes]) -> int:
    """Writes a file under a temporary name, then renames it.

    Args:
        path: The file; one that is there is replaced.
        parts: Its bytes, one buffer after the other.

    Returns:
        The CRC-32 of its bytes.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    # A random name: another process may write the same file.
    name = f"{path.name}.{secrets.token_hex(8)}.tmp"
    temporary = path.with_name(name)
    checksum = 0
    try:
        with temporary.open("xb") as stream:
            for part in parts:
                stream.write(part)
                checksum = zlib.crc32(part, checksum)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return checksum


def write_small(path: Path, text: bytes) -> None:
    """Writes a file as `write_whole`, also while another process may begin."""
    try:
        write_whole(path, [text])
    except FileNotFoundError:
        # A process that begins to write removes the temporary files of killed
        # ones, and may have taken this one for such a file. It does so once.
        write_whole(path, [text])


def is_temporary(path: Path) -> bool:
    """Whether a path has the form of the temporary ones of `write_whole`."""
    return _TEMPORARY.fullmatch(path.name) is not None


def checked_text(value: object) -> bytes:
    """Returns a value as JSON, together with a checksum."""
    whole = {"crc32": _checksum(value), "value": value}
    return (json.dumps(whole, indent=1) + "\n").encode()


def read_checked(path: Path) -> Any | None:
    """Returns the value of `checked_text`; None without a file, or damaged."""
    whole = read_json(path)
    if not isinstance(whole, dict) or set(whole) != {"crc32", "value"}:
        return None
    same = whole["crc32"] == _checksum(whole["value"])
    return whole["value"] if same else None


def read_json(path: Path) -> Any | None:
    """Returns a value of JSON; None without a file of it, or a huge one."""
    with open_file(path) as stream:
        if stream is None or size_of(stream) > MOST_JSON_BYTES:
            return None
        text = stream.read(MOST_JSON_BYTES)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[BinaryIO | None]:
    """Opens a file to be read; None for a link, a device, a pipe, or nothing.

    Someone else may have made the folder: reading must not leave it, and must
    end.

    Raises:
        OSError: It is a file that cannot be read.
    """
    if not is_file(path):
        yield None
        return
    try:
        number = os.open(path, os.O_RDONLY | _CAREFULLY | _BINARY)
    except OSError as error:
        # Removed, or replaced by a link or a pipe, since it was looked at.
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        yield None
        return
    with os.fdopen(number, "rb", buffering=0) as stream:
        regular = stat.S_ISREG(os.fstat(number).st_mode)
        yield stream if regular else None


def size_of(stream: BinaryIO) -> int:
    """Returns the bytes that an open file has now."""
    return os.fstat(stream.fileno()).st_size


def is_file(path: Path) -> bool:
    """Whether a path is a file itself, not a link to one."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself, not a link to one."""
    return stat.S_ISDIR(_mode(path))


def is_there(path: Path) -> bool:
    """Whether there is anything at a path, be it a link to nowhere."""
    return _mode(path) != 0


def remove_file(path: Path) -> None:
    """Removes a file or a link, if there is one; a folder stays."""
    if is_there(path) and not is_folder(path):
        path.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def is_full(error: OSError) -> bool:
    """Whether an error is of a full disk, or of a quota that is used up."""
    return error.errno in _FULL


def _checksum(value: object) -> int:
    # As dumped, keys are in their order and floats as they are read back.
    return zlib.crc32(json.dumps(value).encode())
