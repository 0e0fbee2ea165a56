"""Reads arrays in `.npz` and `.npy` files as batches.

Tested by `tests/cli/data/test_directories.py`.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade._reporting.messages import listed
from keras_cascade.data.inputs import check_shape

ARRAY_ENDINGS = (".npy", ".npz")
LABELS = "labels"
# A name, or several in the structure of a model's outputs.
_Names = str | Mapping[str, str] | Sequence[str]
_Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ArrayFiles:
    """Batches cut from arrays, file by file.

    Attributes:
        path: The path that the user gave.
        sources: The `.npz` files, or the folder of the `.npy` files.
        inputs: The inputs of the model.
        keys: The name of the array of each input.
        labels: The names of the arrays of labels, structured as the model's
            outputs; None if there are none.
        batch_size: The rows of a batch.
    """

    path: Path
    sources: Sequence[Path]
    inputs: Sequence[keras.KerasTensor]
    keys: Mapping[str, str]
    labels: _Names | None
    batch_size: int

    how_to_label = f"Add an array '{LABELS}'."

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for source in self.sources:
            read = _arrays(source)
            names = [*self.keys.values(), *_flat(self.labels)]
            arrays = {name: read[name]() for name in names}
            for tensor in self.inputs:
                array = arrays[self.keys[tensor.name]]
                check_shape(array, tensor.shape, tensor.name, f"'{source}'")
            rows = _count_rows(source, arrays)
            for start in range(0, rows, self.batch_size):
                yield self._batch(arrays, slice(start, start + self.batch_size))

    def _batch(self, arrays: _Arrays, rows: slice) -> tuple[Any, ...]:
        x = {name: arrays[key][rows] for name, key in self.keys.items()}
        if not self.has_labels:
            return (x,)
        y = keras.tree.map_structure(lambda n: arrays[n][rows], self.labels)
        return x, y


def open_arrays(
    path: Path, sources: Sequence[Path], model: keras.Model, batch_size: int
) -> ArrayFiles:
    """Finds the arrays of a model's inputs, and labels, by their names.

    The path and sources are those of `ArrayFiles`.

    Raises:
        ValueError: An input has no array, or a file cannot be read.
    """
    names = [list(_arrays(source)) for source in sources]
    keys = _keys(sources[0], names[0], model)
    labels = _labels(sources[0], names[0], model)
    wanted = {*keys.values(), *_flat(labels)}
    for source, own in zip(sources, names, strict=True):
        if missing := sorted(wanted - set(own)):
            raise ValueError(
                f"'{source}' lacks {listed(missing)}, which "
                f"'{sources[0].name}' has. It has {listed(own)}."
            )
    return ArrayFiles(path, sources, model.inputs, keys, labels, batch_size)


def _keys(
    source: Path, names: Sequence[str], model: keras.Model
) -> dict[str, str]:
    """Returns the name of the array of each input."""
    inputs = [tensor.name for tensor in model.inputs]
    missing = [name for name in inputs if name not in names]
    others = [name for name in names if not _is_labels(name)]
    # A single array can only be that of a single input, whatever its name.
    if len(inputs) == len(others) == 1:
        return {inputs[0]: others[0]}
    if missing:
        raise ValueError(
            f"'{source}' has no array for {listed(missing)}. It has "
            f"{listed(names)}; the model's inputs are {listed(inputs)}."
        )
    return {name: name for name in inputs}


def _labels(
    source: Path, names: Sequence[str], model: keras.Model
) -> _Names | None:
    """Returns the names of the arrays of labels, structured as the outputs."""
    if not isinstance(model.output, (dict, list, tuple)):
        return LABELS if LABELS in names else None
    if isinstance(model.output, dict):
        wanted = {name: f"{LABELS}.{name}" for name in model.output}
    else:
        wanted = [f"{LABELS}.{name}" for name in model.output_names]
        # A model that was made with a list of one output still gives a list.
        wanted = [LABELS] if len(wanted) == 1 else wanted
    given = [name for name in names if _is_labels(name)]
    if not given:
        return None
    if missing := [name for name in _flat(wanted) if name not in names]:
        raise ValueError(
            f"'{source}' has labels in {listed(given)}, and lacks those in "
            f"{listed(missing)}: each output of the model has its own."
        )
    return wanted


def _is_labels(name: str) -> bool:
    return name.partition(".")[0] == LABELS


def _flat(labels: _Names | None) -> list[str]:
    return [] if labels is None else keras.tree.flatten(labels)


def _arrays(source: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Returns a function that reads each array of a source, by its name."""
    if not source.is_dir():
        with _archive(source) as archive:
            return {name: partial(_member, source, name) for name in archive}
    return {
        path.stem: partial(_mapped, path)
        for path in sorted(source.iterdir())
        if path.suffix.lower() == ".npy" and not path.name.startswith(".")
    }


def _mapped(path: Path) -> np.ndarray:
    """Maps a `.npy` file, of which only the rows in use are loaded."""
    with _explained(path):
        return np.lib.format.open_memmap(path, mode="r")


def _member(path: Path, name: str) -> np.ndarray:
    with _archive(path) as archive, _explained(path, f"Array '{name}': "):
        found = archive[name]
        # NumPy gives a member that is no `.npy` file as bytes.
        if not isinstance(found, np.ndarray):
            raise ValueError(f"'{name}' is no array")
        return found


def _archive(path: Path) -> np.lib.npyio.NpzFile:
    with _explained(path):
        # `np.load` would leave a file open that turns out to be no archive.
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive")
        return np.load(path, allow_pickle=False)


@contextmanager
def _explained(path: Path, what: str = "") -> Iterator[None]:
    """Explains the errors of reading a file."""
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{what}'{path}' cannot be read as NumPy's arrays: {error}. Arrays "
            "of objects are not read, as they can hold code."
        ) from error


def _count_rows(source: Path, arrays: _Arrays) -> int:
    """Returns the number of rows, which all arrays have to have."""
    if single := [name for name, x in arrays.items() if not x.ndim]:
        raise ValueError(
            f"'{source}' has single values in {listed(single)}, not one for "
            "each sample."
        )
    rows = {name: len(x) for name, x in arrays.items()}
    if len(set(rows.values())) > 1 or not all(rows.values()):
        counts = ", ".join(f"'{name}' {n}" for name, n in rows.items())
        raise ValueError(
            f"'{source}': each array has a row for each sample; the rows are: "
            f"{counts}."
        )
    return next(iter(rows.values()))
