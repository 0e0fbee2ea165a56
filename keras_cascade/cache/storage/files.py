"""Files that are whole under their names, and JSON with a checksum.

Nothing is flushed to the disk by force: after a power cut a name may stand for
less than was written. The checksums find it, and it is computed again.
"""

import errno
import json
import re
import secrets
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Bytes = bytes | bytearray | memoryview

_TEMPORARY = re.compile(r".+\.[0-9a-f]{16}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)


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
    try:
        whole = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(whole, dict) or set(whole) != {"crc32", "value"}:
        return None
    same = whole["crc32"] == _checksum(whole["value"])
    return whole["value"] if same else None


def is_full(error: OSError) -> bool:
    """Whether an error is of a full disk, or of a quota that is used up."""
    return error.errno in _FULL


def _checksum(value: object) -> int:
    # As dumped, keys are in their order and floats as they are read back.
    return zlib.crc32(json.dumps(value).encode())
