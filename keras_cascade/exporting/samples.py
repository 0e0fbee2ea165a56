"""Stores the user's data as checked batches in files, so memory stays small."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
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
from keras_cascade.exporting.checking.runner import read_batch, write_batch
from keras_cascade.graph.program import Port

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Batches of inputs in a folder, a file for each, and their labels."""

    folder: Path
    rows: int
    labels: list[Any] = field(default_factory=list)
    # The size of the batches that the file takes when it is calibrated.
    at_once: int = 1

    def __iter__(self) -> Iterator[Batch]:
        for path in sorted(self.folder.glob("*.npz")):
            yield read_batch(path)

    @property
    def has_labels(self) -> bool:
        """Whether each batch has its labels."""
        known = [label is not None for label in self.labels]
        return bool(known) and all(known)

    def single(self) -> Iterator[Batch]:
        """Yields the samples one by one, or as many as the file takes."""
        size = self.at_once
        for batch in self:
            for row in range(0, _rows(batch), size):
                yield {name: x[row : row + size] for name, x in batch.items()}


def calibration(samples: Samples | None) -> Iterator[Batch]:
    """Returns single samples to calibrate 8 bits on, if there are any."""
    if samples is None:
        raise ValueError("8 bits need samples to calibrate on.")
    return samples.single()


def open_samples(folder: Path, batch_size: int | None = None) -> Samples:
    """Opens the samples that another process stored, without their labels."""
    rows = sum(map(_rows, Samples(folder, 0)))
    return Samples(folder, rows, at_once=batch_size or 1)


def store_samples(
    data: object,
    ports: Sequence[Port],
    folder: Path,
    argument: str,
    limit: int | None = None,
    structure: object = None,
    batch_size: int | None = None,
) -> Samples:
    """Reads data, checks each batch against the inputs, and stores it.

    Args:
        data: What `keras_cascade.data.batches` accepts.
        ports: The inputs.
        folder: The folder of the files, which is created.
        argument: The name of the argument that is read, for errors.
        limit: The number of samples to stop at. Defaults to `None`: all.
        structure: The inputs of the whole model, as whose structure the data
            may come as well. Defaults to `None`: `ports` alone.
        batch_size: The size of all batches, which leaves the last samples
            out if they are fewer. Defaults to `None`: as the data comes.

    Raises:
        ValueError: An input is missing, or of another shape or kind.
    """
    folder.mkdir()
    rows, labels = 0, []
    batches = (
        (_checked(x, ports, argument, structure), y)
        for x, y in _batches(data, argument)
    )
    for batch, y in _in_batches_of(batches, batch_size):
        count = _rows(batch)
        if not count:
            continue
        keep = count if limit is None else min(count, limit - rows)
        kept = {name: x[:keep] for name, x in batch.items()}
        write_batch(folder / f"{len(labels):06d}.npz", kept)
        # `map_structure` would call the function on None as well.
        labels.append(
            y
            if y is None
            else keras.tree.map_structure(lambda leaf, n=keep: leaf[:n], y)
        )
        rows += keep
        if rows == limit:
            break
    if not rows:
        raise ValueError(
            f"{argument} is empty: its batches have no rows."
            if batch_size is None
            else f"{argument} has fewer samples than the {batch_size} of a "
            "batch, which the file takes at once."
        )
    return Samples(folder, rows, labels, batch_size or 1)


# Labels may be None, and stay so.
_map: Callable[..., Any] = partial(keras.tree.map_structure, none_is_leaf=False)


def _joined(*parts: Any) -> np.ndarray:
    return np.concatenate([to_numpy(x) for x in parts])


def _in_batches_of(
    batches: Iterable[tuple[Batch, Any]], size: int | None
) -> Iterator[tuple[Batch, Any]]:
    """Yields the samples in batches of a size; those that are left are not."""
    if size is None:
        yield from batches
        return
    waiting: list[tuple[Batch, Any]] = []
    for batch in batches:
        waiting.append(batch)
        whole = _map(_joined, *waiting)
        count = _rows(whole[0])
        for start in range(0, count - size + 1, size):
            stop = start + size
            yield _map(lambda x, a=start, b=stop: x[a:b], whole)
        rest = count - count % size
        waiting = [_map(lambda x, a=rest: x[a:], whole)]


def _rows(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _batches(data: object, argument: str) -> Iterator[tuple[Any, Any]]:
    """Yields the batches; errors begin with the name of the argument."""
    try:
        yield from labelled_batches(data)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{argument}: {error}") from error


def _checked(
    x: object, ports: Sequence[Port], argument: str, structure: object
) -> Batch:
    """Returns a batch by the names of the inputs, in their dtypes."""
    names = [port.name for port in ports]
    paths = input_paths(list(ports) if structure is None else structure)
    found = sort_inputs(x, paths, argument, names, alone=True)
    batch = {
        port.name: _checked_array(to_numpy(found[port.name]), port, argument)
        for port in ports
    }
    if len({len(array) for array in batch.values()}) > 1:
        rows = ", ".join(f"'{k}' {len(array)}" for k, array in batch.items())
        raise ValueError(
            f"{argument}: the inputs of a batch have the same number of "
            f"samples; received {rows}."
        )
    return batch


def _checked_array(array: np.ndarray, port: Port, argument: str) -> np.ndarray:
    array = fit_last_axis(array, port.shape)
    check_shape(array, port.shape, port.name, argument)
    if port.dtype == "string":
        return _as_bytes(array, port, argument)
    # NumPy has no kind for bfloat16, which ml_dtypes adds.
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"{argument}: input '{port.name}' holds values of dtype "
            f"{array.dtype}; the model takes {port.dtype}."
        )
    return array.astype(port.dtype)


def _as_bytes(array: np.ndarray, port: Port, argument: str) -> np.ndarray:
    """Returns texts as TensorFlow has them, in an array without objects."""
    texts = array.ravel().tolist()
    if not all(isinstance(text, (str, bytes)) for text in texts):
        raise ValueError(
            f"{argument}: input '{port.name}' holds values of dtype "
            f"{array.dtype}; the model takes strings."
        )
    encoded = [x.encode() if isinstance(x, str) else x for x in texts]
    return np.array(encoded, dtype=bytes).reshape(array.shape)
