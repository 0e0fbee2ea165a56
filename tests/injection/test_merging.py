"""Merges: their formulas, silence at step 0, and the weights that train."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from tests.injection.small_networks import (
    KINDS,
    MERGES,
    SILENT,
    answer,
    array,
    build,
    call,
    channels_last,
    encoder,
    merged,
    randomise,
    weight,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("merge", "width"),
    [*((merge, 5) for merge in MERGES), *((merge, 4) for merge in SILENT)],
)
def test_a_merge_computes_its_formula(merge, width, kind):
    shape, axis = KINDS[kind]
    features = list(shape)
    features[axis if axis == -1 else 0] = width
    model = build(shape, axis, features, merge)
    randomise(model)
    x, f = array(4, *shape), array(4, *features)
    inputs = {"features": f, "x": x}
    inputs = f if merge == "replace" else inputs
    expected = merged(
        model, merge, channels_last(np.tanh(x), axis), channels_last(f, axis)
    )
    np.testing.assert_allclose(
        call(model, inputs), answer(model, expected), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("width", [5, 4])
@pytest.mark.parametrize("kind", ["sequence", "map with channels first"])
@pytest.mark.parametrize("merge", SILENT)
def test_a_vector_is_merged_at_all_positions(merge, kind, width):
    shape, axis = KINDS[kind]
    model = build(shape, axis, (width,), merge)
    randomise(model)
    x, f = array(4, *shape), array(4, width)
    expected = merged(model, merge, channels_last(np.tanh(x), axis), f)
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, expected),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("merge", SILENT)
def test_a_merge_starts_silent(merge, kind):
    shape, axis = KINDS[kind]
    model = build(shape, axis, shape, merge)
    x, f = array(4, *shape), array(4, *shape)
    pooled = channels_last(np.tanh(x), axis)
    without = call(model, {"features": np.zeros_like(f), "x": x})
    np.testing.assert_array_equal(call(model, {"features": f, "x": x}), without)
    np.testing.assert_allclose(without, answer(model, pooled), atol=1e-6)


@pytest.mark.parametrize(
    ("merge", "expected"),
    [("add", lambda x, f: x + f), ("multiply", lambda x, f: x * (1 + f))],
)
def test_without_zero_init_a_gate_is_open(merge, expected):
    model = build((5,), -1, (5,), merge, zero_init=False)
    x, f = array(4, 5), array(4, 5)
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, expected(np.tanh(x), f)),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("merge", ["film", "concat"])
def test_without_zero_init_a_projection_is_glorots(merge):
    model = build((5,), -1, (5,), merge, zero_init=False)
    limit = np.sqrt(6 / (5 + 5))
    names = {"film": ("scaling", "shifting"), "concat": ("own", "projection")}
    for name in names[merge]:
        kernel = weight(model, name)
        assert 0 < np.abs(kernel).max() <= limit
    x, f = array(4, 5), array(4, 5)
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, merged(model, merge, np.tanh(x), f)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_film_is_that_of_perez():
    """FiLM(F_c | γ_c, β_c) = γ_c F_c + β_c: γ and β are affine in features."""
    model = build((2, 3, 5), -1, (4,), "film")
    randomise(model)
    x, f = array(4, 2, 3, 5), array(4, 4)
    gamma = 1 + f @ weight(model, "scaling")
    beta = f @ weight(model, "shifting")
    expected = np.einsum("nhwc,nc->nhwc", np.tanh(x), gamma)
    expected += beta[:, None, None, :]
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, expected),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(None, 5), (None, None, 5)])
@pytest.mark.parametrize("merge", MERGES)
def test_open_sizes_stay_open(merge, shape):
    model = build(shape, -1, shape, merge)
    randomise(model)
    for size in (2, 4):
        full = [size if n is None else n for n in shape]
        x, f = array(3, *full), array(3, *full)
        inputs = f if merge == "replace" else {"features": f, "x": x}
        np.testing.assert_allclose(
            call(model, inputs),
            answer(model, merged(model, merge, np.tanh(x), f)),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("merge", SILENT)
def test_a_mask_passes_the_merge(merge):
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    x = layers.Embedding(6, 5, mask_zero=True, name="embed")(tokens)
    x = layers.LSTM(3, name="lstm")(x)
    reader = keras.Model(tokens, x, name="reader")
    cascade = kc.build_cascade(
        encoder((7,)),
        reader,
        taps={"style": "features"},
        inject={"style": kc.Injection("embed", merge)},
        inputs={"upstream": "style_input", "downstream": "tokens"},
    )
    padded = np.array([[1, 2, 0, 0], [3, 4, 5, 0]], "int32")
    expected = call(reader, padded)
    full = keras.Model(tokens, reader.get_layer("embed").output)
    unmasked = ops.convert_to_tensor(call(full, padded))
    assert not np.allclose(expected, call(reader.get_layer("lstm"), unmasked))
    inputs = {"style_input": array(2, 7), "tokens": padded}
    np.testing.assert_array_equal(call(cascade, inputs), expected)


@pytest.mark.parametrize("merge", SILENT)
def test_a_mask_of_the_features_does_not_enter(merge):
    """Other steps are padding there: at step 0 that changes nothing."""

    def reader(name):
        tokens = keras.Input((4,), dtype="int32", name=f"{name}_tokens")
        x = layers.Embedding(6, 5, mask_zero=True, name="embed")(tokens)
        return keras.Model(tokens, layers.LSTM(3, name="lstm")(x), name=name)

    first, second = reader("first"), reader("second")
    cascade = kc.build_cascade(
        first,
        second,
        taps={"style": "embed"},
        adapters=7,
        inject={"style": kc.Injection("embed", merge)},
        inputs={"upstream": "style_tokens", "downstream": "tokens"},
    )
    tokens = np.array([[1, 2, 0, 0]], "int32")
    for other in ([[0, 3, 0, 1]], [[1, 2, 3, 4]]):
        inputs = {"style_tokens": np.array(other, "int32"), "tokens": tokens}
        np.testing.assert_array_equal(
            call(cascade, inputs), call(second, tokens)
        )
