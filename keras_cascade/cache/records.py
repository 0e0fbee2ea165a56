"""Records of streams: the ids, labels and weights of their samples, in order.

Every value is stored once, under its hash, as features are. A record lists the
hashes that each sample consists of; it is valid once the stream has ended.

Tested by `tests/cache/test_kinds_of_data.py`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import keras
import numpy as np

from keras_cascade.cache.compiled import Arrays
from keras_cascade.cache.fingerprint import digest_of, row_ids
from keras_cascade.cache.storage.columns import Column, is_kind
from keras_cascade.cache.storage.identifiers import IDS
from keras_cascade.cache.storage.stores import Store, is_key
from keras_cascade.data.sources import Batch

# What the leaves of labels and of sample weights are called in a file.
_PARTS = ("label", "weight")


class Record:
    """Samples in the order in which a stream gave them.

    Args:
        store: The store of the values.
        inputs: The inputs that features are computed from: their ids are
            recorded.
        passed_on: The inputs that the trainable part takes unchanged: their
            values are stored, like labels and sample weights.

    Attributes:
        sizes: The number of samples of each batch.
        is_complete: Whether the stream has ended.
    """

    def __init__(
        self, store: Store, inputs: Sequence[str], passed_on: Sequence[str]
    ):
        self._store = store
        self.inputs, self.passed_on = tuple(inputs), tuple(passed_on)
        self.sizes: list[int] = []
        self._columns: dict[str, Column] = {}
        self._ids: dict[str, list[np.ndarray]] = {}
        self._structures: tuple[Any, Any] = (None, None)
        self._joined: Arrays = {}
        self.is_complete = False

    @property
    def rows(self) -> int:
        """The number of samples."""
        return sum(self.sizes)

    @property
    def ids(self) -> Arrays:
        """The ids of the samples, by input."""
        return {name: self._joined[f"id {name}"] for name in self.inputs}

    def add(self, ids: Arrays, passed_on: Arrays, batch: Batch) -> None:
        """Records a batch, with its ids and the inputs to store, by name."""
        for name in self.inputs:
            self._ids.setdefault(f"id {name}", []).append(ids[name])
        for name, leaf in self._leaves(passed_on, batch).items():
            own = row_ids(leaf)
            self._column(name, leaf).append(own, leaf)
            self._ids.setdefault(name, []).append(own)
        self._structures = batch[1:]
        self.sizes.append(len(next(iter(ids.values()))))

    def complete(self, numbers: Sequence[int] | None = None) -> None:
        """Completes the record when the stream has ended.

        Args:
            numbers: The number of each batch, if they came in another order.
        """
        order = (
            range(len(self.sizes)) if numbers is None else np.argsort(numbers)
        )
        self.sizes = [self.sizes[i] for i in order]
        self._joined = {
            name: np.concatenate([batches[i] for i in order])
            for name, batches in self._ids.items()
        }
        for column in self._columns.values():
            column.finish()
        self.is_complete = True

    def take(self, rows: np.ndarray) -> tuple[Arrays, Any, Any]:
        """Returns the inputs passed on, labels and weights of some samples."""
        found = {
            name: column.read(column.positions(self._joined[name][rows]))
            for name, column in self._columns.items()
        }
        y, weights = (
            self._packed(part, structure, found)
            for part, structure in zip(_PARTS, self._structures, strict=True)
        )
        inputs = {
            name: found[f"input {name}"]
            for name in self.passed_on
            if f"input {name}" in found  # an optional one may be None
        }
        return inputs, y, weights

    def save(self, name: str) -> None:
        """Stores a complete record under a name."""
        # A column of the table for each leaf, a row for each sample.
        table = np.stack(
            [x.view(np.uint8).reshape(-1, 16) for x in self._joined.values()], 1
        )
        content = hashlib.sha256(table.tobytes()).hexdigest()
        key = digest_of("record", content)
        column = self._store.column(key, table.shape[1:], np.uint8, {})
        column.append(_ordinals(len(table)), table)
        column.finish()
        self._store.save_json(
            name,
            {
                "key": key,
                "inputs": self.inputs,
                # The key of earlier versions.
                "carried": self.passed_on,
                "sizes": self.sizes,
                "leaves": list(self._joined),
                "kinds": {
                    leaf: [list(column.shape), str(column.dtype)]
                    for leaf, column in self._columns.items()
                },
            },
        )

    @classmethod
    def load(cls, store: Store, name: str, first: Batch) -> "Record | None":
        """Returns a stored record, if all of its values are still there.

        The structure of labels and weights is that of a first batch.
        """
        kept = store.load_json(name)
        if not _is_as_saved(kept):
            return None
        record = cls(store, kept["inputs"], kept["carried"])
        record.sizes, record._structures = kept["sizes"], first[1:]
        shape = (len(kept["leaves"]), IDS.itemsize)
        column = store.column(kept["key"], shape, np.uint8, {})
        # Damaged files may have taken some rows.
        if record.rows > len(column):
            return None
        places = column.positions(_ordinals(record.rows))
        if (places < 0).any():
            return None
        table = np.ascontiguousarray(column.read(places).swapaxes(0, 1))
        for leaf, bytes_ in zip(kept["leaves"], table, strict=True):
            record._joined[leaf] = bytes_.reshape(-1).view(IDS)
        for leaf, (shape, dtype) in kept["kinds"].items():
            column = _open(store, tuple(shape), np.dtype(dtype))
            record._columns[leaf] = column
            if (column.positions(record._joined[leaf]) < 0).any():
                return None
        record.is_complete = True
        return record

    def contains(self, ids: Arrays) -> bool:
        """Whether all of some samples are among those of the record."""
        return all(
            set(ids[name].tolist()) <= set(own.tolist())
            for name, own in self.ids.items()
        )

    def _column(self, name: str, leaf: np.ndarray) -> Column:
        if name not in self._columns:
            column = _open(self._store, leaf.shape[1:], leaf.dtype)
            self._columns[name] = column
        return self._columns[name]

    def _leaves(self, passed_on: Arrays, batch: Batch) -> Arrays:
        found = {f"input {name}": x for name, x in passed_on.items()}
        for part, structure in zip(_PARTS, batch[1:], strict=True):
            if structure is not None:
                leaves = keras.tree.flatten(structure)
                found |= {f"{part} {i}": x for i, x in enumerate(leaves)}
        return found

    @staticmethod
    def _packed(part: str, structure: Any, found: Mapping[str, Any]) -> Any:
        if structure is None:
            return None
        count = len(keras.tree.flatten(structure))
        leaves = [found[f"{part} {i}"] for i in range(count)]
        return keras.tree.pack_sequence_as(structure, leaves)


def _open(store: Store, shape: tuple[int, ...], dtype: np.dtype) -> Column:
    """Returns the column of all values of one shape and dtype."""
    key = digest_of("values", list(shape), dtype.str)
    return store.column(key, shape, dtype, {"values": "of data"})


def _is_as_saved(kept: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a record that `save` stored, as far as is seen."""
    if not isinstance(kept, dict) or not {*kept} >= _SAVED:
        return False
    names = (kept["inputs"], kept["carried"], kept["leaves"], [kept["key"]])
    if not isinstance(kept["kinds"], dict):
        return False
    if not all(isinstance(each, list) for each in (*names, kept["sizes"])):
        return False
    if not all(isinstance(x, str) for each in names for x in each):
        return False
    leaves = {f"id {name}" for name in kept["inputs"]} | {*kept["kinds"]}
    return (
        all(type(x) is int and x > 0 for x in kept["sizes"])
        and is_key(kept["key"])
        and leaves == {*kept["leaves"]}
        and all(map(is_kind, kept["kinds"].values()))
    )


_SAVED = {"key", "inputs", "carried", "sizes", "leaves", "kinds"}


def _ordinals(count: int) -> np.ndarray:
    """Returns numbers as ids, for rows that have an order."""
    numbers = np.zeros((count, 2), "<u8")
    numbers[:, 0] = np.arange(count)
    return numbers.reshape(-1).view(IDS)
