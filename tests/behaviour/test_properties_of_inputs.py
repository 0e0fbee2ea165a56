"""Inputs keep what they are: optional, sparse, ragged, of a dtype and batch."""

import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers
BACKEND = keras.config.backend()
ROWS = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")


@keras.saving.register_keras_serializable("inputs")
class AddIfThere(layers.Layer):
    """Adds a second tensor to the first, if there is one."""

    def build(self, x_shape=None, y_shape=None):
        pass

    def call(self, x, y=None):
        return x if y is None else x + y

    def compute_output_shape(self, x_shape=None, y_shape=None):
        return x_shape


@keras.saving.register_keras_serializable("inputs")
class OwnCall(keras.Model):
    """A Functional model with a `call` of its own, which has no graph."""

    def call(self, inputs):
        return super().call(inputs)


def adding(kind=keras.Model):
    a = keras.Input((2,), name="a")
    b = keras.Input((2,), name="b", optional=True)
    return kind({"a": a, "b": b}, AddIfThere()(a, b), name="adding")


def nested():
    inner = adding()
    a = keras.Input((2,), name="a")
    b = keras.Input((2,), name="b", optional=True)
    return keras.Model({"a": a, "b": b}, inner({"a": a, "b": b}))


def copies(network, path):
    """Yields copies of a network of every kind."""
    cascade = kc.build_cascade(network, adapters=None)
    cascade.save(path / "cascade.keras")
    again = keras.saving.load_model(path / "cascade.keras")
    yield from (cascade, again, again.rebuild(), again.to_plain())
    yield kc.build_cascade(network, adapters=None, copy=False)


@pytest.mark.parametrize("network", [adding, nested, lambda: adding(OwnCall)])
def test_an_optional_input_may_be_left_out_of_every_copy(network, tmp_path):
    network = network()
    names = ["a", "b"]
    for model in copies(network, tmp_path):
        own = list(model.input) if isinstance(model.input, dict) else names
        with_b = dict(zip(own, (ROWS, ROWS), strict=True))
        without = dict(zip(own, (ROWS, None), strict=True))
        if not isinstance(model.input, dict):
            with_b, without = list(with_b.values()), list(without.values())
        for given, expected in ((with_b, 2 * ROWS), (without, ROWS)):
            found = keras.ops.convert_to_numpy(model(given))
            np.testing.assert_array_equal(found, expected)


def test_predict_evaluate_and_fit_take_none():
    cascade = kc.build_cascade(adding(), head=2, loss="mse")
    data = {"a": ROWS, "b": None}
    assert cascade.predict(data, verbose=0).shape == (4, 2)
    y = np.zeros((4, 2))
    assert np.isfinite(cascade.evaluate(data, y, verbose=0))
    history = cascade.fit(data, y, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_an_input_that_one_network_needs_is_not_optional():
    a = keras.Input((2,), name="a")
    b = keras.Input((2,), name="b")
    needing = keras.Model({"a": a, "b": b}, layers.Add()([a, b]))
    cascade = kc.build_cascade({"one": adding(), "two": needing}, adapters=None)
    with pytest.raises(ValueError, match="'b' is not optional"):
        cascade({"a": ROWS, "b": None})


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16"])
@pytest.mark.parametrize("kind", [keras.Model, OwnCall])
def test_dtype_and_batch_are_kept(dtype, kind):
    inputs = keras.Input(batch_shape=(4, 2), dtype=dtype, name="rows")
    network = kind(inputs, layers.Flatten()(keras.ops.cast(inputs, "float32")))
    cascade = kc.build_cascade(network, adapters=None)
    (found,) = cascade.inputs
    assert (found.dtype, tuple(found.shape)) == (dtype, (4, 2))


@pytest.mark.skipif(BACKEND == "torch", reason="torch has no sparse inputs")
@pytest.mark.parametrize("kind", [keras.Model, OwnCall])
def test_sparse_is_kept(kind, tmp_path):
    inputs = keras.Input((6,), sparse=True)
    network = kind(inputs, layers.Dense(2)(inputs))
    for model in copies(network, tmp_path):
        assert all(x.sparse for x in model.inputs)


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="ragged inputs are TensorFlow's"
)
def test_ragged_is_kept(tmp_path):
    inputs = keras.Input((None, 6), ragged=True)
    network = keras.Model(inputs, inputs * 2.0)
    for model in copies(network, tmp_path):
        assert all(x.ragged for x in model.inputs)


