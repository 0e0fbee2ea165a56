"""Tests cascades that Keras quantizes: paths, files, rebuilding, copies."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

# Of Keras's own, which asks every layer.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6)).astype("float32")
Y = RNG.normal(size=(8, 3)).astype("float32")
MODES = ["int8", "int4", "float8"]


def network():
    x, z = keras.Input((6,)), keras.Input((6,))
    inner = layers.Dense(6, activation="tanh", name="b")(z)
    inner = keras.Model(z, inner, name="inner")
    y = inner(layers.EinsumDense("ab,bc->ac", 6, bias_axes="c", name="e")(x))
    return keras.Model(x, layers.Dense(5, name="o")(layers.Dropout(0.5)(y)))


def build(**arguments):
    arguments = {"head": 3, "loss": "mse", **arguments}
    return kc.build_cascade(network(), **arguments)


def predict(model):
    return model.predict(X, verbose=0)


def paths(model):
    return {weight.path for weight in model.weights}


@pytest.mark.parametrize("mode", MODES)
def test_it_computes_as_keras_does_under_the_same_paths(mode):
    source = network()
    cascade = kc.build_cascade(source, adapters=None)
    before, flags = paths(cascade), cascade.flags()
    cascade.quantize(mode)
    source.quantize(mode)
    np.testing.assert_allclose(predict(cascade), predict(source), atol=1e-6)
    assert before <= paths(cascade)
    assert all(path.startswith("upstream/") for path in paths(cascade))
    assert cascade.flags() == flags


@pytest.mark.parametrize(
    ("mode", "copy"), [("int8", False), ("int4", True), ("float8", True)]
)
def test_what_was_learned_is_rebuilt_and_loaded(mode, copy, tmp_path):
    source = network()
    cascade = kc.build_cascade(
        source,
        head=3,
        loss="mse",
        trainable={"upstream/inner": True},
        copy=copy,
    )
    cascade.fit(X, Y, verbose=0)
    cascade.quantize(mode)
    expected = predict(cascade)
    cascade.save(tmp_path / "c.keras")
    again = keras.saving.load_model(tmp_path / "c.keras")
    cascade.to_plain().save(tmp_path / "plain.keras")
    rebuilt = cascade.rebuild(trainable={"upstream": True})
    assert not rebuilt.spec.reinitialized
    assert paths(rebuilt) == paths(cascade)
    for model in (
        rebuilt,
        again,
        again.rebuild(),
        keras.saving.load_model(tmp_path / "plain.keras"),
    ):
        np.testing.assert_allclose(predict(model), expected, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_layers_of_other_shapes_are_initialised_and_not_quantized(mode):
    cascade = build()
    cascade.quantize(mode)
    # Packed, kernels of two and of three columns have one shape in int4.
    rebuilt = cascade.rebuild(head=4)
    assert set(rebuilt.spec.reinitialized) == {
        "head/dense/kernel",
        "head/dense/bias",
    }
    found = [predict(x.blocks["upstream"]) for x in (cascade, rebuilt)]
    np.testing.assert_array_equal(*(x["output"] for x in found))


def test_a_network_that_is_passed_anew_is_not_quantized():
    cascade, other = build(), network()
    cascade.quantize("int8")
    rebuilt = cascade.rebuild(upstream=other)
    kernel = rebuilt.blocks["upstream"].get_layer("o").kernel
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(kernel),
        keras.ops.convert_to_numpy(other.get_layer("o").kernel),
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_quantized_network_stays_so_in_a_cascade(mode):
    source = network()
    source.quantize(mode)
    cascade = kc.build_cascade(source, adapters=None)
    np.testing.assert_allclose(predict(cascade), predict(source), atol=1e-6)


def test_training_goes_on_and_a_block_alone_can_be_quantized():
    cascade = build()
    cascade.fit(X, Y, verbose=0)
    cascade.blocks["upstream"].quantize("int8")
    assert {x.split("/")[0] for x in paths(cascade)} == {"upstream", "head"}
    cascade.quantize("int8", filters="head")
    head = cascade.blocks["head"].get_weights()
    cascade.fit(X, Y, verbose=0)
    moved = cascade.blocks["head"].get_weights()
    assert any((a != b).any() for a, b in zip(head, moved, strict=True))
