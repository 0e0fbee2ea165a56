"""Tests the three ways to cascade two networks that the project began with."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(24, 8, 8, 1)).astype("float32")
SIDE = RNG.normal(size=(24, 2)).astype("float32")
LABELS = RNG.integers(0, 10, size=24)
LOSS = "sparse_categorical_crossentropy"


def upstream():
    """Returns 128 features, after BatchNormalization and Dropout."""
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(40, activation="relu", name="penultimate")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Dense(128, name="features")(x)
    return keras.Model(inputs, x, name="encoder")


def downstream(width):
    return keras.Sequential(
        [
            keras.Input((width,)),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="digits"),
        ],
        name="digits_expert",
    )


def values(variables):
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in variables}


def test_features_are_joined_with_two_real_extra_features():
    first, second = upstream(), downstream(130)
    cascade = kc.build_cascade(
        first, second, adapters=None, extra_inputs={"metadata": (2,)}
    )
    data = {"inputs": IMAGES, "metadata": SIDE}
    features = first.predict(IMAGES, verbose=0)
    expected = second.predict(np.hstack([features, SIDE]), verbose=0)
    result = cascade.predict(data, verbose=0)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    moved = cascade.predict({**data, "metadata": SIDE + 1}, verbose=0)
    assert np.abs(moved - result).max() > 1e-4


def test_the_penultimate_layer_goes_through_a_learned_projection():
    first, second = upstream(), downstream(20)
    cascade = kc.build_cascade(
        first,
        second,
        taps={"penultimate": "penultimate"},
        adapters={"penultimate": 20},
        optimizer=keras.optimizers.SGD(0.1),
        loss=LOSS,
    )
    assert not any("features" in v.path for v in cascade.variables)
    before = values(cascade.adapters["penultimate"].variables)
    cascade.fit(IMAGES, LABELS, verbose=0)
    projection = values(cascade.adapters["penultimate"].variables)
    kernel, bias = projection.values()
    assert kernel.shape == (40, 20)
    assert np.abs(kernel - before["adapters/penultimate/kernel"]).max() > 0
    inner = keras.Model(
        first.inputs, first.get_layer("penultimate").output
    ).predict(IMAGES, verbose=0)
    trained = downstream(20)
    trained.set_weights(cascade.blocks["downstream"].get_weights())
    expected = trained.predict(inner @ kernel + bias, verbose=0)
    result = cascade.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("jointly", [True, False])
def test_projection_and_downstream_train_at_their_own_rates(jointly):
    first = upstream()
    cascade = kc.build_cascade(
        first,
        downstream(20),
        taps={"penultimate": "penultimate", "features": "features"},
        adapters={"penultimate": 8, "features": 12},
        trainable=None if jointly else {"downstream": False},
        learning_rates={
            "adapters": 1e-2,
            **({"downstream": 1e-3} if jointly else {}),
        },
        optimizer=keras.optimizers.Adam(1e-4),
        loss=LOSS,
    )
    before = values(cascade.variables)
    cascade.fit(IMAGES, LABELS, batch_size=8, epochs=2, verbose=0)
    after = values(cascade.variables)
    frozen = ("upstream",) if jointly else ("upstream", "downstream")
    for path, old in before.items():
        if path.startswith(frozen):
            np.testing.assert_array_equal(after[path], old, err_msg=path)
        else:
            assert np.abs(after[path] - old).max() > 0, path
    kinds = ("moving_mean", "moving_variance", "seed_generator_state")
    assert all(any(p.endswith(k) for p in before) for k in kinds)
    # Adam's first steps are as large as the rate.
    steps = {p: np.abs(after[p] - before[p]).max() for p in before}
    assert 3e-2 < steps["adapters/penultimate/kernel"] < 6.1e-2
    if jointly:
        assert 3e-3 < steps["downstream/digits/kernel"] < 6.1e-3


def test_the_original_networks_stay_unchanged():
    first, second = upstream(), downstream(130)
    before = [first.get_config(), second.get_config()]
    weights = [*first.get_weights(), *second.get_weights()]
    cascade = kc.build_cascade(
        first, second, trainable=True, optimizer="sgd", loss=LOSS
    )
    cascade.fit(IMAGES, LABELS, verbose=0)
    assert [first.get_config(), second.get_config()] == before
    after = [*first.get_weights(), *second.get_weights()]
    for old, new in zip(weights, after, strict=True):
        np.testing.assert_array_equal(old, new)