class Lengths(layers.Layer):
    """Stands for a layer of text, which needs TensorFlow to be made."""

    def call(self, texts):
        import tensorflow as tf

        return tf.cast(tf.strings.length(texts), "float32")

    def compute_output_spec(self, texts):
        return keras.KerasTensor(texts.shape, "float32")


TEXTS = np.array([["a", "bcd"], ["ef", ""]] * 2)
TAKING_TEXTS = {
    "call": lambda cascade, x: cascade(x),
    "predict": lambda cascade, x: cascade.predict(x, verbose=0),
    "fit": lambda cascade, x: cascade.fit(x, ROWS[:, :1], verbose=0),
    "fit, cached": lambda cascade, x: cascade.fit(
        x, ROWS[:, :1], verbose=0, cache_features=True
    ),
    "evaluate": lambda cascade, x: cascade.evaluate(x, ROWS[:, :1], verbose=0),
    "train_on_batch": lambda cascade, x: cascade.train_on_batch(x, ROWS[:, :1]),
    "adapt": lambda cascade, x: cascade.rebuild(
        adapters=kc.adapters.PCAAdapter(1)
    ).adapt(x, verbose=False),
    "test_on_batch": lambda cascade, x: cascade.test_on_batch(x, ROWS[:, :1]),
    "predict_on_batch": lambda cascade, x: cascade.predict_on_batch(x),
    "check_interface": lambda cascade, x: kc.check_interface(
        text_network(), head=2, data=x
    ),
    "a part": lambda cascade, x: kc.split(cascade)[0](x),
    "a part's predict": lambda cascade, x: kc.split(cascade)[0].predict(
        x, verbose=0
    ),
}


def text_network():
    inputs = keras.Input((2,), dtype="string", name="words")
    lengths = Lengths(name="lengths")(inputs)
    # Twice the number of letters.
    doubled = layers.Dense(4, kernel_initializer=twos, name="doubled")(lengths)
    return keras.Model(inputs, doubled, name="texts")


twos = keras.initializers.Constant(2.0)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it has strings")
@pytest.mark.parametrize("kind", [str, object])
@pytest.mark.parametrize("call", TAKING_TEXTS)
def test_strings_are_refused_in_one_sentence_by_a_backend_without(call, kind):
    cascade = kc.build_cascade(text_network(), head=1, loss="mse")
    message = rf"'\w+' takes strings, .* alone; .* is {BACKEND}\. Set KERAS"
    with pytest.raises(ValueError, match=message):
        TAKING_TEXTS[call](cascade, TEXTS.astype(kind))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it alone has strings")
def test_strings_are_taken_in_numpy_s_arrays():
    cascade = kc.build_cascade(text_network(), head=1, loss="mse")
    for call in TAKING_TEXTS.values():
        call(cascade, TEXTS.astype(object))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it alone has strings")
@pytest.mark.parametrize("kind", [str, object])
def test_strings_are_read_as_they_are(kind):
    cascade = kc.build_cascade(text_network(), loss="mse")
    texts = TEXTS.astype(kind)
    expected = np.repeat([[8.0], [4.0]] * 2, 4, axis=1)
    for model in (
        cascade,
        kc.split(kc.build_cascade(text_network(), head=1))[0],
    ):
        found = keras.tree.flatten(model.predict(texts, verbose=0))
        np.testing.assert_array_equal(found[0], expected)
