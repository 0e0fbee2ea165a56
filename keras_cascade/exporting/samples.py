"""Batches of the user's data, checked, as files: memory does not grow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade.data import labelled_batches, to_numpy
from keras_cascade.data.inputs import (
    check_shape,
    fit_last_axis,
    input_paths,
    sort_inputs,
)
from keras_cascade.graph.program import Port

Batch = dict[str, np.ndarray]

# What the names of arrays begin with in files: NumPy has words of its own.
_KEY = "tensor:"


@dataclass(frozen=True)
class Samples:
    """Batches of inputs in a folder, a file each.

    Attributes:
        folder: Where they are.
        rows: How many samples there are.
        labels: The labels of each batch; None where there are none.
    """

    folder: Path
    rows: int
    labels: list[Any] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        for path in sorted(self.folder.glob("*.npz")):
            yield read_batch(path)

    @property
    def has_labels(self) -> bool:
        """Whether each batch has its labels."""
        known = [label is not None for label in self.labels]
        return bool(known) and all(known)

    def single(self, limit: int | None = None) -> Iterator[Batch]:
        """The samples one by one, each a batch of one."""
        left = self.rows if limit is None else min(limit, self.rows)
        for batch in self:
            count = len(next(iter(batch.values())))
            for row in range(min(count, left)):
                yield {name: x[row : row + 1] for name, x in batch.items()}
            left -= count
            if left <= 0:
                return


def read_batch(path: Path) -> Batch:
    """The arrays of one file."""
    with np.load(path, allow_pickle=False) as arrays:
        return {key.removeprefix(_KEY): x for key, x in arrays.items()}


def open_samples(folder: Path) -> Samples:
    """What another process stored; without its labels."""
    found = [read_batch(path) for path in sorted(folder.glob("*.npz"))]
    return Samples(folder, sum(len(next(iter(x.values()))) for x in found))


def store_samples(
    data: Any,
    ports: Sequence[Port],
    folder: Path,
    argument: str,
    limit: int | None = None,
    structure: Any = None,
) -> Samples:
    """Reads data, checks each batch against the inputs, and stores it.

    Args:
        data: What `keras_cascade.data.batches` accepts.
        ports: The inputs.
        folder: Where the files go; it is made.
        argument: What the data was passed as, for errors.
        limit: The number of samples to stop at. Defaults to `None`: all.
        structure: The structure of the inputs of the whole model, in which
            the data may come as well. Defaults to `None`: that of `ports`.

    Raises:
        ValueError: An input is missing, or of another shape or kind.
    """
    folder.mkdir()
    rows, labels = 0, []
    for x, y in _batches(data, argument):
        batch = _checked(x, ports, argument, structure)
        count = len(next(iter(batch.values())))
        if not count:
            continue
        keep = count if limit is None else min(count, limit - rows)
        stored: Any = {_KEY + name: x[:keep] for name, x in batch.items()}
        np.savez(folder / f"{len(labels):06d}.npz", **stored)
        labels.append(
            y
            if y is None
            else keras.tree.map_structure(lambda leaf, n=keep: leaf[:n], y)
        )
        rows += keep
        if rows == limit:
            break
    if not rows:
        raise ValueError(f"{argument} is empty: its batches have no rows.")
    return Samples(folder, rows, labels)


def _batches(data: Any, argument: str) -> Iterator[tuple[Any, Any]]:
    """The batches; an error says what the data was passed as."""
    try:
        yield from labelled_batches(data)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{argument}: {error}") from error


def _checked(
    x: Any, ports: Sequence[Port], argument: str, structure: Any
) -> Batch:
    """One batch by the inputs' names, in their dtypes."""
    names = [port.name for port in ports]
    paths = input_paths(list(ports) if structure is None else structure)
    found = sort_inputs(x, paths, argument, names, alone=True)
    batch = {
        port.name: _one(to_numpy(found[port.name]), port, argument)
        for port in ports
    }
    if len({len(array) for array in batch.values()}) > 1:
        rows = ", ".join(f"'{k}' {len(array)}" for k, array in batch.items())
        raise ValueError(
            f"{argument}: the inputs of a batch have the same number of "
            f"samples; received {rows}."
        )
    return batch


def _one(array: np.ndarray, port: Port, argument: str) -> np.ndarray:
    array = fit_last_axis(array, port.shape)
    check_shape(array, port.shape, port.name, argument)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"{argument}: input '{port.name}' holds values of dtype "
            f"{array.dtype}; the model takes {port.dtype}."
        )
    return array.astype(port.dtype)
