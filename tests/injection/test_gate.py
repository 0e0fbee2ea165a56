"""The gate of an injection: a factor a channel."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.injection.gate import Gate

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "axis"), [((5,), -1), ((4, 5), -1), ((5, 3, 4), 1)]
)
def test_a_gate_multiplies_each_channel_by_its_factor(shape, axis):
    x = RNG.normal(size=(2, *shape)).astype("float32")
    gate, factors = Gate(axis), np.arange(5, dtype="float32")
    gate.build(x.shape)
    gate.set_weights([factors])
    spread = factors.reshape([-1 if n == 5 else 1 for n in x.shape])
    found = keras.ops.convert_to_numpy(gate(x))
    np.testing.assert_array_equal(found, x * spread)
    (plain,) = gate.to_plain()
    found = keras.ops.convert_to_numpy(plain(x))
    np.testing.assert_allclose(found, x * spread, atol=1e-6)


def test_a_gate_passes_the_checks_of_adapters():
    # Not shut, as it is at first: then it lets no gradient through.
    kc.testing.check_adapter(Gate(initializer="ones"), (4, 5))


def test_a_masked_sequence_is_injected_without_a_warning():
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    steps = layers.Embedding(9, 5, mask_zero=True, name="steps")(tokens)
    upstream = keras.Model(tokens, steps)
    x = keras.Input((6, 5), name="x")
    hidden = layers.Dense(5, name="hidden")(x)
    downstream = keras.Model(x, layers.LSTM(3, name="out")(hidden))
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"words": "steps"},
        inject={"words": "hidden"},
        inputs={"upstream": "tokens", "downstream": "x"},
    )
    rows = RNG.normal(size=(2, 6, 5)).astype("float32")
    words = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0]], "int32")
    # Warnings are errors here.
    found = cascade.predict({"tokens": words, "x": rows}, verbose=0)
    np.testing.assert_allclose(
        found, downstream.predict(rows, verbose=0), atol=1e-6
    )
