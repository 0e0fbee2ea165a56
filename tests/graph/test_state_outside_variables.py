"""Copies have what layers save beside their variables, such as vocabularies."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


@keras.saving.register_keras_serializable("state")
class Asset(layers.Layer):
    """Multiplies by a number that it saves as a file."""

    factor = 1.0

    def call(self, x):
        return x * self.factor

    def compute_output_shape(self, input_shape):
        return input_shape

    def save_assets(self, dir_path):
        Path(dir_path, "factor.txt").write_text(str(self.factor), "utf-8")

    def load_assets(self, dir_path):
        self.factor = float(Path(dir_path, "factor.txt").read_text("utf-8"))


@keras.saving.register_keras_serializable("state")
class Stored(layers.Layer):
    """Multiplies by a number that it saves beside its weights."""

    factor = 1.0

    def call(self, x):
        return x * self.factor

    def compute_output_shape(self, input_shape):
        return input_shape

    def save_own_variables(self, store):
        store["factor"] = self.factor

    def load_own_variables(self, store):
        self.factor = float(np.asarray(store["factor"]))


@keras.saving.register_keras_serializable("state")
class Holding(layers.Layer):
    """Has a layer with an asset inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Asset()

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x)

    def compute_output_shape(self, input_shape):
        return input_shape


def doubling(kind):
    layer = kind(name="double")
    (layer.inner if kind is Holding else layer).factor = 2.0
    return layer


def network_of(layer):
    inputs = keras.Input((2, 3))
    return keras.Model(inputs, layer(inputs), name="network")


def every_copy(cascade, path):
    """Yields the cascade, and copies of it of every kind."""
    yield cascade
    cascade.save(path / "cascade.keras")
    again = keras.saving.load_model(path / "cascade.keras")
    yield from (again, again.rebuild(), again.to_plain())
    yield kc.truncate(again, "-1")
    yield kc.build_cascade(cascade, adapters=None)


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")


@pytest.mark.parametrize("kind", [Asset, Stored, Holding])
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_copy_of_a_network_has_the_state(kind, wrapped, rows, tmp_path):
    layer = doubling(kind)
    layer = layers.TimeDistributed(layer) if wrapped else layer
    cascade = kc.build_cascade(network_of(layer), adapters=None)
    for copy in every_copy(cascade, tmp_path):
        found = keras.ops.convert_to_numpy(copy(rows))
        np.testing.assert_array_equal(found, 2 * rows)


@pytest.mark.parametrize("kind", [Asset, Stored, Holding])
def test_every_copy_of_an_adapter_and_of_a_head_has_the_state(
    kind, rows, tmp_path
):
    cascade = kc.build_cascade(
        network_of(layers.Identity()),
        preprocess=doubling(kind),
        adapters=doubling(kind),
        head=[doubling(kind)],
    )
    for copy in every_copy(cascade, tmp_path):
        found = keras.ops.convert_to_numpy(copy(rows))
        np.testing.assert_array_equal(found, 8 * rows)


def test_weights_of_a_layer_that_was_never_called_are_copied(rows):
    class Early(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.factor = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            return x * self.factor

    layer = Early()
    layer.factor.assign(2.0)
    network = network_of(layers.Identity())
    cascade = kc.build_cascade(network, adapters=None, head=[layer])
    found = keras.ops.convert_to_numpy(cascade(rows))
    np.testing.assert_array_equal(found, 2 * rows)


def test_a_rebuilt_adapter_normalizes_as_it_was_fitted_to():
    x = np.random.default_rng(0).normal(5, 3, (64, 2, 3)).astype("float32")
    cascade = kc.build_cascade(
        network_of(layers.Identity()),
        adapters=layers.Normalization(),
        head=[layers.Identity()],
    )
    cascade.adapt(x, verbose=False)
    expected = (x - x.mean((0, 1))) / x.std((0, 1))
    found = keras.ops.convert_to_numpy(cascade.rebuild()(x))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_learning_rates_are_tested_with_the_state(rows, monkeypatch):
    cascade = kc.build_cascade(network_of(doubling(Asset)), head=1, loss="mse")
    seen = []
    monkeypatch.setattr(
        Asset, "call", lambda self, x: seen.append(self.factor) or x
    )
    data = (rows, np.zeros((5, 1)))
    kc.find_learning_rates(cascade, data, steps=20, verbose=False)
    # Copies are called once without the state, when they are made.
    assert seen[-1] == 2.0


@pytest.mark.skipif(not HAS_TENSORFLOW, reason="lookups need TensorFlow")
@pytest.mark.parametrize("mode", ["int", "multi_hot", "tf_idf"])
def test_every_copy_knows_the_vocabulary(mode, tmp_path):
    ages = np.array([[10], [20], [30], [20]], "int32")
    lookup = layers.IntegerLookup(output_mode=mode, name="ages")
    lookup.adapt(ages)
    inputs = keras.Input((1,), dtype="int32")
    network = keras.Model(inputs, layers.Flatten()(lookup(inputs)))
    expected = keras.ops.convert_to_numpy(network(ages))
    assert len(np.unique(expected, axis=0)) == 3
    cascade = kc.build_cascade(network, adapters=None)
    for copy in every_copy(cascade, tmp_path):
        found = keras.ops.convert_to_numpy(copy(ages))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="text is TensorFlow's"
)
@pytest.mark.parametrize("mode", ["int", "tf_idf"])
def test_every_copy_knows_the_words(mode, tmp_path):
    import tensorflow as tf

    texts = tf.constant(["the cat sat", "a dog ran far", "the end"])
    words = layers.TextVectorization(output_mode=mode)
    words.adapt(texts)
    inputs = keras.Input((), dtype="string")
    network = keras.Model(inputs, words(inputs))
    expected = keras.ops.convert_to_numpy(network(texts))
    cascade = kc.build_cascade(network, adapters=None)
    for copy in every_copy(cascade, tmp_path):
        found = keras.ops.convert_to_numpy(copy(texts))
        np.testing.assert_array_equal(found, expected)


def test_a_config_without_an_argument_is_refused_by_name():
    @keras.saving.register_keras_serializable("state")
    class Forgetful(layers.Layer):
        def __init__(self, units=2, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], self.units))

        def call(self, x):
            return keras.ops.matmul(x, self.kernel)

        def get_config(self):
            return super().get_config()

    network = network_of(Forgetful(5, name="kernel"))
    with pytest.raises(ValueError, match=r"'kernel'.*\(3, 5\).*copy=False"):
        kc.build_cascade(network, adapters=None)
