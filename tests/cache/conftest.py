"""Fixtures for tests of cached features: small cascades, trained twice."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

ROWS = 44


@pytest.fixture(scope="session")
def images():
    """Array: small images of noise, each with a brightness of its own."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(ROWS, 8, 8, 1))
    return (noise + draw.normal(size=(ROWS, 1, 1, 1))).astype("float32")


@pytest.fixture(scope="session")
def labels(images):
    """Array: three classes of brightness."""
    return np.digitize(images.mean(axis=(1, 2, 3)), [-0.4, 0.4])


@pytest.fixture
def network():
    """Function: a network with everything that behaves in two ways."""

    def network(name="network", seed=0, channels=1, **dropout):
        keras.utils.set_random_seed(seed)
        x = inputs = keras.Input((8, 8, channels), name="image")
        x = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
        x = layers.BatchNormalization(name="norm1", momentum=0.0)(x)
        x = layers.ReLU(name="relu1")(x)
        x = layers.Dropout(0.3, name="drop1", **dropout)(x)
        x = layers.MaxPooling2D(name="pool1")(x)
        x = layers.Conv2D(6, 3, padding="same", name="conv2")(x)
        x = layers.BatchNormalization(name="norm2", momentum=0.0)(x)
        x = layers.ReLU(name="relu2")(x)
        x = layers.Dropout(0.3, name="drop2", **dropout)(x)
        x = layers.GlobalAveragePooling2D(name="pool2")(x)
        model = keras.Model(inputs, x, name=name)
        draw = np.random.default_rng(seed)
        model(draw.normal(size=(64, 8, 8, channels)), training=True)
        return model

    return network


@pytest.fixture
def head():
    """Function: a downstream network of so many features."""

    def head(width, seed=5):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((width,), name="features")
        x = layers.Dense(8, activation="relu", name="hidden")(inputs)
        x = layers.Dropout(0.3, name="drop")(x)
        outputs = layers.Dense(3, activation="softmax", name="out")(x)
        return keras.Model(inputs, outputs, name="head")

    return head


@pytest.fixture
def compiled(network, head):
    """Function: a cascade on a frozen network, compiled, always the same."""

    def compiled(upstream=None, downstream=None, optimizer=None, **arguments):
        arguments = {
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
            **arguments,
        }
        built = kc.build_cascade(
            upstream or network(),
            downstream or head(6),
            optimizer=optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
            **arguments,
        )
        keras.utils.set_random_seed(2)
        return built

    return compiled


@pytest.fixture
def same_training():
    """Function: asserts that cached training equals live training, to 1e-5.

    Gives both cascades and what Keras's History has of the cached one.
    """

    def same_training(build, *data, cache=True, **arguments):
        arguments = {"epochs": 3, "shuffle": False, "verbose": 0, **arguments}
        live, cached = build(), build()
        keras.utils.set_random_seed(3)
        expected = live.fit(*data, **arguments).history
        keras.utils.set_random_seed(3)
        found = cached.fit(*data, cache_features=cache, **arguments).history
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(
                found[name], values, rtol=1e-5, atol=1e-5, err_msg=name
            )
        for one, other in zip(live.weights, cached.weights, strict=True):
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(other),
                keras.ops.convert_to_numpy(one),
                rtol=1e-5,
                atol=1e-5,
                err_msg=one.path,
            )
        return live, cached, found

    return same_training


@pytest.fixture
def computed(monkeypatch):
    """List: the number of rows of each batch that a frozen part computed."""
    from keras_cascade.cache.frozen_part import FrozenPart

    counts, compute = [], FrozenPart.compute

    def counted(self, inputs, size):
        counts.append(len(next(iter(inputs.values()))))
        return compute(self, inputs, size)

    monkeypatch.setattr(FrozenPart, "compute", counted)
    return counts
