"""Loads files, which may be damaged or made to do harm.

Tested by `tests/behaviour/test_attacks.py`.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import keras

# Members that Keras reads whole, before it looks at anything.
_READ_WHOLE = ("config.json", "metadata.json")
# A member may grow a hundredfold, as Keras allows, but only up to this size
# more: Keras's own limits begin at 4 GiB.
_RATIO = 100
_FLOOR = 64 * 2**20
_WHOLE = 256 * 2**20
# Keras raises these for archives that are damaged, or have other contents than
# its own: they are no mistakes of the code.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_archive(path: Path, what: str, compile: bool = False) -> keras.Model:
    """Loads a `.keras` file in safe mode.

    Args:
        path: The file.
        what: The argument that names it, for errors.
        compile: Whether the model is compiled as it was. Defaults to `False`.

    Raises:
        ValueError: If there is no such file, it is damaged, it would run code
            of its own, or it would unpack to far more than is stored. The
            message names the file, in one line.
    """
    if not path.is_file():
        raise ValueError(f"{what}: there is no file '{path}'.")
    with naming_file(path, f"{what}: "):
        with zipfile.ZipFile(path) as archive:
            _check_members(archive.infolist())
            # Keras reads weights here and there, without their checksums.
            if wrong := archive.testzip():
                raise zipfile.BadZipFile(f"The checksum of '{wrong}' is wrong.")
        model: Any = keras.saving.load_model(
            path, compile=compile, safe_mode=True
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{what}: '{path}' holds no model but a {type(model).__name__}."
        )
    return model


@contextmanager
def naming_file(path: Path | str, before: str = "") -> Iterator[None]:
    """Turns errors of a damaged file into one ValueError that names it.

    Args:
        path: The file.
        before: The beginning of the message. Defaults to `""`.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{before}'{path}' cannot be loaded{_kind(error, reason)} "
            f"{_shortened(reason)}"
        ) from error


def _kind(error: Exception, reason: str) -> str:
    """Returns what is wrong with a file, as far as an error tells."""
    broken = (zipfile.BadZipFile, zlib.error, OSError, json.JSONDecodeError)
    if isinstance(error, broken) and not isinstance(error, PermissionError):
        return ": it is damaged, or no file of Keras."
    if "Could not locate class" in reason:
        return (
            ": it has a layer that is not Keras's. Import the module that "
            "registers it first (on the console: --import MODULE)."
        )
    return "."


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    """Raises a ValueError for an archive that no model is stored in."""
    names = [member.filename for member in members]
    for member in members:
        name = member.filename
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in name:
            raise ValueError(f"Its member '{name}' is outside of the archive.")
        if member.file_size > max(_FLOOR, _RATIO * member.compress_size) or (
            name in _READ_WHOLE and member.file_size > _WHOLE
        ):
            raise ValueError(
                f"Its member '{name}' unpacks to {member.file_size:,} bytes, "
                f"of which {member.compress_size:,} are stored."
            )
    if "config.json" not in names:
        raise ValueError("It has no 'config.json': it is no model of Keras.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"It has two members '{sorted(twice)[0]}'.")


def _shortened(reason: str) -> str:
    return reason if len(reason) < 500 else f"{reason[:480]} ..."
