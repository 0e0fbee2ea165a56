"""The features of one cut: looked up by content, computed where missing.

Tested by `tests/cache/test_segments.py` and `tests/cache/test_full_disk.py`.
"""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import ml_dtypes  # noqa: F401, which teaches NumPy the name of bfloat16
import numpy as np

from keras_cascade.cache.compiled import Arrays
from keras_cascade.cache.fingerprint import digest_of, joint_ids
from keras_cascade.cache.frozen_part import CachedTensor, FrozenPart
from keras_cascade.cache.storage.columns import CacheFull, Column
from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.stores import Store

# The ids of rows, by the input that they are rows of.
RowIds = Mapping[str, np.ndarray]
# The positions of rows in columns, by the tensor that they are rows of.
Positions = Mapping[str, np.ndarray]


class Features:
    """The outputs of a frozen part, stored by the content of samples.

    Args:
        part: The part that computes them.
        store: The store of their columns.
        dtype: The dtype that floats are stored in.

    Attributes:
        columns: The column of each tensor, by its name.
        is_full: Whether something did not fit, so that nothing more is kept.
    """

    def __init__(self, part: FrozenPart, store: Store, dtype: str):
        self.part, self.store = part, store
        self.columns: dict[str, Column] = {
            tensor.name: store.column(
                digest_of(tensor.key, dtype),
                tensor.shape,
                stored_as(tensor.dtype, dtype),
                # For people who look into a folder.
                {"tensor": tensor.name, "inputs": list(tensor.inputs)},
            )
            for tensor in part.tensors
        }
        self.is_full = False
        self._lock = threading.RLock()
        self._warn_of_files()

    def _warn_of_files(self) -> None:
        """Warns of damaged files, and of features that no other one reads."""
        if isinstance(self.store, DiskStore):
            for name, reason in self.part.unknown.items():
                warnings.warn(
                    f"cache_features: '{name}' {reason}: its features serve "
                    "this process alone, others compute them again.",
                    stacklevel=5,
                )
        if damaged := sum(x.damaged for x in self.columns.values()):
            warnings.warn(
                f"cache_features: {damaged} files of features are not as they "
                "were written. Their features are computed again.",
                stacklevel=5,
            )

    @property
    def row_bytes(self) -> int:
        """The bytes that a sample takes."""
        return sum(column.row_bytes for column in self.columns.values())

    def describe(self) -> str:
        """Returns the tensors of a sample and their size, in words."""
        kinds = [
            f"'{tensor.name}' {' × '.join(map(str, tensor.shape)) or '1'}"
            for tensor in self.part.tensors
        ]
        return f"{', '.join(kinds)}, {self.row_bytes:,} bytes a sample"

    def reserve(self, missing: Sequence[int]) -> None:
        """Prepares the columns for rows that are still to come."""
        for column in self.columns.values():
            column.reserve(len(column) + sum(missing))

    @contextmanager
    def while_there_is_room(self) -> Iterator[None]:
        """Warns if something does not fit; from then on nothing is kept."""
        try:
            yield
        except CacheFull as error:
            self.is_full = True
            warnings.warn(
                f"cache_features: {error} Training goes on without the cache.",
                stacklevel=4,
            )

    def positions(self, ids: RowIds) -> dict[str, np.ndarray]:
        """Returns the positions of rows by tensor; -1 for missing ones."""
        return {
            tensor.name: self.columns[tensor.name].positions(_ids(tensor, ids))
            for tensor in self.part.tensors
        }

    def missing(self, ids: RowIds) -> np.ndarray:
        """Returns a mask of the rows that are to be computed."""
        mask = np.zeros(len(next(iter(ids.values()))), bool)
        for positions in self.positions(ids).values():
            mask |= positions < 0
        return mask

    def read(self, positions: Positions) -> Arrays:
        """Returns stored rows in the dtypes that the cascade has."""
        return {
            tensor.name: self.columns[tensor.name]
            .read(positions[tensor.name])
            .astype(tensor.dtype, copy=False)
            for tensor in self.part.tensors
        }

    def batch(
        self, inputs: Callable[[np.ndarray], Arrays], ids: RowIds, size: int
    ) -> Arrays:
        """Returns the features of a batch; computes and keeps missing ones.

        Args:
            inputs: Returns the inputs of the rows that a mask selects.
            ids: The ids of all rows.
            size: The rows that are computed at once, however few are missing.
        """
        # Keras may read batches in several threads.
        with self._lock:
            missing = self.missing(ids)
            if not missing.any():
                return self.read(self.positions(ids))
            made = self.part.compute(inputs(missing), size)
            if not self.is_full:
                self._keep(made, {k: x[missing] for k, x in ids.items()})
            # Read back: rounded to the dtype that later epochs read as well.
            positions = self.positions(ids)
            if all((p >= 0).all() for p in positions.values()):
                return self.read(positions)
            return self._mixed(positions, made, missing)

    def _keep(self, made: Arrays, ids: RowIds) -> None:
        with self.while_there_is_room():
            for tensor in self.part.tensors:
                column = self.columns[tensor.name]
                rows = made[tensor.name].astype(column.dtype)
                column.append(_ids(tensor, ids), rows)

    def _mixed(
        self, positions: Positions, made: Arrays, rows: np.ndarray
    ) -> Arrays:
        """Returns a batch of stored rows and of rows that had no room."""
        kept = self.read({k: p[~rows] for k, p in positions.items()})
        batch: Arrays = {}
        for name, values in made.items():
            batch[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
            batch[name][rows], batch[name][~rows] = values, kept[name]
        return batch


def stored_as(dtype: str, floats: str) -> np.dtype:
    """Returns the dtype to store a tensor in: for large floats, `floats`."""
    own, stored = np.dtype(dtype), np.dtype(floats)
    is_smaller = "float" in dtype and stored.itemsize < own.itemsize
    return stored if is_smaller else own


def _ids(tensor: CachedTensor, ids: RowIds) -> np.ndarray:
    return joint_ids([ids[name] for name in tensor.inputs])
