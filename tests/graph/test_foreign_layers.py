"""Layers with code inside: copied where it is at hand, else refused by name."""

import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers
BACKEND = keras.config.backend()
ROWS = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def network_of(layer, shape=(6,)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs), name="network")


def torch_layer():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU()
    )
    module(torch.ones(3, 6))  # moves the statistics, which are no parameters
    return layers.TorchModuleWrapper(module, output_shape=(None, 4))


def saved_model(path):
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    inner.export(path / "saved", verbose=False)
    return layers.TFSMLayer(path / "saved", call_endpoint="serve")


@pytest.fixture
def layer(tmp_path):
    if BACKEND == "jax":
        pytest.skip("JAX has no such layer")
    return torch_layer() if BACKEND == "torch" else saved_model(tmp_path)


def test_a_layer_of_another_framework_is_copied(layer):
    network = network_of(layer)
    expected = network.predict(ROWS, verbose=0)
    cascade = kc.build_cascade(network, head=2, trainable=True, loss="mse")
    copies = (
        kc.build_cascade(network, adapters=None),
        kc.truncate(network, "-1"),
        kc.build_cascade(cascade, adapters=None, taps="upstream/-1"),
    )
    for copy in copies:
        np.testing.assert_array_equal(copy.predict(ROWS, verbose=0), expected)
    cascade.fit(ROWS, np.zeros((8, 2)), verbose=0)
    np.testing.assert_array_equal(network.predict(ROWS, verbose=0), expected)


def test_a_missing_saved_model_is_refused_by_name(tmp_path):
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has the layer")
    network = network_of(saved_model(tmp_path))
    (tmp_path / "saved").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"\(TFSMLayer\) .*copy=False"):
        kc.build_cascade(network, adapters=None)
    cascade = kc.build_cascade(network, adapters=None, copy=False)
    expected = network.predict(ROWS, verbose=0)
    np.testing.assert_array_equal(cascade.predict(ROWS, verbose=0), expected)


class Refusing(layers.Layer):
    """Cannot be made again: its `from_config` raises an error."""

    error: type[Exception] = ValueError

    def call(self, x):
        return x * 2.0

    def compute_output_shape(self, input_shape):
        return input_shape

    @classmethod
    def from_config(cls, config):
        raise cls.error("no")


@pytest.mark.parametrize(
    "error", [ValueError, KeyError, AttributeError, OSError, RuntimeError]
)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("copy", [kc.build_cascade, kc.truncate])
def test_what_cannot_be_made_again_is_refused_by_name(
    error, wrapped, copy, monkeypatch
):
    monkeypatch.setattr(Refusing, "error", error)
    layer = Refusing(name="own")
    layer = layers.TimeDistributed(layer, name="own") if wrapped else layer
    network = network_of(layer, (3, 6))
    options = {"path": "-1"} if copy is kc.truncate else {}
    with pytest.raises(ValueError, match=r"'own' .*no.*copy=False"):
        copy(network, **options)
    kc.build_cascade(network, adapters=None, copy=False)


def test_a_lambda_in_a_wrapper_is_refused_without_a_word_of_loading():
    layer = layers.Lambda(lambda x: x * 2.0, output_shape=(6,))
    network = network_of(layers.TimeDistributed(layer, name="each"), (3, 6))
    with pytest.raises(ValueError, match=r"'each' .*copy=False") as caught:
        kc.build_cascade(network, adapters=None)
    assert "loading" not in str(caught.value)
