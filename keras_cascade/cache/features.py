"""The features of one cut: looked up by content, computed where missing."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np

from keras_cascade.cache.fingerprint import joint_ids
from keras_cascade.cache.part import FrozenPart
from keras_cascade.cache.storage.columns import CacheFull, Column

Arrays = dict[str, np.ndarray]
# The ids of rows, by the input that they are rows of.
RowIds = Mapping[str, np.ndarray]


class Features:
    """What the frozen part gives, for samples by their content.

    Args:
        part: What computes them.
        store: Where they are kept.
        dtype: What floats are kept in.
    """

    def __init__(self, part: FrozenPart, store: Any, dtype: str):
        self.part, self.store = part, store
        self.columns: dict[str, Column] = {
            entry.name: store.column(
                entry.key_as(dtype),
                entry.shape,
                stored_as(entry.dtype, dtype),
                entry.description,
            )
            for entry in part.entries
        }
        self.is_full = False
        self._lock = threading.RLock()
        if damaged := sum(x.damaged for x in self.columns.values()):
            warnings.warn(
                f"cache_features: {damaged} files of features are not as they "
                "were written. What they held is computed again.",
                stacklevel=4,
            )

    @property
    def row_bytes(self) -> int:
        """What a sample takes."""
        return sum(column.row_bytes for column in self.columns.values())

    def describe(self) -> str:
        """What is kept of a sample, in words."""
        kinds = [
            f"'{entry.name}' {' × '.join(map(str, entry.shape)) or '1'}"
            for entry in self.part.entries
        ]
        return f"{', '.join(kinds)}, {self.row_bytes:,} bytes a sample"

    def reserve(self, missing: Sequence[int]) -> None:
        """Tells columns how many rows are still to come."""
        for column in self.columns.values():
            column.reserve(len(column) + sum(missing))

    @contextmanager
    def while_there_is_room(self) -> Iterator[None]:
        """Nothing more is kept from when something does not fit."""
        try:
            yield
        except CacheFull as error:
            self.is_full = True
            warnings.warn(
                f"cache_features: {error} Training goes on without the cache.",
                stacklevel=4,
            )

    def positions(self, ids: RowIds) -> dict[str, np.ndarray]:
        """Where the rows are kept, -1 where they are not, by entry."""
        return {
            entry.name: self.columns[entry.name].positions(
                joint_ids([ids[name] for name in entry.inputs])
            )
            for entry in self.part.entries
        }

    def missing(self, ids: RowIds) -> np.ndarray:
        """Which of some rows are to be computed, as a mask."""
        found = list(self.positions(ids).values())
        rows = len(next(iter(ids.values())))
        return np.any([p < 0 for p in found], axis=0) & np.ones(rows, bool)

    def read(self, positions: Mapping[str, np.ndarray]) -> Arrays:
        """Rows that are kept, in the dtypes that the cascade has."""
        return {
            entry.name: self.columns[entry.name]
            .read(positions[entry.name])
            .astype(entry.dtype, copy=False)
            for entry in self.part.entries
        }

    def batch(
        self, inputs: Callable[[np.ndarray], Arrays], ids: RowIds, size: int
    ) -> Arrays:
        """The features of a batch, computed and kept where they are missing.

        Args:
            inputs: Gives the inputs of some of the rows, from a mask.
            ids: Their ids.
            size: The rows that are computed at once, whatever is missing: the
                compiled function has one shape.
        """
        with self._lock:
            missing = self.missing(ids)
            if not missing.any():
                return self.read(self.positions(ids))
            made = self.part.compute(inputs(missing), size)
            if not self.is_full:
                self._keep(made, {k: x[missing] for k, x in ids.items()})
            positions = self.positions(ids)
            if all((p >= 0).all() for p in positions.values()):
                return self.read(positions)
            return self._mixed(positions, made, missing)

    def _keep(self, made: Arrays, ids: RowIds) -> None:
        with self.while_there_is_room():
            for entry in self.part.entries:
                column = self.columns[entry.name]
                own = joint_ids([ids[name] for name in entry.inputs])
                column.append(own, made[entry.name].astype(column.dtype))

    def _mixed(
        self, positions: Mapping[str, np.ndarray], made: Arrays, rows: Any
    ) -> Arrays:
        """A batch of rows that are kept and rows that could not be."""
        kept = self.read({k: p[~rows] for k, p in positions.items()})
        batch: Arrays = {}
        for name, values in made.items():
            batch[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
            batch[name][rows], batch[name][~rows] = values, kept[name]
        return batch


def stored_as(dtype: str, floats: str) -> np.dtype:
    """What a tensor of a dtype is kept in.

    Args:
        dtype: Of the tensor.
        floats: What floats are kept in, where that is less.
    """
    own = as_numpy(dtype)
    if "float" not in dtype:
        return own
    kept = as_numpy(floats)
    return kept if kept.itemsize < own.itemsize else own


def as_numpy(dtype: str) -> np.dtype:
    """The NumPy dtype of that name, bfloat16 included."""
    if dtype == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)
