"""What a stream gave, sample by sample: its ids, labels and weights.

Every value is kept once, under its content, as features are. A record is the
list of what each sample consists of; it counts once the stream has ended.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.fingerprint import digest_of, row_ids
from keras_cascade.cache.storage.identifiers import IDS
from keras_cascade.data.sources import Batch

Arrays = dict[str, np.ndarray]


class Record:
    """Samples in the order in which a stream gave them.

    Args:
        store: Where values are kept.
        inputs: The inputs that features are computed from: their ids count.
        carried: The inputs that the trainable part takes as they are: their
            values are kept, as labels and sample weights are.
    """

    def __init__(
        self, store: Any, inputs: Sequence[str], carried: Sequence[str]
    ):
        self._store = store
        self.inputs, self.carried = tuple(inputs), tuple(carried)
        self.sizes: list[int] = []
        self._columns: dict[str, Any] = {}
        self._ids: dict[str, list[np.ndarray]] = {}
        self._structures: tuple[Any, Any] = (None, None)
        self._joined: Arrays = {}
        self.is_complete = False

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return sum(self.sizes)

    @property
    def ids(self) -> Arrays:
        """The ids of the samples, by the input that they are of."""
        return {name: self._joined[f"id {name}"] for name in self.inputs}

    def add(self, ids: Arrays, carried: Arrays, batch: Batch) -> None:
        """Takes a batch down.

        Args:
            ids: The ids of its rows, by input.
            carried: The inputs that are kept.
            batch: The batch, whose labels and weights are kept.
        """
        for name in self.inputs:
            self._ids.setdefault(f"id {name}", []).append(ids[name])
        for name, leaf in self._leaves(carried, batch).items():
            own = row_ids(leaf)
            self._column(name, leaf).append(own, leaf)
            self._ids.setdefault(name, []).append(own)
        self._structures = batch[1:]
        self.sizes.append(len(next(iter(ids.values()))))

    def complete(self) -> None:
        """The stream has ended."""
        self._joined = {k: np.concatenate(v) for k, v in self._ids.items()}
        for column in self._columns.values():
            column.finish()
        self.is_complete = True

    def take(self, rows: np.ndarray) -> tuple[Arrays, Any, Any]:
        """The carried inputs, labels and weights of some samples."""
        found = {
            name: column.read(column.positions(self._joined[name][rows]))
            for name, column in self._columns.items()
        }
        y, weights = (
            self._packed(part, structure, found)
            for part, structure in zip(_PARTS, self._structures, strict=True)
        )
        return {n: found[f"input {n}"] for n in self.carried}, y, weights

    def save(self, name: str) -> None:
        """Keeps a complete record under a name."""
        table = np.stack(
            [x.view(np.uint8).reshape(-1, 16) for x in self._joined.values()], 1
        )
        key = digest_of("record", *(x.hexdigest() for x in _hashes(table)))
        column = self._store.column(key, table.shape[1:], np.uint8, {})
        column.append(_ordinals(len(table)), table)
        column.finish()
        self._store.save_json(
            name,
            {
                "key": key,
                "inputs": self.inputs,
                "carried": self.carried,
                "sizes": self.sizes,
                "leaves": list(self._joined),
                "kinds": {
                    leaf: [list(column.shape), str(column.dtype)]
                    for leaf, column in self._columns.items()
                },
            },
        )

    @classmethod
    def load(cls, store: Any, name: str, first: Batch) -> "Record | None":
        """A record that was kept, if all of it is still there.

        Args:
            store: Where it is kept.
            name: Its name.
            first: A batch of the stream: labels have its structure.
        """
        kept = store.load_json(name)
        if kept is None:
            return None
        record = cls(store, kept["inputs"], kept["carried"])
        record.sizes, record._structures = kept["sizes"], first[1:]
        shape = (len(kept["leaves"]), IDS.itemsize)
        column = store.column(kept["key"], shape, np.uint8, {})
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

    def holds(self, ids: Arrays) -> bool:
        """Whether all of some samples are among its own."""
        return all(
            set(ids[name].tolist()) <= set(own.tolist())
            for name, own in self.ids.items()
        )

    def _column(self, name: str, leaf: np.ndarray) -> Any:
        if name not in self._columns:
            column = _open(self._store, leaf.shape[1:], leaf.dtype)
            self._columns[name] = column
        return self._columns[name]

    def _leaves(self, carried: Arrays, batch: Batch) -> Arrays:
        found = {f"input {name}": carried[name] for name in self.carried}
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


_PARTS = ("label", "weight")


def _open(store: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Where values of one kind are kept, whatever record they are of."""
    key = digest_of("values", list(shape), dtype.str)
    return store.column(key, shape, dtype, {"values": "of data"})


def _hashes(table: np.ndarray) -> Any:
    import hashlib

    return [hashlib.sha256(table.tobytes())]


def _ordinals(count: int) -> np.ndarray:
    """Ids for numbered rows."""
    numbers = np.zeros((count, 2), "<u8")
    numbers[:, 0] = np.arange(count)
    return numbers.reshape(-1).view(IDS)
