"""Arrays as data of a cascade, whose rows are computed in any order.

Tested by `tests/cache/test_kinds_of_data.py`.
"""

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView
from keras_cascade.cache.cached_names import to_cached_names
from keras_cascade.cache.compiled import Arrays
from keras_cascade.cache.datasets import (
    Dataset,
    ids_of,
    in_order,
    model_batch,
    without_absent,
)
from keras_cascade.cache.features import Features, Positions
from keras_cascade.cache.fingerprint import row_ids
from keras_cascade.cache.py_datasets import IndexedBatches, ModelBatch
from keras_cascade.data import sources
from keras_cascade.data.arrays import map_arrays, to_floatx, to_trainable
from keras_cascade.data.sources import Batch

# The rows that are hashed again before each epoch: that many bytes of them.
_LOOKS, _BYTES = 16, 2**22


class ArrayDataset(Dataset):
    """Samples in arrays, in another order in each epoch if shuffled."""

    def __init__(
        self,
        cascade: CascadeView,
        samples: sources.Arrays,
        batch_size: int,
        shuffle: bool,
    ):
        super().__init__(cascade, -(-samples.rows // batch_size))
        self._rows, self._samples = samples.rows, samples.to_numpy()
        self._batch_size, self._shuffle = batch_size, shuffle
        self._order = compat.ArrayOrder(samples.rows, batch_size, shuffle)
        self._arrays = self._sort(self._samples.x)
        self._known_ids: Arrays = {}
        self._looks = 0

    def first_batch(self) -> Batch:
        """Returns the first batch, with labels and weights."""
        return self._take(slice(0, self._batch_size))

    def opening_arguments(self) -> dict[str, Any]:
        """Returns the arguments of a `fit` without epochs."""
        if len(self._arrays) < len(self._ports):
            # Keras reads None from arrays, and not from all other data.
            x, y, weights = self.first_batch()
            return self._arguments(x, y, weights) | {"shuffle": False}

        def read(rows: np.ndarray) -> ModelBatch:
            x, *others = self._take(rows)
            return without_absent((map_arrays(to_floatx, x), *others))

        return in_order(self._ordered(read))

    def look_again(self) -> None:
        """Hashes some rows again; other ones each time."""
        for name, array in self._arrays.items():
            ids = self._known_ids.get(name)
            if ids is None:
                continue
            count = max(_LOOKS, _BYTES // max(1, array[:1].nbytes))
            rows = (self._looks * count + np.arange(count)) % self._rows
            rows = np.unique(rows)
            if not np.array_equal(row_ids(array[rows]), ids[rows]):
                self.varies_because = f"values of '{name}' were changed"
        self._looks += 1

    def live_arguments(self) -> dict[str, Any]:
        """Returns the arguments of Keras's `fit` without features."""
        samples = self._samples
        return self._arguments(samples.x, samples.y, samples.sample_weight)

    def missing(self, features: Features) -> int:
        """Returns how many samples have no features yet."""
        return int(features.missing(self._ids(features)).sum())

    def arguments(self, features: Features, in_memory: bool) -> dict[str, Any]:
        """Returns the arguments of Keras's `fit` on features."""
        if not self.is_complete(features):
            return in_order(self._computing(features))
        positions = features.positions(self._ids(features))
        if not in_memory:
            return in_order(self._reading(features, positions))
        # Keras's own loop over arrays is faster than one over a PyDataset.
        inputs = self._inputs(features.part.passed_on, slice(None))
        x = to_cached_names({**inputs, **features.read(positions)})
        _, y, weights = self._take(slice(None))
        return self._arguments(x, y, weights)

    def _arguments(self, x: object, y: object, weights: object) -> dict:
        return {
            "x": map_arrays(to_trainable, x),
            "y": y,
            "sample_weight": weights,
            "batch_size": self._batch_size,
            "shuffle": self._shuffle,
        }

    def _reading(
        self, features: Features, positions: Positions
    ) -> IndexedBatches:
        def read(rows: np.ndarray) -> ModelBatch:
            found = features.read({k: p[rows] for k, p in positions.items()})
            return self._batch(features, found, rows)

        return self._ordered(read)

    def _computing(self, features: Features) -> IndexedBatches:
        """Returns batches whose missing rows are computed when they are read.

        A batch of which few rows are missing would leave the compiled function
        half empty, so the missing rows of later batches are computed with it.
        """
        ids = self._ids(features)
        names = features.part.ports
        lacking = features.missing(ids)
        waiting: list[np.ndarray] = []

        def compute(rows: np.ndarray) -> Arrays:
            return features.batch(
                lambda missing: self._inputs(names, rows[missing]),
                {name: x[rows] for name, x in ids.items()},
                self._batch_size,
            )

        def prepare(batches: Sequence[np.ndarray]) -> None:
            order = np.concatenate(batches)
            order = order[lacking[order]]
            starts = range(0, len(order), self._batch_size)
            waiting[:] = [order[i : i + self._batch_size] for i in starts]

        def read(rows: np.ndarray) -> ModelBatch:
            # A chunk is filled with missing rows of the next batches.
            while waiting and lacking[rows].any() and not features.is_full:
                chunk = waiting.pop(0)
                compute(chunk)
                lacking[chunk] = False
            return self._batch(features, compute(rows), rows)

        return self._ordered(read, prepare)

    def _ordered(self, read: Any, *prepare: Any) -> IndexedBatches:
        """Returns batches in the order in which a live training has them."""
        return IndexedBatches(read, self.steps or 0, self._order.draw, *prepare)

    def _batch(
        self, features: Features, found: Arrays, rows: np.ndarray
    ) -> ModelBatch:
        inputs = self._inputs(features.part.passed_on, rows)
        return model_batch(inputs, found, self._take(rows))

    def _ids(self, features: Features) -> Arrays:
        # Of the arrays as they were passed, whatever dtype the input has.
        new = [n for n in features.part.ports if n not in self._known_ids]
        self._known_ids |= ids_of(self._arrays, new)
        return {name: self._known_ids[name] for name in features.part.ports}

    def _inputs(
        self, names: Container[str], rows: np.ndarray | slice
    ) -> Arrays:
        return self._as_inputs(self._arrays, names, rows)

    def _take(self, rows: np.ndarray | slice) -> Batch:
        # Keras casts the floats of arrays, but not those of a PyDataset.
        x, y, weights = self._samples.take(rows)
        return x, map_arrays(to_floatx, y), map_arrays(to_floatx, weights)
