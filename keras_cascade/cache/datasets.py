"""The data of a cascade, from which Keras trains live or on cached features.

Tested by `tests/cache/test_kinds_of_data.py`.
"""

from collections.abc import Container, Iterable
from typing import Any

import numpy as np

from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade.cache.cached_names import to_cached_names
from keras_cascade.cache.compiled import Arrays
from keras_cascade.cache.features import Features
from keras_cascade.cache.fingerprint import row_ids
from keras_cascade.cache.py_datasets import IndexedBatches, ModelBatch
from keras_cascade.cache.storage.identifiers import IDS
from keras_cascade.data.arrays import map_arrays, to_trainable
from keras_cascade.data.inputs import as_input, input_paths, sort_inputs
from keras_cascade.data.sources import Batch
from keras_cascade.graph.flattening import as_program


class Dataset:
    """Samples of inputs of a cascade, with or without their features.

    Attributes:
        steps: The number of batches, where it is known.
        varies_because: The reason why the samples are no longer taken to be
            the same in each epoch; None while they are.
    """

    def __init__(self, cascade: CascadeView, steps: int | None):
        self.steps = steps
        self.varies_because: str | None = None
        self._ports = as_program(as_model(cascade)).inputs
        self._paths = input_paths(cascade.input)

    def first_batch(self) -> Batch:
        """Returns the first batch, with labels and weights."""
        raise NotImplementedError

    def opening_arguments(self) -> dict[str, Any]:
        """Returns the arguments of a `fit` without epochs.

        Keras builds metrics on a first batch, for which it may draw an order.
        """
        raise NotImplementedError

    def look_at_shapes(self) -> None:
        """Sets `varies_because` if samples of several shapes are seen."""

    def look_again(self) -> None:
        """Looks at some samples, and sets `varies_because` if they changed."""
        raise NotImplementedError

    def live_arguments(self) -> dict[str, Any]:
        """Returns the arguments of Keras's `fit` without features."""
        raise NotImplementedError

    def arguments(self, features: Features, in_memory: bool) -> dict[str, Any]:
        """Returns the arguments of Keras's `fit` on features.

        Missing features are computed on the way; complete ones that are in
        memory may come as arrays.
        """
        raise NotImplementedError

    def missing(self, features: Features) -> int | None:
        """Returns how many samples have no features yet, where it is known."""
        raise NotImplementedError

    def is_complete(self, features: Features) -> bool:
        """Whether all features are there, with their labels."""
        return self.missing(features) == 0

    def first_inputs(self) -> Arrays:
        """Returns the inputs of the first batch, by name."""
        return self._as_inputs(self._sort(self.first_batch()[0]))

    def _sort(self, x: object) -> Arrays:
        """Returns the arrays by input; an optional one may be left out."""
        found = sort_inputs(x, self._paths, "The data")
        optional = {port.name for port in self._ports if port.optional}
        given: Any = {
            name: array
            for name, array in found.items()
            if array is not None or name not in optional
        }
        return given

    def _as_inputs(
        self,
        arrays: Arrays,
        names: Container[str] | None = None,
        rows: np.ndarray | slice = slice(None),
    ) -> Arrays:
        """Returns rows of inputs as the layers of the cascade take them."""
        return {
            port.name: as_input(arrays[port.name][rows], port.shape, port.dtype)
            for port in self._ports
            if port.name in arrays and (names is None or port.name in names)
        }


def model_batch(inputs: Arrays, features: Arrays, batch: Batch) -> ModelBatch:
    """Returns a batch in which features take the place of inputs.

    Some inputs, which the trainable part takes unchanged, stay beside them.
    """
    return without_absent((to_cached_names({**inputs, **features}), *batch[1:]))


def without_absent(batch: Batch) -> ModelBatch:
    """Returns a batch without the parts at the end that are missing."""
    x, y, weights = batch
    x = map_arrays(to_trainable, x)
    if weights is not None:
        return x, y, weights
    return (x,) if y is None else (x, y)


def in_order(batches: Iterable[ModelBatch] | IndexedBatches) -> dict[str, Any]:
    """Returns the arguments for batches that Keras must not shuffle."""
    return {"x": batches, "shuffle": False}


def ids_of(arrays: Arrays, names: Iterable[str]) -> Arrays:
    """Returns the ids of rows by input; an input without values has one id."""
    rows = len(next(iter(arrays.values())))
    return {
        name: row_ids(arrays[name]) if name in arrays else np.zeros(rows, IDS)
        for name in names
    }
