"""Tests what is used of Keras's private ways to train and save models."""

import keras
import numpy as np
import pytest

from keras_cascade import _keras_compat as compat


def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_the_older_format_asks_for_the_config_in_a_scope(tmp_path):
    seen = []

    @keras.saving.register_keras_serializable("tests")
    class Asked(keras.layers.Layer):
        def get_config(self):
            seen.append(compat.is_writing_hdf5_model())
            return super().get_config()

    asked = keras.Sequential([keras.Input((3,)), Asked()])
    asked.save(tmp_path / "a.keras")
    asked.save(tmp_path / "a.h5")
    asked.get_config()
    assert seen == [False, True, False]


@pytest.mark.parametrize(("answer", "agrees"), [("y", True), ("n", False)])
def test_the_user_is_asked(monkeypatch, answer, agrees):
    monkeypatch.setattr("builtins.input", lambda _: answer)
    assert compat.ask_to_overwrite("a.keras") is agrees


def test_a_weights_file_from_memory_loads(tmp_path):
    one, other = model(), model()
    content = compat.weights_file_in_memory(one.save_weights)
    (tmp_path / "a.weights.h5").write_bytes(content)
    other.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_view_is_saved_as_a_network_of_the_named_class(tmp_path):
    path = str(tmp_path / "w.weights.h5")
    stock = keras.Sequential([keras.Input((3,)), keras.Sequential([
        keras.Input((3,)), keras.layers.Dense(2),
    ])])  # fmt: skip
    stock.save_weights(path)
    assert compat.is_in_weights_file(path, ["layers/sequential/layers/dense"])
    assert not compat.is_in_weights_file(path, ["layers/dense"])
    view, inner = compat.make_view("Functional"), compat.make_view("Sequential")
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    view.layers, inner.layers = [inner], [layer]
    keras.saving.load_weights(view, path)
    for one, other in zip(layer.weights, stock.weights, strict=True):
        np.testing.assert_array_equal(
            *map(keras.ops.convert_to_numpy, (one, other))
        )
