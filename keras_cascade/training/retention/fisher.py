"""Estimates the diagonal of a network's Fisher information, in a stream.

On every backend by public Keras alone: a training step whose loss is a
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
from keras_cascade.training.retention.output_kinds import Kind, statistic


def fisher_diagonal(
    network: keras.Model,
    data: Any,
    kinds: Sequence[Kind],
    probes: int | None = 1,
    batch_size: int = 32,
    seed: int = 0,
) -> list[np.ndarray]:
    """The diagonal of the Fisher information of each trainable weight.

    It is that of the network's own distribution over answers, not of labels
    ("empirical"), averaged over the samples. One pass over the data.

    Args:
        network: The network. Its weights stay as they are; it runs in
            inference mode.
        data: Everything that `fit` takes, as the network takes it.
        kinds: What each of its outputs is.
        probes: How many random directions a batch, or None for an exact sum.
            Defaults to `1`.
        batch_size: Rows at a time where the data are arrays. Defaults to
            `32`.
        seed: Of the random directions. Defaults to `0`.

    Returns:
        An array a weight, in the order of `network.trainable_variables`.

    Raises:
        ValueError: If it is not finite somewhere, or the data are empty.

    Example:
    >>> fisher_diagonal(classifier, images, ["softmax"])[0].shape
    (130, 10)
    """
    optimizer = SquaredGradients(learning_rate=0.0)
    model = _Statistics(network, kinds)
    model.compile(optimizer, loss=_WeightedSum(), auto_scale_loss=False)
    samples = 0
    for batch in user_data.batches(data, batch_size):
        samples += _rows(batch)
        for x, weights in _directions(model, batch, probes, (seed, samples)):
            model.train_on_batch(x, weights)
    # A random direction is one of several; an exact one is a share of a sum.
    total = samples * (probes or 1)
    found = [to_numpy_copy(square) / total for square in optimizer.squares]
    for variable, value in zip(network.trainable_variables, found, strict=True):
        _check_finite(variable, value)
    return found


class SquaredGradients(keras.optimizers.Optimizer):
    """Adds up squares of gradients, and leaves every weight as it is."""

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the sums."""
        if self.built:
            return
        super().build(variables)
        self.squares = [
            self.add_variable_from_reference(variable, name="square")
            for variable in variables
        ]

    def update_step(
        self, gradient: Any, variable: keras.Variable, learning_rate: Any
    ) -> None:
        """Adds the square."""
        square: Any = self.squares[self._get_variable_index(variable)]
        # On TensorFlow an embedding's gradient is a list of rows, with
        # repetitions; adding to zeros makes one of it before it is squared.
        gradient = ops.add(ops.zeros(square.shape, square.dtype), gradient)
        self.assign_add(square, ops.square(gradient))


class _Statistics(keras.Model):
    """Gives the statistics of a network's outputs, in inference mode."""

    def __init__(self, network: keras.Model, kinds: Sequence[Kind]):
        super().__init__(name="statistics")
        self.network = network
        self._kinds = tuple(kinds)

    def call(self, inputs: Any) -> Any:
        """All outputs side by side: (batch, outputs)."""
        outputs = keras.tree.flatten(self.network(inputs, training=False))
        columns = [
            statistic(output, kind)
            for output, kind in zip(outputs, self._kinds, strict=True)
        ]
        return ops.concatenate(columns, axis=-1)


class _WeightedSum(keras.losses.Loss):
    """Given weights as the labels, the weighted sum over the whole batch."""

    def __init__(self) -> None:
        super().__init__(name="weighted_sum", reduction="sum")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The weighted sum of each row."""
        return ops.sum(y_true * y_pred, axis=-1)


def _directions(
    model: _Statistics,
    batch: Any,
    probes: int | None,
    seed: tuple[int, int],
) -> Iterator[tuple[Any, np.ndarray]]:
    """Rows, and weights of their outputs: random signs, or one at a time."""
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


def _columns(model: _Statistics, batch: Any) -> int:
    """How many statistics a sample has."""
    shapes = [output.shape[1:] for output in model.network.outputs]
    if any(None in shape for shape in shapes):
        return model.predict_on_batch(batch).shape[1]
    return sum(math.prod(shape) for shape in shapes)


def _rows(batch: Any) -> int:
    return len(keras.tree.flatten(batch)[0])


def _check_finite(variable: keras.Variable, fisher: np.ndarray) -> None:
    if not np.isfinite(fisher).all():
        raise ValueError(
            f"The Fisher information of '{variable.path}' is not finite: EWC's "
            "data, or the network's answers to them, hold nan or inf."
        )
