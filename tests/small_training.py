"""A small network with a normalisation, and data, for tests of training."""

import keras
import numpy as np
from keras import layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype("float32")
Y = RNG.integers(0, 3, 24)
LOSS = "sparse_categorical_crossentropy"


def small_network():
    """Returns layers `low`, `norm` and `high`, the same at each call."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((5,), name="f")
    x = layers.Dense(6, "tanh", name="low")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(4, "tanh", name="high")(x))


def small_head():
    """Returns a head whose first values are the same at each call."""
    return layers.Dense(3, "softmax", name="out", kernel_initializer="ones")
