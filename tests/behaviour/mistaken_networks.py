"""Makes small networks, and catches the error of building with them."""

import keras
import pytest
from keras import layers

import keras_cascade as kc


def upstream():
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(32, activation="tanh", name="hidden")(x)
    x = layers.Dense(5, name="features")(x)
    return keras.Model(inputs, x, name="encoder")


def downstream(width=130):
    return keras.Sequential(
        [keras.Input((width,)), layers.Dense(2, name="digits")],
        name="digits_expert",
    )


def expert(shape=(6,), name="expert"):
    x = inputs = keras.Input(shape, name="image")
    x = layers.Dense(4, name="stem")(x)
    y = layers.Dense(4, name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name=name)


def message_of(error, *args, **kwargs):
    """Returns the error of building, which is one line."""
    with pytest.raises(error) as caught:
        kc.build_cascade(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message
