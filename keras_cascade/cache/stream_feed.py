"""Streams of batches, recorded once, with features in the place of inputs."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.array_feed import in_order, without_missing
from keras_cascade.cache.batches import IndexedBatches, OnePassBatches
from keras_cascade.cache.features import Arrays, Features
from keras_cascade.cache.fingerprint import digest_of, row_ids
from keras_cascade.cache.marks import mark
from keras_cascade.cache.records import Record
from keras_cascade.data.arrays import map_arrays, to_floatx
from keras_cascade.data.inputs import as_input, input_paths, sort_inputs
from keras_cascade.data.sources import Batch, Batches
from keras_cascade.graph.program import as_program
from keras_cascade.training.random_states import preserve_random_states


class StreamFeed:
    """Gives Keras the features of samples in a stream.

    The first pass reads the stream as it comes, and takes down what it gives;
    all further ones read that.

    Args:
        samples: The samples.
        original: The data as the user passed it.
        model: Whose inputs they are.
        key: By which the user vouches that the samples come again, or None.
        role: What they are for: two streams under one key are told apart.
        shuffle: Whether each further pass has another order.
    """

    def __init__(
        self,
        samples: Batches,
        original: Any,
        model: keras.Model,
        key: str | None,
        role: str,
        shuffle: bool,
    ):
        self.samples, self._original = samples, original
        self._key, self._role = key, role
        self._ports = as_program(model).inputs
        self._paths = input_paths(model.input)
        self._shuffle = shuffle
        self._shuffled = samples.shuffled if shuffle else "nothing"
        self._record: Record | None = None
        self._pending: Iterator[Batch] | None = None
        self._first = self._peek()

    @property
    def rows(self) -> int | None:
        """How many samples there are, as far as that is known."""
        if self._record is not None and self._record.is_complete:
            return self._record.rows
        known = self.samples.length
        return None if known is None else known * self._batch_size

    @property
    def steps(self) -> int | None:
        """How many batches there are, likewise."""
        return self.samples.length

    def first_batch(self) -> Batch:
        """The first batch, with labels and weights."""
        return self._first

    def live(self) -> dict[str, Any]:
        """What Keras trains on without features, if it can be read again."""
        x = self._pass() if not self.samples.reiterable else self._original
        return {"x": x, "shuffle": self._shuffle}

    def first(self) -> Arrays:
        """The inputs of the first batch."""
        return self._taken(self._leaves(self._first), self._names)

    def missing(self, features: Features) -> int | None:
        """How many samples have no features yet, as far as that is known."""
        record = self._record_for(features)
        if record is None:
            return self.rows
        return int(features.missing(record.ids).sum())

    def is_complete(self, features: Features) -> bool:
        """Whether all features are there, with labels."""
        return self._record_for(features) is not None and (
            self.missing(features) == 0
        )

    def arguments(self, features: Features, in_memory: bool) -> dict[str, Any]:
        """What Keras trains on: one pass over the stream, or what it gave.

        Args:
            features: The features.
            in_memory: Here it makes no difference: batches stay as they were.
        """
        if self.is_complete(features):
            return in_order(self._recorded(features, self._shuffled))
        recording = self._recording(features)
        if self.steps is None:
            return in_order(recording)
        return in_order(
            OnePassBatches(
                recording,
                self.steps,
                lambda: self._recorded(features, "nothing"),
            )
        )

    def _recorded(self, features: Features, shuffled: str) -> IndexedBatches:
        record: Any = self._record_for(features)
        positions = features.positions(record.ids)

        def read(rows: np.ndarray) -> tuple:
            found = features.read({k: p[rows] for k, p in positions.items()})
            carried, y, weights = record.take(rows)
            return without_missing((mark({**carried, **found}), y, weights))

        ends = np.cumsum(record.sizes)[:-1]
        rows = np.split(np.arange(record.rows), ends)
        return IndexedBatches(read, rows, shuffled)

    def _recording(self, features: Features) -> Iterator[tuple]:
        carried = features.part.carried
        record = Record(features.store, list(features.part.ports), carried)
        for batch in self._pass():
            leaves = self._leaves(batch)
            ids = {name: row_ids(leaves[name]) for name in record.inputs}
            found = features.batch(
                partial(_rows_of, leaves, record.inputs), ids, self._batch_size
            )
            kept = self._taken(leaves, carried)
            if not features.is_full:
                with features.while_there_is_room():
                    record.add(ids, kept, batch)
            yield without_missing((mark({**kept, **found}), *batch[1:]))
        if not features.is_full:
            with features.while_there_is_room():
                record.complete()
                if self._key is not None:
                    record.save(self._name(features))
                self._record = record

    def _record_for(self, features: Features) -> Record | None:
        """What was taken down of this stream, for this cut."""
        record = self._record
        if record is not None and _has_all(record, features):
            return record
        if self._key is None:
            return None
        record = Record.load(features.store, self._name(features), self._first)
        if record is None or not self._is_of_this(record):
            return None
        self._record = record
        return record

    def _is_of_this(self, record: Record) -> bool:
        """Whether a record that was kept is of this stream."""
        if self.samples.length not in (None, len(record.sizes)):
            return False
        leaves = self._leaves(self._first)
        ids = {name: row_ids(leaves[name]) for name in record.inputs}
        return record.holds(ids)

    def _name(self, features: Features) -> str:
        inputs, carried = list(features.part.ports), features.part.carried
        return f"records/{digest_of(self._key, self._role, inputs, carried)}"

    def _peek(self) -> Batch:
        # A torch DataLoader draws a seed whenever it is read.
        with preserve_random_states():
            found = self._read()
            first = next(found)
        if not self.samples.reiterable:
            # It gives its first batch only once.
            self._pending = itertools.chain([first], found)
        return first

    def _pass(self) -> Iterator[Batch]:
        if not self.samples.reiterable:
            found, self._pending = self._pending, None
            return found or iter(())
        return self._read()

    def _read(self) -> Iterator[Batch]:
        for batch in self.samples.read():
            x, y, weights = (map_arrays(to_floatx, part) for part in batch)
            yield x, y, weights

    @property
    def _batch_size(self) -> int:
        return len(next(iter(self._leaves(self._first).values())))

    @property
    def _names(self) -> list[str]:
        return [port.name for port in self._ports]

    def _leaves(self, batch: Batch) -> Arrays:
        return sort_inputs(batch[0], self._paths, "The data")

    def _taken(self, leaves: Arrays, names: list[str]) -> Arrays:
        return {
            port.name: as_input(leaves[port.name], port.shape, port.dtype)
            for port in self._ports
            if port.name in names
        }


def _rows_of(leaves: Arrays, names: Sequence[str], rows: np.ndarray) -> Arrays:
    return {name: leaves[name][rows] for name in names}


def _has_all(record: Record, features: Features) -> bool:
    """Whether a record has the ids and inputs that a cut needs."""
    return set(features.part.ports) <= set(record.inputs) and set(
        features.part.carried
    ) <= set(record.carried)
