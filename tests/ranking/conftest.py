"""A network of many layers, a few of which carry the label."""

import keras
import numpy as np
import pytest

LAYERS = 60


@pytest.fixture(scope="session")
def planted():
    """The network: layer 31 has both bits of the class, 7 and 45 one each."""
    draw = np.random.default_rng(0)
    inputs = keras.Input((12,), name="x")
    outputs = []
    for number in range(LAYERS):
        kernel = np.zeros((12, 4), "float32")
        kernel[2:] = draw.normal(size=(10, 4))
        if number in (7, 45):
            kernel[0 if number == 7 else 1] = 6.0
        if number == 31:
            kernel[0], kernel[1] = [6, -6, 0, 0], [0, 0, 6, -6]
        layer = keras.layers.Dense(4, use_bias=False, name=f"layer{number}")
        outputs.append(layer(inputs))
        layer.set_weights([kernel])
    return keras.Model(inputs, outputs, name="planted")


@pytest.fixture(scope="session")
def planted_data():
    draw = np.random.default_rng(1)
    x = draw.normal(size=(200, 12)).astype("float32")
    bits = draw.integers(2, size=(200, 2))
    x[:, :2] = bits - 0.5
    return x, bits[:, 0] * 2 + bits[:, 1]
