"""Data is opened as arrays or as batches, which may not repeat."""

import itertools

import keras
import numpy as np
import pytest
import scipy.sparse

from keras_cascade.data import batches
from keras_cascade.data.arrays import to_floatx
from keras_cascade.data.sources import (
    Arrays,
    Batches,
    is_shuffled_by_fit,
    open_data,
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
    samples = open_data(({"a": X, "b": Y}, Y, np.ones(10)))
    assert isinstance(samples, Arrays) and samples.rows == 10
    x, y, weights = samples.to_numpy().take(np.array([3, 1]))
    np.testing.assert_array_equal(x["a"], X[[3, 1]])
    assert y.tolist() == [3, 1] and weights.tolist() == [1, 1]


def test_floats_alone_are_cast_to_the_default_of_keras():
    assert to_floatx(X).dtype == keras.config.floatx()
    assert to_floatx(Y) is Y


def test_streams_give_their_batches_again():
    samples = open_data(ByIndex())
    assert isinstance(samples, Batches)
    for _ in range(2):
        batches = list(samples.read())
        assert [len(y) for _, y, _ in batches] == [4, 4, 2]
        np.testing.assert_array_equal(batches[2][0], X[8:])
    assert samples.length == 3 and samples.not_repeatable_because is None
    assert samples.order.shuffled == "batches" and samples.reiterable


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (Augmented(), "differs when read again"),
        (Shuffled(), "on_epoch_end may change"),
        ((b for b in [(X, Y)]), "no index"),
    ],
)
def test_data_that_may_not_repeat_has_a_reason(data, reason):
    assert reason in open_data(data).not_repeatable_because


@pytest.mark.parametrize(
    ("module", "kind"),
    [("__main__", "ByIndex"), ("mine.data", "mine ByIndex")],
)
def test_messages_name_the_class_and_where_it_comes_from(
    module, kind, monkeypatch
):
    monkeypatch.setattr(ByIndex, "__module__", module)
    assert Batches(ByIndex()).kind == kind
    assert Batches(iter([X])).kind == "list_iterator"


def test_a_generator_is_read_once():
    assert not open_data(b for b in [(X, Y)]).reiterable


def test_an_empty_stream_is_an_error():
    with pytest.raises(ValueError, match="gave no batch"):
        list(open_data(b for b in []).read())


@pytest.mark.parametrize("data", [Endless(), 3, "path", itertools.count])
def test_endless_data_and_other_objects_are_an_error(data):
    with pytest.raises((TypeError, ValueError)):
        open_data(data)


def test_inputs_and_labels_of_unequal_length_are_an_error():
    with pytest.raises(ValueError, match="same number of rows"):
        _ = open_data((X, Y[:5])).rows


def test_labels_beside_a_stream_are_an_error():
    with pytest.raises(ValueError, match="in its batches"):
        open_data((ByIndex(), Y))


@pytest.mark.parametrize("share", [0.2, 0.25, 0.33])
def test_the_rows_split_off_are_those_of_keras(share):
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
    training, held = open_data((X, Y)).split(share)
    assert training.rows == len(seen) and held.rows == 10 - len(seen)
    np.testing.assert_array_equal(held.y, Y[len(seen) :])


def test_nothing_to_split_off_is_an_error():
    with pytest.raises(ValueError, match="validation_split"):
        open_data(X).split(0.99)


def sparse(kind):
    """The rows as a sparse array."""
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
def test_sparse_data_is_an_error_that_says_how_to_make_it_dense(kind):
    told = "Sparse data is not read here, received an object of type"
    with pytest.raises(TypeError, match=told):
        open_data((X, Y, sparse(kind)))
    for data in (sparse(kind), {"a": X, "b": sparse(kind)}):
        with pytest.raises(TypeError, match=told):
            open_data((data, Y))
        with pytest.raises(TypeError, match=told):
            list(batches((data, Y)))
    with pytest.raises(TypeError, match=told):
        next(open_data(iter([(sparse(kind), Y)])).read())


@pytest.mark.parametrize(
    ("data", "shuffled"),
    [
        (np.zeros((4, 2)), True),
        ({"a": np.zeros((4, 2))}, True),
        ([np.zeros((4, 2))], True),
        (iter([np.zeros((4, 2))]), False),
    ],
    ids=["array", "dict", "list", "generator"],
)
def test_fit_shuffles_what_can_be_read_at_any_row(data, shuffled):
    assert is_shuffled_by_fit(data) == shuffled
