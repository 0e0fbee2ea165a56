"""Draws the order in which Keras's `fit` reads arrays."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters.array_data_adapter import (
    ArrayDataAdapter,
)


class ArrayOrder:
    """The rows of each batch, drawn as `fit` draws them for arrays.

    Each backend draws in its own way, from another generator, and Keras has
    no public function for it. Seen on Keras 3.15.1.

    Args:
        rows: The number of rows.
        batch_size: The rows of a batch.
        shuffle: As `fit` takes it.
    """

    def __init__(self, rows: int, batch_size: int, shuffle: bool | str):
        # It takes "batch" too, whatever its annotation says.
        order: Any = shuffle
        self._adapter: Any = ArrayDataAdapter(
            np.arange(rows), batch_size=batch_size, shuffle=order
        )

    def draw(self) -> list[np.ndarray]:
        """Returns the rows of each batch of an epoch."""
        return [np.asarray(rows) for rows in self._batches()]

    def _batches(self) -> Iterator[Any]:
        backend = keras.config.backend()
        if backend == "torch":
            # A whole DataLoader would draw a seed more than its sampler.
            return iter(self._adapter.get_torch_dataloader().batch_sampler)
        if backend == "tensorflow":
            return iter(self._adapter.get_tf_dataset())
        return iter(self._adapter.get_jax_iterator())
