"""Losses that take logits for probabilities, or the other way round."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, losses

import keras_cascade as kc

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = np.arange(8) % 3
ONE_HOT = np.eye(3)[Y]
SPARSE = "sparse_categorical_crossentropy"


def dense(activation=None, units=3):
    return layers.Dense(units, activation, name="last")


def build(head, loss):
    inputs = keras.Input((4,))
    network = keras.Model(inputs, layers.Dense(4, name="first")(inputs))
    return kc.build_cascade(network, head=head, loss=loss)


DOUBTED = {
    "softmax twice": (
        lambda: dense("softmax"),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        Y,
        "sum to one.*Dense 'head/last'.*from_logits=True takes it for logits",
    ),
    "a softmax layer": (
        lambda: [dense(), layers.Softmax()],
        losses.CategoricalCrossentropy(from_logits=True),
        ONE_HOT,
        "takes it for logits",
    ),
    "sigmoid twice": (
        lambda: 1,
        losses.BinaryCrossentropy(from_logits=True),
        Y > 0,
        "takes it for logits",
    ),
    "none": (dense, SPARSE, Y, "'linear'.*with from_logits=True, .*'softmax'"),
    "none, moved": (
        lambda: [dense(), layers.Reshape((3,)), layers.Dropout(0.1)],
        losses.CategoricalFocalCrossentropy(),
        ONE_HOT,
        "'linear'",
    ),
    "none of two": (
        lambda: dense(units=1),
        "binary_crossentropy",
        Y > 0,
        "'linear'.*the activation 'sigmoid'",
    ),
    "another": (lambda: dense("tanh"), SPARSE, Y, "'tanh'"),
    "of one output": (
        lambda: {"a": 3, "b": dense("tanh")},
        {"a": SPARSE, "b": SPARSE},
        {"a": Y, "b": Y},
        "b' has the activation 'tanh'",
    ),
}


@pytest.mark.parametrize("case", DOUBTED)
def test_what_does_not_fit_is_said_once_before_the_first_step(case):
    head, loss, y, message = DOUBTED[case]
    cascade = build(head(), loss)
    stopped = []

    class Stop(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            stopped.extend(str(x.message) for x in caught)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            cascade.fit(X, y, verbose=0, callbacks=[Stop()])
    said = [x for x in caught if "loss" in str(x.message)]
    assert len(said) == 1
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match=f"fit: the output '.*{message}"):
        warnings.warn(stopped[0], stacklevel=1)


@keras.saving.register_keras_serializable("logits")
def own_activation(x):
    return keras.ops.abs(x)


class Own(layers.Layer):
    def call(self, x):
        return x


RIGHT = {
    "softmax": (lambda: 3, SPARSE, Y),
    "sigmoid": (lambda: 1, "binary_crossentropy", Y > 0),
    "logits": (
        dense,
        losses.SparseCategoricalCrossentropy(from_logits=True),
        Y,
    ),
    "a layer that is not known": (lambda: [dense(), Own()], SPARSE, Y),
    "a function that is not known": (
        lambda: dense(own_activation),
        SPARSE,
        Y,
    ),
    "numbers": (dense, "mse", ONE_HOT),
    "functions of Keras": (
        lambda: dense("softmax"),
        losses.categorical_crossentropy,
        ONE_HOT,
    ),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_fits_or_is_not_known_is_not_spoken_of(case):
    head, loss, y = RIGHT[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        build(head(), loss).fit(X, y, verbose=0)


def test_a_check_that_is_not_wanted_is_left_out():
    cascade = build(dense(), SPARSE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cascade.fit(X, Y, verbose=0, check_values=False)
    with pytest.warns(UserWarning, match="train_on_batch: the output"):
        cascade.train_on_batch(X, Y)


@pytest.mark.parametrize(
    "train",
    [
        lambda cascade, y: cascade.train_on_batch(X, y),
        lambda cascade, y: cascade.test_on_batch(X, y),
        lambda cascade, y: kc.find_learning_rates(
            cascade, (X, y), steps=20, verbose=False
        ),
    ],
    ids=["train_on_batch", "test_on_batch", "find_learning_rates"],
)
def test_labels_are_checked_where_single_batches_are_trained_on(train):
    cascade = build(3, SPARSE)
    before = [keras.ops.convert_to_numpy(v) for v in cascade.variables]
    with pytest.raises(ValueError, match=r"labels go from 0 to 3.*head=4"):
        train(cascade, np.arange(8) % 4)
    with pytest.raises(ValueError, match="one-hot rows"):
        train(cascade, ONE_HOT)
    for variable, value in zip(cascade.variables, before, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), value
        )
