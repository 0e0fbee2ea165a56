"""The user's data as samples that come again: what a cache of features reads.

Arrays can be read at any row. Everything else is a stream of batches, which
is read in its own order; of some streams it can be seen that they give the
same samples each time, of others the user has to say so.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_cascade.data.reading import (
    count_rows,
    describe,
    endless,
    is_array,
    known_size,
    refuse_sparse,
    to_numpy,
)

# One batch, as Keras takes it: inputs, labels, sample weights.
Batch = tuple[Any, Any, Any]


@dataclass(frozen=True, eq=False)
class ArraySamples:
    """Samples in arrays.

    Attributes:
        x: The inputs, a structure of arrays.
        y: The labels, likewise, or None.
        sample_weight: Likewise, or None.
        rows: How many samples there are.
    """

    x: Any
    y: Any
    sample_weight: Any
    rows: int

    def take(self, rows: Any) -> Batch:
        """Some samples, a new array a leaf, in the dtypes that Keras takes.

        Args:
            rows: Their numbers, or a slice.
        """
        x, y, weights = (
            _map(lambda leaf: as_keras_takes(leaf[rows]), part)
            for part in (self.x, self.y, self.sample_weight)
        )
        return x, y, weights


@dataclass(frozen=True, eq=False)
class StreamSamples:
    """Samples that come in batches of their own.

    Attributes:
        start: Begins a pass: an iterator over batches.
        batches: How many there are, where that is known.
        kind: What it is, for messages.
        shuffled: What `fit(shuffle=True)` puts in another order in each
            epoch: `"samples"`, `"batches"` or `"nothing"`.
        unsure: Why it cannot be seen that the same samples come each time;
            None where it can.
        once: Whether there is only one pass.
    """

    start: Callable[[], Iterator[Batch]]
    batches: int | None
    kind: str
    shuffled: str
    unsure: str | None
    once: bool


Samples = ArraySamples | StreamSamples


def open_samples(x: Any, y: Any = None, sample_weight: Any = None) -> Samples:
    """Reads off what kind of data `fit`, `evaluate` or `predict` was given.

    Args:
        x: As Keras takes it.
        y: Labels, where `x` is arrays. Defaults to `None`.
        sample_weight: Likewise. Defaults to `None`.

    Raises:
        TypeError: If it is of another kind, or sparse.
        ValueError: If it is empty, without end, or of unequal lengths.
    """
    refuse_sparse((x, y, sample_weight))
    if _is_arrays(x):
        return _arrays(x, y, sample_weight)
    if y is not None or sample_weight is not None:
        raise ValueError(
            f"A {_kind(x)} gives labels and sample weights in its batches; "
            "received y or sample_weight beside it."
        )
    if isinstance(x, keras.utils.PyDataset):
        return _py_dataset(x)
    if isinstance(x, Iterable) and not isinstance(x, (str, bytes)):
        return _stream(x)
    raise TypeError(
        "cache_features works on arrays, tf.data, a PyDataset, a torch "
        "DataLoader, grain data sets and generators of batches; received "
        f"{describe(x)}."
    )


def split_off(samples: ArraySamples, share: float) -> tuple[Samples, Samples]:
    """Splits the last rows off, as Keras's `validation_split` does.

    Args:
        samples: All samples.
        share: The share of them to split off.

    Raises:
        ValueError: If nothing would be left on one side.
    """
    at = int(np.floor(samples.rows * (1.0 - share)))
    if at in (0, samples.rows):
        raise ValueError(
            f"validation_split={share} of {samples.rows} samples leaves "
            "nothing to train on, or nothing to validate on."
        )

    def part(rows: slice, size: int) -> ArraySamples:
        x, y, weights = (
            _map(lambda leaf: leaf[rows], some)
            for some in (samples.x, samples.y, samples.sample_weight)
        )
        return ArraySamples(x, y, weights, size)

    return part(slice(0, at), at), part(slice(at, None), samples.rows - at)


def as_keras_takes(array: np.ndarray) -> np.ndarray:
    """Floats are in Keras's own dtype, as in its handling of arrays."""
    if array.dtype.kind == "f" and array.dtype != keras.config.floatx():
        return array.astype(keras.config.floatx())
    return array


def _map(change: Callable[[np.ndarray], Any], part: Any) -> Any:
    return None if part is None else keras.tree.map_structure(change, part)


def _is_arrays(x: Any) -> bool:
    if isinstance(x, (tuple, list, dict)):
        return all(is_array(leaf) for leaf in keras.tree.flatten(x))
    return is_array(x)


def _arrays(x: Any, y: Any, sample_weight: Any) -> ArraySamples:
    parts = [part for part in (x, y, sample_weight) if part is not None]
    rows = count_rows(parts)
    x, y, weights = (_map(to_numpy, part) for part in (x, y, sample_weight))
    return ArraySamples(x, y, weights, rows)


def _py_dataset(data: keras.utils.PyDataset) -> StreamSamples:
    if data.num_batches is None:
        raise ValueError(endless(data))
    count = int(data.num_batches)
    return StreamSamples(
        start=lambda: _read(data[i] for i in range(count)),
        batches=count,
        kind=_kind(data),
        shuffled="batches",
        unsure=_changes_with_epochs(data) or _differs(lambda: data[0]),
        once=False,
    )


def _stream(data: Any) -> StreamSamples:
    size = known_size(data)
    if size == float("inf"):
        raise ValueError(endless(data))
    shuffled, unsure = _of_a_stream(data)
    return StreamSamples(
        start=lambda: _read(data),
        batches=None if size is None else int(size),
        kind=_kind(data),
        shuffled=shuffled,
        unsure=unsure,
        once=isinstance(data, Iterator),
    )


def _of_a_stream(data: Any) -> tuple[str, str | None]:
    """What may be shuffled in it, and why it may not repeat."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(data, torch.utils.data.DataLoader):
        loading = torch.utils.data
        in_order = isinstance(data.sampler, loading.SequentialSampler)
        if isinstance(data.dataset, loading.IterableDataset):
            return "samples", "its data set has no index"
        first = _differs(lambda: data.dataset[0])
        return "nothing" if in_order else "samples", first
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return "nothing", _differs(lambda: data[0])
    return "samples", "it has no index"


def _changes_with_epochs(data: keras.utils.PyDataset) -> str | None:
    if type(data).on_epoch_end is keras.utils.PyDataset.on_epoch_end:
        return None
    return "its on_epoch_end may change what it gives"


def _differs(read: Callable[[], Any]) -> str | None:
    """Whether what has an index gives something else when read again."""
    one, other = (
        [x.tobytes() for x in _leaves(read()) if x is not None]
        for _ in range(2)
    )
    return None if one == other else "its first entry differs when read again"


def _leaves(entry: Any) -> list[np.ndarray]:
    return [
        np.asarray(to_numpy(x)) if is_array(x) else np.asarray(x)
        for x in keras.tree.flatten(entry)
    ]


def _read(found: Iterable[Any]) -> Iterator[Batch]:
    empty = True
    for batch in found:
        parts = keras.utils.unpack_x_y_sample_weight(batch)
        x, y, weights = (
            _map(lambda leaf: as_keras_takes(to_numpy(leaf)), part)
            for part in parts
        )
        empty = False
        yield x, y, weights
    if empty:
        raise ValueError(
            "The data is empty: it gave no batch. A generator that was read "
            "before gives nothing; make a new one."
        )


def _kind(data: Any) -> str:
    kind = type(data)
    return f"{kind.__module__.partition('.')[0]} {kind.__qualname__}"
