"""Estimates the diagonal of a network's Fisher information, in a stream.

Public Keras suffices on every backend: a training step whose loss is a
weighted sum of the outputs, and whose optimizer changes no weight but adds up
the squares of the gradients.
"""

import math
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import data as user_data
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.training.retention.output_kinds import Kind, fisher_statistic


def fisher_diagonal(
    network: keras.Model,
    data: object,
    kinds: Sequence[Kind],
    probes: int | None = 1,
    batch_size: int = 32,
    seed: int = 0,
) -> list[np.ndarray]:
    """Returns the diagonal of the Fisher information of trainable weights.

    It is that of the network's own distribution over outputs, not of labels
    ("empirical"), averaged over the samples in one pass. The network stays as
    it is and runs in inference mode; `kinds` are those of its outputs, and
    further arguments as in `EWC`. There is an array for each trainable weight.
    """
    optimizer = SquaredGradients(learning_rate=0.0)
    model = _Statistics(network, kinds)
    # Under mixed_float16 Keras would wrap the optimizer in one that skips
    # steps.
    model.compile(optimizer, loss=_WeightedSum(), auto_scale_loss=False)
    samples = 0
    for batch in user_data.batches(data, batch_size):
        samples += _rows(batch)
        for x, weights in _directions(model, batch, probes, (seed, samples)):
            model.train_on_batch(x, weights)
    # Random directions are averaged; exact ones add up to the sum.
    total = samples * (probes or 1)
    found = [to_numpy_copy(square) / total for square in optimizer.squares]
    for variable, value in zip(network.trainable_variables, found, strict=True):
        _check_finite(variable, value)
    return found


class SquaredGradients(keras.optimizers.Optimizer):
    """Adds up the squares of gradients, and changes no weight."""

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the sums."""
        if self.built:
            return
        super().build(variables)
        self.squares = [
            self.add_variable_from_reference(variable, name="square")
            for variable in variables
        ]

    def update_step(
        self, gradient: object, variable: keras.Variable, learning_rate: object
    ) -> None:
        """Adds the square of a gradient."""
        square: Any = self.squares[self._get_variable_index(variable)]
        # On TensorFlow an embedding's gradient is a list of rows, with
        # repetitions, and ops.square would square each row before they are
        # added up. Adding zeros makes it a plain tensor.
        gradient = ops.add(ops.zeros(square.shape, square.dtype), gradient)
        self.assign_add(square, ops.square(gradient))


class _Statistics(keras.Model):
    """Computes the statistics of a network's outputs, in inference mode."""

    def __init__(self, network: keras.Model, kinds: Sequence[Kind]):
        super().__init__(name="statistics")
        self.network = network
        self._kinds = tuple(kinds)

    def call(self, inputs: Any) -> Any:
        """Returns all outputs side by side: (batch, outputs)."""
        outputs = keras.tree.flatten(self.network(inputs, training=False))
        columns = [
            fisher_statistic(output, kind)
            for output, kind in zip(outputs, self._kinds, strict=True)
        ]
        return ops.concatenate(columns, axis=-1)


class _WeightedSum(keras.losses.Loss):
    """The sum of outputs over the whole batch, weighted by the labels."""

    def __init__(self) -> None:
        super().__init__(name="weighted_sum", reduction="sum")

    def call(self, y_true: object, y_pred: object) -> Any:
        """Returns the weighted sum of each row."""
        return ops.sum(ops.multiply(y_true, y_pred), axis=-1)


def _directions(
    model: _Statistics,
    batch: object,
    probes: int | None,
    seed: tuple[int, int],
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields rows, and weights of their outputs: random signs, or 1 and 0."""
    rows, columns = _rows(batch), _columns(model, batch)
    if probes is not None:
        rng = np.random.default_rng(seed)
        for _ in range(probes):
            signs = rng.integers(0, 2, (rows, columns))
            yield batch, (2 * signs - 1).astype("float32")
        return
    for row in range(rows):
        alone = keras.tree.map_structure(itemgetter(slice(row, row + 1)), batch)
        for one in np.eye(columns, dtype="float32"):
            yield alone, one[None]


def _columns(model: _Statistics, batch: object) -> int:
    """Returns the number of statistics of a sample."""
    shapes = [output.shape[1:] for output in model.network.outputs]
    if any(None in shape for shape in shapes):
        return model.predict_on_batch(batch).shape[1]
    return sum(math.prod(shape) for shape in shapes)


def _rows(batch: object) -> int:
    return len(keras.tree.flatten(batch)[0])


def _check_finite(variable: keras.Variable, fisher: np.ndarray) -> None:
    if not np.isfinite(fisher).all():
        raise ValueError(
            f"The Fisher information of '{variable.path}' is not finite: EWC's "
            "data, or the network's outputs for them, contain nan or inf."
        )
