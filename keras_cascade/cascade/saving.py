"""Saves a cascade so that its file is the old one or the new one."""

import math
import os
from pathlib import Path
from typing import Any

import psutil

from keras_cascade import _keras_compat as compat
from keras_cascade._interrupts.atomic_write import move_into_place, workspace
from keras_cascade.cascade.model_paths import (
    WEIGHTS,
    FilePath,
    check_format,
)
from keras_cascade.cascade.trainer import Trainer


class Saved(Trainer):
    """Keras's `save` and `save_weights`, over earlier files in one step."""

    def save(
        self,
        filepath: FilePath,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the cascade as a `.keras` file.

        A file that is there is replaced once the new one is complete: if the
        process is killed or the disk is full, it stays as it was.

        Args:
            filepath: The path, which ends in `.keras`.
            overwrite: Whether to replace a file without asking. Defaults to
                `True`.
            zipped: As Keras takes it; `False` writes a folder, in place.
                Defaults to `None`.
            **kwargs: Arguments that Keras takes for older formats.

        Raises:
            ValueError: If the path ends in something else: the older HDF5
                format cannot hold a cascade.
            OSError: If the file cannot be written.

        Example:
        >>> import tempfile
        >>> cascade.save(f"{tempfile.mkdtemp()}/cascade.keras")
        """
        if zipped is not False:
            check_format(filepath)
        place = None if zipped is False else _file_to_replace(filepath)
        if place is None:
            super().save(filepath, overwrite, zipped, **kwargs)
        elif _may_replace(place, overwrite):
            with workspace(place) as folder:
                staged = folder / Path(filepath).name
                super().save(staged, zipped=zipped, **kwargs)
                move_into_place(staged, place)

    def save_weights(
        self,
        filepath: FilePath,
        overwrite: bool = True,
        max_shard_size: float | None = None,
    ) -> None:
        """Saves the weights, and the optimizer's slots, in one step.

        Args:
            filepath: The path, which ends in `.weights.h5`, or in
                `.weights.json` with shards.
            overwrite: Whether to replace files without asking. Defaults to
                `True`.
            max_shard_size: As Keras takes it. Defaults to `None`.

        Example:
        >>> import tempfile
        >>> cascade.save_weights(f"{tempfile.mkdtemp()}/one.weights.h5")
        """
        place = _file_to_replace(filepath)
        whole = max_shard_size is None
        if place is None or (whole and not str(filepath).endswith(WEIGHTS)):
            super().save_weights(filepath, overwrite, max_shard_size)
        elif _may_replace(place, overwrite):
            with workspace(place) as folder:
                staged = folder / Path(filepath).name
                if whole:
                    self._write_weights(staged)
                    move_into_place(staged, place)
                else:
                    super().save_weights(staged, max_shard_size=max_shard_size)
                    _move_shards(folder, place.parent)

    def _write_weights(self, path: Path) -> None:
        # With an optimizer's slots, three times the weights.
        needed = 4 * sum(4 * math.prod(v.shape) for v in self.variables)
        if needed > psutil.virtual_memory().available:
            super().save_weights(path)
        else:
            content = compat.weights_file_in_memory(super().save_weights)
            path.write_bytes(content)


def _file_to_replace(filepath: FilePath) -> Path | None:
    """Returns the file that a path leads to; None if Keras writes in place.

    A link stays a link. In place are devices, files at remote addresses, and
    files that may be written to in folders that may not.
    """
    if "://" in str(filepath):
        return None
    place = Path(filepath).resolve()
    if place.exists() and not (place.is_file() and os.access(place, os.W_OK)):
        return None
    if place.parent.is_dir() and not os.access(place.parent, os.W_OK):
        return None
    return place


def _may_replace(place: Path, overwrite: bool) -> bool:
    if overwrite or not place.exists():
        return True
    return compat.ask_to_overwrite(str(place))


def _move_shards(written: Path, folder: Path) -> None:
    """Moves weights in several files and the index that names them."""
    (index,) = written.glob("*.json")
    # Without an index, shards of two versions are not loaded as one.
    (folder / index.name).unlink(missing_ok=True)
    for shard in sorted(written.glob("*.h5")):
        move_into_place(shard, folder / shard.name)
    move_into_place(index, folder / index.name)
