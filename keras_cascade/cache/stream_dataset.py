"""Streams of batches as data of a cascade: recorded once, read from then on.

Tested by `tests/cache/test_kinds_of_data.py`.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from keras_cascade._cascade_view import CascadeView
from keras_cascade.cache.compiled import Arrays
from keras_cascade.cache.datasets import Dataset, in_order, model_batch
from keras_cascade.cache.features import Features
from keras_cascade.cache.fingerprint import digest_of, row_ids
from keras_cascade.cache.py_datasets import (
    IndexedBatches,
    ModelBatch,
    OnePassBatches,
)
from keras_cascade.cache.records import Record
from keras_cascade.data.arrays import map_arrays, to_floatx
from keras_cascade.data.sources import Batch, Batches
from keras_cascade.training.random_states import preserve_random_states


class StreamDataset(Dataset):
    """Samples that come in batches.

    The first pass reads the stream and records the ids, labels and weights of
    its samples; all further passes read the record.

    Args:
        cascade: The cascade.
        samples: The samples.
        original: The data as the user passed it.
        key: The name by which the user says that samples repeat, or None.
        role: The use of the data: two streams under one key differ in it.
        shuffle: Whether each further pass has another order.
    """

    def __init__(
        self,
        cascade: CascadeView,
        samples: Batches,
        original: object,
        key: str | None,
        role: str,
        shuffle: bool,
    ):
        super().__init__(cascade, samples.length)
        self._samples, self._original = samples, original
        self._key, self._role, self._shuffle = key, role, shuffle
        self._record: Record | None = None
        self._pending: Iterator[Batch] | None = None
        self._first = self._peek()
        self._batch_size = len(next(iter(self._sort(self._first[0]).values())))

    def first_batch(self) -> Batch:
        """Returns the first batch, with labels and weights."""
        return self._first

    def look_again(self) -> None:
        """Reads some entries again, if there is an index and no key."""
        looks = self._samples.looks
        if self._key is None and looks is not None:
            with preserve_random_states():
                self.varies_because = self.varies_because or looks.changed()

    def live_arguments(self) -> dict[str, Any]:
        """Returns the arguments of Keras's `fit` without features."""
        x = self._original if self._samples.reiterable else self._pass()
        return {"x": x, "shuffle": self._shuffle}

    def missing(self, features: Features) -> int | None:
        """Returns how many samples have no features yet, where it is known."""
        record = self._record_for(features)
        if record is not None:
            return int(features.missing(record.ids).sum())
        if self._record is not None:  # which serves another cut
            return self._record.rows
        return None if self.steps is None else self.steps * self._batch_size

    def is_complete(self, features: Features) -> bool:
        """Whether all features are there, with their labels."""
        is_recorded = self._record_for(features) is not None
        return is_recorded and self.missing(features) == 0

    def arguments(self, features: Features, in_memory: bool) -> dict[str, Any]:
        """Returns the arguments of Keras's `fit` on features, in batches."""
        record = self._record_for(features)
        if record is not None and self.is_complete(features):
            order = self._samples.order.shuffled if self._shuffle else "nothing"
            return in_order(_reading(record, features, order))
        recording = self._recording(features)
        if self.steps is None:
            return in_order(recording)
        return in_order(
            OnePassBatches(
                recording, self.steps, lambda: self._recorded(features)
            )
        )

    def _recorded(self, features: Features) -> IndexedBatches:
        record = self._record_for(features)
        if record is None:
            raise RuntimeError("The record of a stream is not complete.")
        return _reading(record, features, "nothing")

    def _recording(self, features: Features) -> Iterator[ModelBatch]:
        """Yields the batches of the stream, and records them."""
        passed_on = features.part.passed_on
        record = Record(features.store, list(features.part.ports), passed_on)
        for batch in self._watched(self._pass()):
            arrays = self._sort(batch[0])
            ids = _ids(arrays, record)
            found = features.batch(
                partial(_rows_of, arrays, record), ids, self._batch_size
            )
            inputs = self._as_inputs(arrays, passed_on)
            # A record with a gap would be of no use: it ends with the room.
            if not features.is_full:
                with features.while_there_is_room():
                    record.add(ids, inputs, batch)
            yield model_batch(inputs, found, batch)
        if not features.is_full and self.varies_because is None:
            with features.while_there_is_room():
                record.complete()
                if self._key is not None:
                    record.save(self._name(features))
                self._record = record

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields batches, and sees whether reading them draws at random."""
        looks = self._samples.looks if self._key is None else None
        # A pass of a torch DataLoader draws a seed before its first batch.
        yield from itertools.islice(batches, 1)
        while True:
            before = looks and looks.generators.states()
            batch = next(batches, None)
            if batch is None:
                return
            if looks is not None and looks.generators.states() != before:
                self.varies_because = (
                    "random numbers were drawn when its samples were read"
                )
            yield batch

    def _record_for(self, features: Features) -> Record | None:
        """Returns the record of this stream, if it serves this cut."""
        record = self._record
        if record is not None and _serves(record, features):
            return record
        if self._key is None:
            return None
        record = Record.load(features.store, self._name(features), self._first)
        if record is None or not self._is_of_this(record):
            return None
        self._record = record
        return record

    def _is_of_this(self, record: Record) -> bool:
        """Whether a record that was stored is of this stream."""
        # The first batch is enough, as the user says that samples repeat.
        if self.steps not in (None, len(record.sizes)):
            return False
        return record.contains(_ids(self._sort(self._first[0]), record))

    def _name(self, features: Features) -> str:
        inputs, passed_on = list(features.part.ports), features.part.passed_on
        return f"records/{digest_of(self._key, self._role, inputs, passed_on)}"

    def _peek(self) -> Batch:
        # A torch DataLoader draws a seed whenever a pass begins.
        with preserve_random_states():
            found = self._read()
            first = next(found)
        # A generator gives its first batch only once.
        if not self._samples.reiterable:
            self._pending = itertools.chain([first], found)
        return first

    def _pass(self) -> Iterator[Batch]:
        if self._samples.reiterable:
            return self._read()
        found, self._pending = self._pending, None
        return found or iter(())

    def _read(self) -> Iterator[Batch]:
        for batch in self._samples.read():
            x, y, weights = (map_arrays(to_floatx, part) for part in batch)
            yield x, y, weights


def _reading(record: Record, features: Features, order: str) -> IndexedBatches:
    """Returns the batches of a record, which are all stored."""
    positions = features.positions(record.ids)

    def read(rows: np.ndarray) -> ModelBatch:
        found = features.read({k: p[rows] for k, p in positions.items()})
        inputs, y, weights = record.take(rows)
        return model_batch(inputs, found, (None, y, weights))

    ends = np.cumsum(record.sizes)[:-1]
    return IndexedBatches(read, np.split(np.arange(record.rows), ends), order)


def _rows_of(arrays: Arrays, record: Record, rows: np.ndarray) -> Arrays:
    return {name: arrays[name][rows] for name in record.inputs}


def _ids(arrays: Arrays, record: Record) -> Arrays:
    return {name: row_ids(arrays[name]) for name in record.inputs}


def _serves(record: Record, features: Features) -> bool:
    """Whether a record has the ids and inputs that a cut needs."""
    return set(features.part.ports) <= set(record.inputs) and set(
        features.part.passed_on
    ) <= set(record.passed_on)
