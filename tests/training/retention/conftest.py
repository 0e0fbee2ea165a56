"""Provides networks that the tests of retention share."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.training.retention import linear


@pytest.fixture
def two_layers():
    """A Dense layer as in `linear`, a softmax of five after it; weights."""
    head = np.random.default_rng(2).normal(size=(4, 5))
    x = inputs = keras.Input((3,))
    x = layers.Dense(4, name="dense")(x)
    x = layers.Dense(5, "softmax", use_bias=False, name="old")(x)
    network = keras.Model(inputs, x, name="classifier")
    network.get_layer("dense").set_weights([linear.KERNEL, linear.BIAS])
    network.get_layer("old").set_weights([head])
    return network, (linear.KERNEL, head)
