"""Samples come as Keras takes them, and what may not repeat is told apart."""

import itertools

import keras
import numpy as np
import pytest
import scipy.sparse

from keras_cascade.data import batches
from keras_cascade.data.samples import (
    ArraySamples,
    StreamSamples,
    open_samples,
    split_off,
)

X = np.arange(20, dtype="float64").reshape(10, 2)
Y = np.arange(10)


class ByIndex(keras.utils.PyDataset):
    num_batches = 3

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return X[rows], Y[rows]


class Endless(ByIndex):
    num_batches = None


class Augmented(ByIndex):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.random.default_rng().normal(size=x.shape), y


class Shuffled(ByIndex):
    def on_epoch_end(self):
        pass


def test_arrays_are_taken_at_any_row():
    samples = open_samples({"a": X, "b": Y}, Y, np.ones(10))
    assert isinstance(samples, ArraySamples) and samples.rows == 10
    x, y, weights = samples.take([3, 1])
    np.testing.assert_array_equal(x["a"], X[[3, 1]])
    assert x["a"].dtype == "float32" and x["b"].dtype == Y.dtype
    assert y.tolist() == [3, 1] and weights.dtype == "float32"


def test_streams_give_their_batches_again():
    samples = open_samples(ByIndex())
    assert isinstance(samples, StreamSamples)
    for _ in range(2):
        batches = list(samples.start())
        assert [len(y) for _, y, _ in batches] == [4, 4, 2]
        np.testing.assert_array_equal(batches[2][0], X[8:])
    assert samples.batches == 3 and samples.unsure is None
    assert samples.shuffled == "batches" and not samples.once


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (Augmented(), "differs when read again"),
        (Shuffled(), "on_epoch_end may change"),
        ((b for b in [(X, Y)]), "no index"),
    ],
)
def test_what_may_not_repeat_says_why(data, reason):
    assert reason in open_samples(data).unsure


def test_a_generator_is_read_once():
    assert open_samples(b for b in [(X, Y)]).once


def test_an_empty_stream_is_an_error():
    with pytest.raises(ValueError, match="gave no batch"):
        list(open_samples(b for b in []).start())


@pytest.mark.parametrize("data", [Endless(), 3, "path", itertools.count])
def test_what_has_no_end_or_is_no_data_is_an_error(data):
    with pytest.raises((TypeError, ValueError)):
        open_samples(data)


def test_rows_have_to_be_as_many():
    with pytest.raises(ValueError, match="same number of rows"):
        open_samples(X, Y[:5])


def test_labels_beside_a_stream_are_an_error():
    with pytest.raises(ValueError, match="in its batches"):
        open_samples(ByIndex(), Y)


@pytest.mark.parametrize("share", [0.2, 0.25, 0.33])
def test_it_splits_off_what_keras_does(share):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen = []

    class Counts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    model.fit(
        X,
        Y,
        batch_size=1,
        validation_split=share,
        verbose=0,
        callbacks=[Counts()],
    )
    training, held = split_off(open_samples(X, Y), share)
    assert training.rows == len(seen) and held.rows == 10 - len(seen)
    np.testing.assert_array_equal(held.y, Y[len(seen) :])


def test_nothing_to_split_off_is_an_error():
    with pytest.raises(ValueError, match="validation_split"):
        split_off(open_samples(X), 0.99)


def sparse(kind):
    """The rows as something that keeps no zeros."""
    if kind == "scipy":
        return scipy.sparse.csr_array(X)
    if kind == "tensorflow":
        import tensorflow as tf

        return tf.sparse.from_dense(X)
    if kind == "jax":
        from jax.experimental.sparse import BCOO

        return BCOO.fromdense(X)
    import torch

    return torch.as_tensor(X).to_sparse()


@pytest.mark.parametrize("kind", ["scipy", keras.config.backend()])
def test_what_keeps_no_zeros_is_told_to_be_made_dense(kind):
    told = "Sparse data is not read here, received an object of type"
    with pytest.raises(TypeError, match=told):
        open_samples(X, Y, sparse(kind))
    for data in (sparse(kind), {"a": X, "b": sparse(kind)}):
        with pytest.raises(TypeError, match=told):
            open_samples(data, Y)
        with pytest.raises(TypeError, match=told):
            list(batches((data, Y)))
    with pytest.raises(TypeError, match=told):
        next(open_samples(iter([(sparse(kind), Y)])).start())
