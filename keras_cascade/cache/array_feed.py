"""Arrays, with features in the place of the inputs that are frozen over."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.batches import IndexedBatches
from keras_cascade.cache.features import Arrays, Features
from keras_cascade.cache.fingerprint import row_ids
from keras_cascade.cache.marks import mark
from keras_cascade.data.arrays import map_arrays, to_floatx
from keras_cascade.data.inputs import as_input, input_paths, sort_inputs
from keras_cascade.data.sources import Arrays as ArraySamples
from keras_cascade.data.sources import Batch
from keras_cascade.graph.program import as_program


class ArrayFeed:
    """Gives Keras the features of samples in arrays.

    Args:
        samples: The samples.
        model: Whose inputs they are.
        batch_size: Rows at a time.
        shuffle: Whether each epoch has another order.
    """

    def __init__(
        self,
        samples: ArraySamples,
        model: keras.Model,
        batch_size: int,
        shuffle: bool,
    ):
        rows, self._samples = samples.rows, samples.to_numpy()
        self.rows, self._batch_size = rows, batch_size
        self._shuffled = "samples" if shuffle else "nothing"
        self._ports = as_program(model).inputs
        paths = input_paths(model.input)
        self._leaves = sort_inputs(self._samples.x, paths, "The data")
        self._ids: dict[str, np.ndarray] = {}

    @property
    def steps(self) -> int:
        """How many batches there are."""
        return -(-self.rows // self._batch_size)

    def first_batch(self) -> Batch:
        """The first batch, with labels and weights."""
        return self._take(slice(0, self._batch_size))

    def live(self) -> dict[str, Any]:
        """What Keras trains on without features."""
        return {
            "x": self._samples.x,
            "y": self._samples.y,
            "sample_weight": self._samples.sample_weight,
            "batch_size": self._batch_size,
            "shuffle": self._shuffled == "samples",
        }

    def first(self) -> Arrays:
        """The inputs of the first batch."""
        return self._inputs(list(self._leaves), slice(0, self._batch_size))

    def missing(self, features: Features) -> int:
        """How many samples have no features yet."""
        return int(features.missing(self._ids_for(features)).sum())

    def is_complete(self, features: Features) -> bool:
        """Whether all features are there."""
        return self.missing(features) == 0

    def arguments(self, features: Features, in_memory: bool) -> dict[str, Any]:
        """What Keras trains on, for as many epochs as it likes.

        Args:
            features: The features.
            in_memory: Whether those that are complete come as arrays.
        """
        if not self.is_complete(features):
            return in_order(self._computing(features))
        positions = features.positions(self._ids_for(features))
        if not in_memory:
            return in_order(self._reading(features, positions))
        inputs = self._inputs(features.part.carried, slice(None))
        _, y, weights = self._take(slice(None))
        return {
            "x": mark({**inputs, **features.read(positions)}),
            "y": y,
            "sample_weight": weights,
            "batch_size": self._batch_size,
            "shuffle": self._shuffled == "samples",
        }

    def _reading(
        self, features: Features, positions: Mapping[str, np.ndarray]
    ) -> IndexedBatches:
        def read(rows: np.ndarray) -> tuple:
            found = features.read({k: p[rows] for k, p in positions.items()})
            return self._batch(features, found, rows)

        return IndexedBatches(read, self._rows_of_batches(), self._shuffled)

    def _computing(self, features: Features) -> IndexedBatches:
        """Computes what is missing, in the order of the epoch.

        A batch that lacks some rows only would leave the compiled function
        half empty, so it computes those that come next as well.
        """
        ids = self._ids_for(features)
        names = list(features.part.ports)
        lacking = features.missing(ids)
        waiting: list[np.ndarray] = []

        def compute(rows: np.ndarray) -> Arrays:
            return features.batch(
                lambda missing: self._inputs(names, rows[missing]),
                {name: x[rows] for name, x in ids.items()},
                self._batch_size,
            )

        def prepare(batches: list[np.ndarray]) -> None:
            order = np.concatenate(batches)
            order = order[lacking[order]]
            starts = range(0, len(order), self._batch_size)
            waiting[:] = [order[i : i + self._batch_size] for i in starts]

        def read(rows: np.ndarray) -> tuple:
            while waiting and lacking[rows].any() and not features.is_full:
                chunk = waiting.pop(0)
                compute(chunk)
                lacking[chunk] = False
            return self._batch(features, compute(rows), rows)

        batches = self._rows_of_batches()
        return IndexedBatches(read, batches, self._shuffled, prepare)

    def _batch(
        self, features: Features, found: Arrays, rows: np.ndarray
    ) -> tuple:
        carried = self._inputs(features.part.carried, rows)
        _, y, weights = self._take(rows)
        return without_missing((mark({**carried, **found}), y, weights))

    def _ids_for(self, features: Features) -> dict[str, np.ndarray]:
        for name in features.part.ports:
            if name not in self._ids:
                self._ids[name] = row_ids(self._leaves[name])
        return {name: self._ids[name] for name in features.part.ports}

    def _inputs(self, names: list[str], rows: Any) -> Arrays:
        return {
            port.name: as_input(
                self._leaves[port.name][rows], port.shape, port.dtype
            )
            for port in self._ports
            if port.name in names
        }

    def _take(self, rows: Any) -> Batch:
        x, y, weights = self._samples.take(rows)
        return x, map_arrays(to_floatx, y), map_arrays(to_floatx, weights)

    def _rows_of_batches(self) -> list[np.ndarray]:
        every = np.arange(self.rows)
        return np.split(
            every, range(self._batch_size, self.rows, self._batch_size)
        )


def without_missing(batch: tuple) -> tuple:
    """A batch without the labels or weights that there are none of."""
    x, y, weights = batch
    if weights is not None:
        return x, y, weights
    return (x,) if y is None else (x, y)


def in_order(batches: Any) -> dict[str, Any]:
    """Batches that Keras is not to put in another order."""
    return {"x": batches, "shuffle": False}
