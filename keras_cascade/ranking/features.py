"""Collects the features of many taps in one pass, in bounded memory.

Tested by `tests/ranking/test_rank.py`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import keras
import numpy as np

from keras_cascade._keras_compat import input_name
from keras_cascade._reporting.console import progress
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.data import labelled_batches, length, to_numpy
from keras_cascade.data.arrays import to_trainable
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.ranking.projection import Narrowing

BATCH_SIZE = 32
# The rows of all taps together take at most so much memory.
KEPT_BYTES = 512 * 2**20
_SEED = 0

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Collected:
    """The features of some samples at every tap.

    Attributes:
        features: The rows of each tap, `(samples, features)`, in float32.
        widths: The number of features of each tap before the projection.
        labels: The labels of the same samples; None if the data have none.
        samples: The number of samples that were read.
        seconds: The time of the pass for a sample, without the first batch.
    """

    features: dict[str, np.ndarray]
    widths: dict[str, int]
    labels: list[object]
    samples: int
    seconds: float


def collect(
    cascade: Cascade,
    data: object,
    names: Mapping[str, str],
    max_features: int,
    max_samples: int | None,
) -> Collected:
    """Returns the pooled features of every tap.

    If the rows of all samples would take more than `KEPT_BYTES`, a uniform
    sample of the rows is kept.

    Args:
        cascade: A cascade that gives the pooled features of each tap.
        data: Everything that `fit` takes.
        names: The taps, as errors call them, by the names of the outputs.
        max_features: The width to which wider features are projected.
        max_samples: The number of samples to read; None for all.

    Raises:
        ValueError: If features are not finite, or there is too little data.
    """
    reservoir = _Reservoir(max_features)
    paths = input_paths(cascade.input)
    seconds: list[float] = []
    batches = labelled_batches(data, BATCH_SIZE, max_samples)
    total = length(data) if max_samples is None else None
    with progress(total, visible=True) as bar:
        for number, (x, y) in enumerate(batches):
            bar("Reading features", number)
            given = sort_inputs(_only(x, len(paths)), paths, "data")
            found, took = _run(cascade, given)
            seconds += [took] if number or not seconds else []
            _check_finite(found, names)
            reservoir.add(found, y)
    if reservoir.seen < 4:
        raise ValueError(
            f"The data has {reservoir.seen} samples; ranking taps needs at "
            "least 4, and some hundred to tell good taps from better ones."
        )
    return Collected(
        reservoir.features(),
        reservoir.widths,
        reservoir.labels(),
        reservoir.seen,
        median(seconds[1:] or seconds) / BATCH_SIZE,
    )


def _only(x: object, inputs: int) -> object:
    """Returns the array of a dict of one, whatever its network calls it.

    A cascade has another name for the only input of its networks.
    """
    if isinstance(x, Mapping) and len(x) == inputs == 1:
        return next(iter(x.values()))
    return x


def _run(cascade: Cascade, given: Arrays) -> tuple[Arrays, float]:
    """Returns the features of a batch, and the seconds that they took.

    A batch with fewer rows is filled up: every size is compiled anew.
    """
    rows = len(next(iter(given.values())))
    size = -(-rows // BATCH_SIZE) * BATCH_SIZE
    filled = {k: _filled(x, size) for k, x in given.items() if x is not None}
    start = time.perf_counter()
    outputs = predict(cascade, filled)
    took = time.perf_counter() - start
    found = {name: to_numpy(x) for name, x in outputs.items()}
    kept = {k: x[:rows].astype("float32") for k, x in found.items()}
    return kept, took * BATCH_SIZE / size


def predict(model: keras.Model, given: Arrays) -> Any:
    """Returns a model's outputs for arrays by the names of its inputs."""
    arrays = keras.tree.map_structure(
        lambda x: to_trainable(given.get(input_name(x))), model.input
    )
    return model.predict_on_batch(arrays)


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(x)
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])


def _check_finite(found: Arrays, names: Mapping[str, str]) -> None:
    bad = {k: x for k, x in found.items() if not np.isfinite(x).all()}
    if bad:
        first = next(name for name in names if name in bad)
        rows = int((~np.isfinite(bad[first])).any(axis=1).sum())
        raise ValueError(
            f"The features of tap '{names[first]}' are NaN or infinity in "
            f"{rows} of {len(bad[first])} samples of a batch, and those of "
            f"{len(bad) - 1} other taps. Look at the data, and at the layers "
            "up to there; taps=[...] leaves taps out."
        )


class _Reservoir:
    """A uniform sample of the rows that were added, the same for each tap.

    Source: Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """

    def __init__(self, max_features: int):
        self.seen = 0
        self.widths: dict[str, int] = {}
        self._max_features = max_features
        self._draw = np.random.default_rng(_SEED)
        self._rows: dict[str, np.ndarray] = {}
        self._labels: list[object] = []
        self._narrowed = Narrowing(max_features)
        self._size = 0

    def add(self, found: Arrays, labels: Any) -> None:
        """Adds the rows of a batch."""
        count = len(next(iter(found.values())))
        if not self._rows:
            self._begin(found)
        places = list(self._places(count))
        kept = [i for i, place in enumerate(places) if place is not None]
        chosen = [place for place in places if place is not None]
        for name, rows in found.items():
            self._rows[name][chosen] = self._narrowed(rows[kept])
        for i, place in zip(kept, chosen, strict=True):
            one = None if labels is None else _row(labels, i)
            self._labels[place : place + 1] = [one]

    def features(self) -> dict[str, np.ndarray]:
        """Returns the kept rows of each tap."""
        count = min(self.seen, self._size)
        return {name: rows[:count] for name, rows in self._rows.items()}

    def labels(self) -> list[object]:
        """Returns the labels of the kept rows."""
        return self._labels

    def _begin(self, found: Arrays) -> None:
        self.widths = {name: x.shape[1] for name, x in found.items()}
        kept = {k: min(n, self._max_features) for k, n in self.widths.items()}
        self._size = max(KEPT_BYTES // (4 * sum(kept.values())), 64)
        self._rows = {
            name: np.empty((self._size, width), "float32")
            for name, width in kept.items()
        }

    def _places(self, count: int) -> Iterator[int | None]:
        """Yields where each row of a batch goes; None if it is not kept."""
        for _ in range(count):
            place = self.seen
            if place >= self._size:
                place = int(self._draw.integers(self.seen + 1))
            self.seen += 1
            yield place if place < self._size else None


def _row(labels: Any, i: int) -> object:
    """Returns the label of one row; a structure of outputs as it is."""
    return labels[i] if isinstance(labels, np.ndarray) else labels


def stacked(labels: Sequence[object]) -> list[object]:
    """Returns the labels of single samples as one batch for `read_labels`."""
    first = labels[0]
    if isinstance(first, np.ndarray | np.generic):
        return [np.stack([np.asarray(x) for x in labels])]
    return [first]
