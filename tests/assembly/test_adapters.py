"""The block of adapters has those that change a stream, and no others."""

import keras
import numpy as np
from keras import layers

import keras_cascade as kc


def encoder():
    x = keras.Input((6,), name="x")
    y = layers.Dense(5, activation="tanh", name="low")(x)
    return keras.Model(x, layers.Dense(4, name="high")(y), name="encoder")


def expert():
    x = keras.Input((9,), name="x")
    y = layers.Dense(3, activation="tanh", name="hidden")(x)
    return keras.Model(x, layers.Dense(2, name="out")(y), name="expert")


X = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")


def paths(cascade):
    return [v.path for v in cascade.variables if v.path.startswith("adapters/")]


def test_an_adapter_has_the_name_of_its_tap():
    cascade = kc.build_cascade(
        encoder(), taps={"a": "low"}, adapters=layers.Dense(3, name="mine")
    )
    assert paths(cascade) == ["adapters/a/kernel", "adapters/a/bias"]


def test_streams_that_fit_bypass_the_block():
    cascade = kc.build_cascade(
        encoder(), expert(), taps={"a": "low", "b": "high"}
    )
    assert "adapters" not in cascade.blocks


def test_a_tap_may_have_the_name_of_anothers_input():
    cascade = kc.build_cascade(
        encoder(), taps={"a": "low", "a_input": "high"}, adapters=3
    )
    assert list(cascade.adapters) == ["a", "a_input"]
    assert cascade.predict(X, verbose=0).shape == (5, 6)


def test_one_adapter_given_for_a_tap_serves_all_layers_that_it_enters():
    cascade = kc.build_cascade(
        encoder(),
        expert(),
        taps={"a": "low"},
        adapters=7,
        inject={"a": ["hidden", "out"]},
        downstream_input="inputs",
        inputs={"downstream": "side"},
    )
    assert list(cascade.adapters) == ["a"]
    # Its 7 features are projected to the widths of the two layers.
    shapes = {v.path: tuple(v.shape) for v in cascade.variables}
    assert shapes["adapters/injections/a_into_hidden_projection/kernel"] == (
        7,
        3,
    )
    assert shapes["adapters/injections/a_into_out_projection/kernel"] == (7, 2)


def test_automatic_adapters_are_one_for_each_shape_that_a_tap_enters():
    cascade = kc.build_cascade(
        encoder(),
        expert(),
        taps={"a": "low"},
        inject={"a": ["hidden", "out"]},
        inputs={"downstream": "side"},
    )
    assert list(cascade.adapters) == ["a_into_hidden", "a_into_out"]
    assert [x.units for x in cascade.adapters.values()] == [3, 2]
