"""Recurrent networks in ONNX, compared with Keras's own loops."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.exporting.runtimes import run

BACKEND = keras.config.backend()
KINDS = {
    "lstm": lambda: layers.LSTM(3),
    "gru": lambda: layers.GRU(3, return_sequences=True, go_backwards=True),
    "gru_resets_first": lambda: layers.GRU(3, reset_after=False),
    "no_bias": lambda: layers.LSTM(3, use_bias=False, activation="relu"),
    "gru_no_bias": lambda: layers.GRU(2, use_bias=False),
    "bidirectional": lambda: layers.Bidirectional(
        layers.LSTM(3, return_sequences=True)
    ),
    "bidirectional_gru": lambda: layers.Bidirectional(
        layers.GRU(3), merge_mode="sum"
    ),
    "stacked": lambda: keras.Sequential(
        [layers.LSTM(3, return_sequences=True), layers.GRU(2)]
    ),
}
# Keras computes these by a loop, which torch knows only with its length.
LOOPS = {
    "simple": lambda: layers.SimpleRNN(3),
    "own_activation": lambda: layers.LSTM(3, activation="softsign"),
    "masked": lambda: keras.Sequential([layers.Masking(), layers.LSTM(3)]),
}


def network(kinds, length):
    """All kinds in one file, as converting takes seconds for each."""
    keras.utils.set_random_seed(0)
    x = keras.Input((length, 4), name="signal")
    model = keras.Model(x, {name: make()(x) for name, make in kinds.items()})
    random = np.random.default_rng(0)
    # Biases begin as zeros.
    model.set_weights([random.normal(0, 0.5, x.shape) for x in model.weights])
    return model


def assert_answers(model, path, rows, length):
    random = np.random.default_rng(length)
    x = random.normal(size=(rows, length, 4)).astype("float32")
    expected, found = model.predict(x, verbose=0), run(path, {"signal": x})
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf2onnx writes no loops")
def test_sequences_of_any_length(tmp_path):
    kinds = KINDS if BACKEND == "torch" else KINDS | LOOPS
    model, path = network(kinds, None), tmp_path / "net.onnx"
    report = kc.export(model, path, verbose=False)
    assert report.backend == BACKEND
    for rows, length in ((4, 8), (1, 3), (2, 20), (3, 1)):
        assert_answers(model, path, rows, length)
    if BACKEND == "torch":
        own = [report.operators[name] for name in ("LSTM", "GRU")]
        assert own == [5, 6]


@pytest.mark.large
def test_sequences_of_a_fixed_length(tmp_path):
    kinds = {"bidirectional": KINDS["bidirectional"], **LOOPS}
    model, path = network(kinds, 3), tmp_path / "net.onnx"
    report = kc.export(model, path, verbose=False)
    assert report.backend == BACKEND
    assert_answers(model, path, 3, 3)
    assert_answers(model, path, 1, 3)
