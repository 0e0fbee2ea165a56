"""A nested network casts what it takes, and adds or drops a last axis.

Truth is the nested network itself, which Keras calls.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.graph.flattening import as_program, flatten
from keras_cascade.graph.graph import read_graph

RNG = np.random.default_rng(0)


def outer(given, dtype, taken, inner_dtype, body):
    """A network that is nothing but another one, of another input."""
    y = keras.Input(taken, dtype=inner_dtype, name="y")
    inner = keras.Model(y, body(y), name="inner")
    x = keras.Input(given, dtype=dtype, name="x")
    return keras.Model(x, inner(x), name="outer")


def of_sevenths(y):
    return layers.Lambda(lambda y: y / 7, name="sevenths")(y)


def of_words(y):
    return layers.Flatten()(layers.Embedding(20, 3)(y))


def of_pixels(y):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(y))


CASES = {
    "an axis more": ((), "float32", (1,), "float32", layers.Dense(3)),
    "an axis less": ((4, 1), "float32", (4,), "float32", layers.Dense(3)),
    "pixels": ((8, 8, 3), "uint8", (8, 8, 3), "float32", of_pixels),
    "floats as words": ((4,), "float32", (4,), "int32", of_words),
    "both": ((4, 1), "int32", (4,), "float32", layers.Dense(3)),
    "as it is": ((4,), "float32", (4,), "float32", layers.Dense(3)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_program_converts_the_inputs_of_nested_networks(
    name, answers, own_answers
):
    model = outer(*CASES[name])
    shape, dtype, *_ = CASES[name]
    rows = RNG.integers(1, 19, (5, *shape)).astype(dtype)
    (found,) = answers(as_program(model), rows).values()
    (own,) = own_answers(model, rows)
    assert own.std() > 1e-2
    np.testing.assert_allclose(found, own, rtol=1e-6, atol=1e-6)


def test_a_converted_tensor_has_the_reference_of_the_input():
    flat = flatten(read_graph(outer(*CASES["both"]), keep_names=True))
    (call,) = flat.consumers["x", 0]
    assert call.label == "AsInput 'inner/y'"
    assert flat.resolve(("inner", "y", 0)) == ("inner", "y", 0)
    assert flat.shapes["inner", "y", 0] == (None, 4)
    assert flat.dtypes["inner", "y", 0] == "float32"


def test_a_tensor_that_fits_is_not_converted():
    flat = flatten(read_graph(outer(*CASES["as it is"])))
    assert flat.resolve(("inner", "y", 0)) == ("x", 0)


def network_of_words():
    """An embedding frozen in half precision, and a layer in full precision."""
    given = keras.Input((4, 30), name="given")
    reader = keras.Model(given, layers.LSTM(2, name="lstm")(given), name="read")
    words = keras.Input((4,), dtype="int32", name="words")
    half = {"dtype": "mixed_float16", "trainable": False}
    embed = layers.Embedding(9, 30, mask_zero=True, name="embed", **half)
    mixed = layers.Dense(30, name="mixed", **half)(embed(words))
    return keras.Model(words, reader(mixed))


WORDS = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [4, 1, 2, 3]], "int32")


# Keras says so of every nested model, and hands the mask to its layers.
@pytest.mark.filterwarnings("ignore:Layer 'read' .* was passed an input with")
def test_a_converted_tensor_keeps_its_mask(answers, own_answers):
    model = network_of_words()
    (found,) = answers(as_program(model), WORDS).values()
    (own,) = own_answers(model, WORDS)
    np.testing.assert_allclose(found, own, rtol=1e-6, atol=1e-6)
    # The mask counts: without it the zeros are read too.
    full = np.where(WORDS == 0, 8, WORDS)
    assert np.abs(own - own_answers(model, full)[0])[:2].min() > 1e-4


@pytest.mark.filterwarnings("ignore:Layer 'read' .* was passed an input with")
def test_a_cascade_with_a_conversion_is_split_and_cached():
    cascade = kc.build_cascade(
        network_of_words(), head=2, trainable={"upstream/read/lstm": True}
    )
    expected = cascade.predict(WORDS, verbose=0)
    frozen, trainable = kc.split(cascade)
    features = frozen.predict(WORDS, verbose=0)
    # The cast stays after the cut, where it costs no room.
    assert {str(x.dtype) for x in features.values()} == {"float16", "bool"}
    found = trainable.predict(features, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    for _ in range(2):
        cached = cascade.predict(WORDS, verbose=0, cache_features=True)
        np.testing.assert_allclose(cached, expected, rtol=1e-6, atol=1e-6)


def test_the_config_makes_an_equal_operation(tmp_path):
    x = keras.Input((4, 1), dtype="int32")
    flat = flatten(read_graph(outer(*CASES["both"])))
    cast = flat.producers["inner", "y", 0].operation
    model = keras.Model(x, cast(x))
    model.save(tmp_path / "cast.keras")
    again = keras.models.load_model(tmp_path / "cast.keras")
    rows = np.arange(8).reshape(2, 4, 1)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(again(rows)), rows[..., 0].astype("float32")
    )
