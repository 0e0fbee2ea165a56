"""Taps are merged as in NumPy; extra inputs are concatenated after them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.assembly.fusion import fuse
from keras_cascade.planning.normalization import check_fusion

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 7, 4)).astype("float32")
SIDE = RNG.normal(size=(7, 2)).astype("float32")

MERGED = {
    "concat": np.hstack([A, B]),
    "add": A + B,
    "average": (A + B) / 2,
    "multiply": A * B,
    "maximum": np.maximum(A, B),
}


def inputs(*widths, dtype="float32"):
    names = "abcdef"
    return {
        n: keras.Input((w,), name=n, dtype=dtype)
        for n, w in zip(names, widths, strict=False)
    }


def run(taps, extras, fusion, *arrays):
    streams = [*taps.values(), *extras.values()]
    model = keras.Model(streams, fuse(taps, extras, fusion))
    return model.predict(list(arrays), verbose=0)


@pytest.mark.parametrize("fusion", MERGED)
@pytest.mark.parametrize("side", [False, True])
def test_taps_are_merged_and_extra_inputs_joined(fusion, side):
    extras = {"side": keras.Input((2,), name="side")} if side else {}
    arrays = [A, B, SIDE] if side else [A, B]
    expected = MERGED[fusion]
    if side:
        expected = np.hstack([expected, SIDE])
    result = run(inputs(4, 4), extras, fusion, *arrays)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_merging_layer_is_copied():
    layer = layers.Subtract(name="mine")
    taps = inputs(4, 4)
    result = run(taps, {}, layer, A, B)
    np.testing.assert_allclose(result, A - B, atol=1e-6)
    assert not layer.built


def test_a_single_stream_is_not_merged():
    taps = inputs(4)
    assert fuse(taps, {}, "add") is taps["a"]


def test_the_order_is_that_of_the_taps():
    taps = inputs(4, 4)
    swapped = {name: taps[name] for name in ("b", "a")}
    result = run(swapped, {}, "concat", B, A)
    np.testing.assert_array_equal(result, np.hstack([B, A]))


def test_maps_are_concatenated_along_their_channels():
    taps = {n: keras.Input((3, 3, c), name=n) for n, c in [("a", 2), ("b", 5)]}
    assert fuse(taps, {}, "concat").shape == (None, 3, 3, 7)


@pytest.mark.parametrize("fusion", ["add", "average", "multiply", "maximum"])
def test_widths_that_differ_cannot_be_merged_by_position(fusion):
    with pytest.raises(ValueError, match=rf"{fusion}': 'a' \(4,\), 'b' \(3,\)"):
        fuse(inputs(4, 3), {}, fusion)


def test_an_extra_vector_cannot_be_concatenated_to_a_map():
    taps = {"map": keras.Input((3, 3, 2), name="map")}
    extras = {"side": keras.Input((2,), name="side")}
    with pytest.raises(ValueError, match="concatenating the extra inputs"):
        fuse(taps, extras, "concat")


def test_names_and_layers_are_fusions():
    for name in MERGED:
        assert check_fusion(name) == name
    assert check_fusion(None) is None
    layer = layers.Add()
    assert check_fusion(layer) is layer


def test_without_a_fusion_the_streams_are_the_outputs():
    network = keras.Model(
        x := keras.Input((4,), name="x"),
        {"a": layers.Activation("tanh")(x), "b": layers.Activation("relu")(x)},
    )
    cascade = kc.build_cascade(
        network, adapters=None, fusion=None, extra_inputs={"side": (2,)}
    )
    result = cascade.predict({"inputs": A, "side": SIDE}, verbose=0)
    np.testing.assert_allclose(result["a"], np.tanh(A), atol=1e-6)
    np.testing.assert_allclose(result["b"], np.maximum(A, 0))
    np.testing.assert_array_equal(result["side"], SIDE)
