"""Streams of batches as data of a cascade: recorded once, read from then on.

Tested by `tests/cache/test_kinds_of_data.py`.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import keras
import numpy as np

from keras_cascade._cascade_view import CascadeView
from keras_cascade.cache.compiled import Arrays
from keras_cascade.cache.datasets import (
    Dataset,
    ids_of,
    in_order,
    model_batch,
    without_absent,
)
from keras_cascade.cache.features import Features
from keras_cascade.cache.fingerprint import digest_of
from keras_cascade.cache.py_datasets import (
    EachOnce,
    IndexedBatches,
    ModelBatch,
    OnePassBatches,
    shuffle_rows,
)
from keras_cascade.cache.records import Record
from keras_cascade.data.arrays import map_arrays, to_floatx
from keras_cascade.data.sources import Batch, Batches, as_batch
from keras_cascade.training.random_states import preserve_random_states

# A reason to train live. Features of such samples are not stored.
_SEVERAL_SHAPES = "its samples have several shapes"


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

    def opening_arguments(self) -> dict[str, Any]:
        """Returns the arguments of a `fit` without epochs."""
        count = self.steps or 1
        first = without_absent(self._first)
        batches = IndexedBatches(
            lambda rows: first, count, lambda: [np.arange(0)] * count
        )
        return {"x": batches, "shuffle": self._shuffles_batches}

    @property
    def _shuffles_batches(self) -> bool:
        """Whether Keras shuffles the batches, by their numbers."""
        is_py_dataset = self._samples.order.shuffled == "batches"
        return self._shuffle and is_py_dataset

    def look_at_shapes(self) -> None:
        """Sets `varies_because` if samples of several shapes are seen."""
        looks = self._samples.looks
        if self._key is not None or looks is None:
            return
        with preserve_random_states():
            found = map(as_batch, looks.entries())
            shapes = {tuple(_shapes(batch)) for batch in found}
        if len(shapes) > 1:
            self.varies_because = _SEVERAL_SHAPES

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
            # A PyDataset is shuffled by Keras, as in a live training.
            shuffles = self._samples.order.shuffled == "samples"
            return {
                "x": _reading(record, features, shuffles and self._shuffle),
                "shuffle": self._shuffles_batches,
            }
        order = self._samples.order
        if order.shuffled == "batches" and order.index is not None:
            batches = self._by_number(features)
            return {"x": batches, "shuffle": self._shuffles_batches}
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
        return _reading(record, features, shuffles=False)

    def _by_number(self, features: Features) -> EachOnce:
        """Returns the batches of a PyDataset, in whatever order Keras reads."""
        record, numbers = self._new_record(features), list[int]()

        def make(number: int) -> ModelBatch:
            batch = self._entry(number)
            is_new = number not in numbers
            if is_new:
                numbers.append(number)
            return self._made(record if is_new else None, features, batch)

        def again(number: int) -> ModelBatch:
            known = recorded()
            return make(number) if known is None else known[number]

        @cache
        def recorded() -> IndexedBatches | None:
            has_record = self._record_for(features) is not None
            return self._recorded(features) if has_record else None

        return EachOnce(
            make,
            self.steps or 0,
            lambda: self._complete(record, features, numbers),
            again,
        )

    def _recording(self, features: Features) -> Iterator[ModelBatch]:
        """Yields the batches of the stream, and records them."""
        record = self._new_record(features)
        for batch in self._watched(self._pass()):
            yield self._made(record, features, batch)
        self._complete(record, features)

    def _new_record(self, features: Features) -> Record:
        part = features.part
        return Record(features.store, list(part.ports), part.passed_on)

    def _made(
        self, record: Record | None, features: Features, batch: Batch
    ) -> ModelBatch:
        """Returns a batch on features, after adding it to a record."""
        names, passed_on = list(features.part.ports), features.part.passed_on
        arrays = self._sort(batch[0])
        if _shapes(batch) != _shapes(self._first) and features.part.is_open:
            self.varies_because = _SEVERAL_SHAPES
        if self.varies_because == _SEVERAL_SHAPES:
            made = features.part.compute(
                self._as_inputs(arrays, names), self._batch_size
            )
            return model_batch(self._as_inputs(arrays, passed_on), made, batch)
        ids = ids_of(arrays, names)
        found = features.batch(
            partial(_rows_of, arrays, names), ids, self._batch_size
        )
        inputs = self._as_inputs(arrays, passed_on)
        # A record with a gap would be of no use: it ends with the room.
        if record is not None and not features.is_full:
            with features.while_there_is_room():
                record.add(ids, inputs, batch)
        return model_batch(inputs, found, batch)

    def _complete(
        self,
        record: Record,
        features: Features,
        numbers: list[int] | None = None,
    ) -> None:
        if features.is_full or self.varies_because is not None:
            return
        with features.while_there_is_room():
            record.complete(numbers)
            if self._key is not None:
                record.save(self._name(features))
            self._record = record

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields batches, and sees whether reading them draws at random."""
        # A pass of a torch DataLoader draws a seed before its first batch.
        yield from itertools.islice(batches, 1)
        while True:
            with self._watching():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _entry(self, number: int) -> Batch:
        with self._watching():
            batch = self._samples.entry(number)
        x, y, weights = (map_arrays(to_floatx, part) for part in batch)
        return x, y, weights

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Sees whether code draws random numbers, unless there is a key."""
        looks = self._samples.looks
        if looks is None or self._key is not None:
            yield
            return
        before = looks.generators.states()
        yield
        if looks.generators.states() != before:
            self.varies_because = (
                "random numbers were drawn when its samples were read"
            )

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
        first = self._sort(self._first[0])
        return record.contains(ids_of(first, record.inputs))

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


def _reading(
    record: Record, features: Features, shuffles: bool
) -> IndexedBatches:
    """Returns the batches of a record, which are all stored."""
    positions = features.positions(record.ids)

    def read(rows: np.ndarray) -> ModelBatch:
        found = features.read({k: p[rows] for k, p in positions.items()})
        inputs, y, weights = record.take(rows)
        return model_batch(inputs, found, (None, y, weights))

    ends = np.cumsum(record.sizes)[:-1]
    batches = np.split(np.arange(record.rows), ends)

    def draw() -> list[np.ndarray]:
        return shuffle_rows(batches) if shuffles else batches

    return IndexedBatches(read, len(batches), draw)


def _shapes(batch: Batch) -> list[tuple[int, ...]]:
    """Returns the shapes of a sample's arrays."""
    leaves = keras.tree.flatten(batch)
    return [x.shape[1:] for x in leaves if x is not None]


def _rows_of(arrays: Arrays, names: Sequence[str], rows: np.ndarray) -> Arrays:
    return {name: arrays[name][rows] for name in names if name in arrays}


def _serves(record: Record, features: Features) -> bool:
    """Whether a record has the ids and inputs that a cut needs."""
    return set(features.part.ports) <= set(record.inputs) and set(
        features.part.passed_on
    ) <= set(record.passed_on)
