"""Fails where Keras's layers no longer look functions up in the backend."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_cascade._keras_compat.backend_functions import backend_functions

CALLERS = {
    "a resizing layer": ("resize", (8, 8, 3), lambda: layers.Resizing(4, 4)),
    "an operation": (
        "resize",
        (8, 8, 3),
        lambda: lambda x: keras.ops.image.resize(x, (4, 4)),
    ),
    "upsampling": (
        "resize",
        (8, 8, 3),
        lambda: layers.UpSampling2D(interpolation="bilinear"),
    ),
    "a cell in a loop": (
        "rnn",
        (5, 3),
        lambda: layers.RNN(layers.SimpleRNNCell(2)),
    ),
    "both directions": (
        "rnn",
        (5, 3),
        lambda: layers.Bidirectional(layers.SimpleRNN(2)),
    ),
    "averages": (
        "average_pool",
        (6, 6, 2),
        lambda: layers.AveragePooling2D(2),
    ),
    "convolutions in a loop": (
        "rnn",
        (4, 6, 6, 2),
        lambda: layers.ConvLSTM2D(2, 3),
    ),
}

if keras.config.backend() != "tensorflow":  # where they are loops on the CPU
    CALLERS["lstm"] = ("lstm", (5, 3), lambda: layers.LSTM(2))
    CALLERS["gru"] = ("gru", (5, 3), lambda: layers.GRU(2))
if keras.config.backend() == "torch":
    same = {"strides": 2, "padding": "same"}
    CALLERS["padding of a convolution"] = (
        "_apply_same_padding",
        (6, 6, 2),
        lambda: layers.Conv2D(2, 3, **same),
    )
    CALLERS["padding of a maximum"] = (
        "_apply_same_padding",
        (6, 6, 2),
        lambda: layers.MaxPooling2D(3, **same),
    )


@pytest.mark.parametrize("case", CALLERS)
def test_layers_and_operations_call_the_replacement(case):
    name, shape, make = CALLERS[case]
    called = []

    def function(original, *args, **kwargs):
        called.append(name)
        return original(*args, **kwargs)

    layer, x = make(), np.ones((2, *shape), "float32")
    expected = keras.ops.convert_to_numpy(layer(x))
    with backend_functions(**{name: function}):
        found = keras.ops.convert_to_numpy(layer(x))
    assert called
    np.testing.assert_array_equal(found, expected)
    called.clear()
    layer(x)
    assert not called


def test_an_error_puts_the_function_back():
    with (
        pytest.raises(RuntimeError, match="mine"),
        backend_functions(resize=None),
    ):
        raise RuntimeError("mine")
    x = np.ones((1, 4, 4, 3), "float32")
    assert keras.ops.image.resize(x, (2, 2)).shape == (1, 2, 2, 3)
