"""Compares the Fisher information with closed forms, also in a stream."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_cascade.training.retention.fisher import fisher_diagonal
from tests.training.retention import linear

X = np.random.default_rng(3).normal(size=(12, 3)).astype("float32")
SQUARES = X.astype("float64") ** 2


def probabilities(kind):
    logits = X.astype("float64") @ linear.KERNEL + linear.BIAS
    if kind.startswith("softmax"):
        return linear.softmax(logits)
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("logits", [False, True], ids=["", "logits"])
def test_a_regression_has_x_squared_times_p_times_1_minus_p(kind, logits):
    """Softmax and logistic regression have the same diagonal."""
    network = linear.network("linear" if logits else kind)
    kinds = [f"{kind}_logits" if logits else kind]
    kernel, bias = fisher_diagonal(network, X, kinds, probes=None)
    p = probabilities(kind)
    variance = p * (1 - p)
    expected = np.einsum("ni,nj->ij", SQUARES, variance) / len(X)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4)
    np.testing.assert_allclose(bias, variance.mean(axis=0), rtol=1e-4)


def test_the_mean_over_random_directions_is_the_exact_information():
    """The mean of n squares has an error of about sqrt(2 / n)."""
    network = linear.network("softmax")
    probes = 400
    kernel, _ = fisher_diagonal(network, X, ["softmax"], probes=probes)
    p = probabilities("softmax")
    expected = np.einsum("ni,nj->ij", SQUARES, p * (1 - p)) / len(X)
    error = kernel / expected - 1
    assert np.abs(error).max() < 4 * np.sqrt(2 / probes)
    assert np.abs(error.mean()) < 4 * np.sqrt(2 / probes / error.size)


def test_certain_outputs_have_no_information_and_no_nan():
    network = linear.network("softmax")
    kernel, _ = fisher_diagonal(network, 1e4 * X, ["softmax"], probes=None)
    assert np.isfinite(kernel).all()


def test_the_network_stays_as_it_is():
    network = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2, "softmax"),
        ]
    )
    before = [np.array(ops.convert_to_numpy(v)) for v in network.variables]
    fisher_diagonal(network, X, ["softmax"], batch_size=5)
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def test_a_generator_gives_what_the_array_gives():
    """It takes one pass; labels are ignored, the last batch is smaller."""
    network = linear.network("softmax")
    batches = ((X[i : i + 5], "no labels") for i in range(0, len(X), 5))
    given = [(x, None) for x, _ in batches]
    streamed = fisher_diagonal(network, iter(given), ["softmax"])
    whole = fisher_diagonal(network, X, ["softmax"], batch_size=5)
    for first, second in zip(streamed, whole, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


def test_no_batch_stays_in_memory():
    """Memory does not depend on the number of samples."""
    alive, most = weakref.WeakSet(), 0

    def stream():
        nonlocal most
        for _ in range(8):
            gc.collect()
            most = max(most, len(alive))
            batch = X[:4].view(_Watched)
            alive.add(batch)
            yield batch

    fisher_diagonal(linear.network("softmax"), stream(), ["softmax"])
    assert 1 <= most <= 3


def test_rows_that_an_embedding_looks_up_twice_add_up_before_the_square():
    table = layers.Embedding(5, 2)
    network = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            table,
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    rows = np.random.default_rng(0).integers(0, 5, (16, 3))
    found, *_ = fisher_diagonal(network, rows, ["linear"], probes=None)
    kernel = network.layers[-1].get_weights()[0].astype("float64")
    expected = np.zeros((5, 2))
    for row in rows:
        gradient = np.zeros((5, 2))
        for place, number in enumerate(row):
            gradient[number] += kernel.reshape(3, 2)[place]
        expected += gradient**2 / len(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_several_outputs_add_up():
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, use_bias=False)(inputs)
    outputs = [
        layers.Dense(2, use_bias=False)(hidden),
        layers.Dense(3, use_bias=False)(hidden),
    ]
    network = keras.Model(inputs, outputs)
    found, *_ = fisher_diagonal(network, X, ["linear"] * 2, probes=None)
    heads = [w.astype("float64") for w in network.get_weights()[1:]]
    per_unit = sum((head**2).sum(axis=1) for head in heads)
    expected = np.outer(SQUARES.mean(axis=0), per_unit)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


class _Watched(np.ndarray):
    """An array that weak references can point at, by its identity."""

    __hash__ = object.__hash__
    __array_priority__ = 0.0
