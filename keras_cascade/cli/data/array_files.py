"""Arrays in `.npz` and `.npy` files as batches."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade._messages import listed

ARRAY_ENDINGS = (".npy", ".npz")
LABELS = "labels"


@dataclass(frozen=True)
class ArrayFiles:
    """Batches cut from arrays, file by file.

    Attributes:
        path: What the user named.
        sources: The files; a folder stands for the `.npy` files in it.
        inputs: The model's inputs.
        keys: Input to the name of its array.
        labels: The names of the arrays of labels in the structure of the
            model's outputs; None where there are none.
        batch_size: Rows of a batch.
    """

    path: Path
    sources: Sequence[Path]
    inputs: Sequence[Any]
    keys: Mapping[str, str]
    labels: Any
    batch_size: int

    how_to_label = f"Add an array '{LABELS}'."

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for source in self.sources:
            arrays = self._read(source)
            rows = _count_rows(source, arrays)
            for start in range(0, rows, self.batch_size):
                yield self._batch(arrays, slice(start, start + self.batch_size))

    def _read(self, source: Path) -> dict[str, np.ndarray]:
        found = _read(source, [*self.keys.values(), *_flat(self.labels)])
        for tensor in self.inputs:
            _check_shape(source, tensor, found[self.keys[tensor.name]])
        return found

    def _batch(
        self, arrays: Mapping[str, np.ndarray], rows: slice
    ) -> tuple[Any, ...]:
        x = {name: arrays[key][rows] for name, key in self.keys.items()}
        if not self.has_labels:
            return (x,)
        y = keras.tree.map_structure(lambda n: arrays[n][rows], self.labels)
        return x, y


def open_arrays(
    path: Path, sources: Sequence[Path], model: Any, batch_size: int
) -> ArrayFiles:
    """Finds the arrays of a model's inputs, and labels, by their names.

    Args:
        path: What the user named.
        sources: `.npz` files, or a folder of `.npy` files.
        model: The model.
        batch_size: Rows of a batch.

    Raises:
        ValueError: An input has no array, or a file cannot be read.
    """
    names = [_names(source) for source in sources]
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


def _names(source: Path) -> list[str]:
    if source.is_dir():
        return sorted(path.stem for path in _npy_files(source))
    with _archive(source) as archive:
        return list(archive)


def _keys(source: Path, names: Sequence[str], model: Any) -> dict[str, str]:
    """The array of each input."""
    inputs = [tensor.name for tensor in model.inputs]
    missing = [name for name in inputs if name not in names]
    others = [name for name in names if not _is_labels(name)]
    if len(inputs) == len(others) == 1:
        # There is no doubt which one, whatever it is called.
        return {inputs[0]: others[0]}
    if missing:
        raise ValueError(
            f"'{source}' has no array for {listed(missing)}. It has "
            f"{listed(names)}; the model's inputs are {listed(inputs)}."
        )
    return {name: name for name in inputs}


def _labels(source: Path, names: Sequence[str], model: Any) -> Any:
    """The names of the arrays of labels, in the structure of the outputs."""
    if not isinstance(model.output, (dict, list, tuple)):
        return LABELS if LABELS in names else None
    if isinstance(model.output, dict):
        wanted: Any = {name: f"{LABELS}.{name}" for name in model.output}
    else:
        wanted = [f"{LABELS}.{name}" for name in model.output_names]
        # Keras gives a list of one for a model that was made with one.
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


def _flat(labels: Any) -> list[str]:
    return [] if labels is None else keras.tree.flatten(labels)


def _read(source: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays by their names; those of `.npy` files are not loaded yet."""
    if source.is_dir():
        paths = {path.stem: path for path in _npy_files(source)}
        return {name: _mapped(paths[name]) for name in names}
    with _archive(source) as archive:
        return {name: _member(source, archive, name) for name in names}


def _npy_files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".npy" and not path.name.startswith(".")
    ]


def _mapped(path: Path) -> np.ndarray:
    """The array of a `.npy` file, of which only what is used is loaded."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(_unreadable(path, error)) from error


def _archive(path: Path) -> Any:
    """A `.npz` file, open."""
    # NumPy leaves open what it finds to be no archive.
    if not zipfile.is_zipfile(path):
        raise ValueError(_unreadable(path, "it is no zip archive"))
    try:
        return np.load(path, allow_pickle=False)
    except zipfile.BadZipFile as error:
        raise ValueError(_unreadable(path, error)) from error


def _member(path: Path, archive: Any, name: str) -> np.ndarray:
    try:
        found = archive[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Array '{name}': {_unreadable(path, error)}"
        ) from error
    if not isinstance(found, np.ndarray):
        raise ValueError(_unreadable(path, f"'{name}' is no array"))
    return found


def _unreadable(path: Path, error: Exception | str) -> str:
    return (
        f"'{path}' cannot be read as NumPy's arrays: {error}. Arrays of "
        "objects are not read, as they can hold code."
    )


def _check_shape(source: Path, tensor: Any, array: np.ndarray) -> None:
    wanted, given = tuple(tensor.shape)[1:], array.shape[1:]
    fits = len(wanted) == len(given) and all(
        size in (None, n) for size, n in zip(wanted, given, strict=True)
    )
    if not fits or not array.ndim:
        raise ValueError(
            f"'{source}' has samples of shape {given} for input "
            f"'{tensor.name}', the model takes {wanted}."
        )


def _count_rows(source: Path, arrays: Mapping[str, np.ndarray]) -> int:
    """The rows that all arrays have."""
    if single := [name for name, x in arrays.items() if not x.ndim]:
        raise ValueError(
            f"'{source}' has single values in {listed(single)}, not one for "
            "each sample."
        )
    rows = {name: len(x) for name, x in arrays.items()}
    if len(set(rows.values())) > 1 or not all(rows.values()):
        told = ", ".join(f"'{name}' {n}" for name, n in rows.items())
        raise ValueError(
            f"'{source}': each array has a row for each sample; the rows are: "
            f"{told}."
        )
    return next(iter(rows.values()))
