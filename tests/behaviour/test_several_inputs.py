"""Tests downstreams with several inputs, injected extra inputs and heads."""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.testing import check_cascade

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 8, 8, 3)).astype("float32")
TOKENS = np.array([[1, 2, 0], [3, 0, 0], [4, 5, 1], [2, 2, 2]], "int32")


def encoder():
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    for level, width in enumerate((4, 6, 8)):
        x = layers.Conv2D(
            width, 3, padding="same", activation="relu", name=f"level{level}"
        )(x)
        x = layers.MaxPooling2D(name=f"pool{level}")(x) if level < 2 else x
    return keras.Model(inputs, x, name="encoder")


def decoder():
    """Returns a decoder as in a U-Net, with an input for each level."""
    shapes = {"fine": (8, 8, 4), "middle": (4, 4, 6), "coarse": (2, 2, 8)}
    inputs = {n: keras.Input(shape, name=n) for n, shape in shapes.items()}
    x = inputs["coarse"]
    for name, width in (("middle", 6), ("fine", 4)):
        x = layers.UpSampling2D(name=f"up_{name}")(x)
        x = layers.Concatenate(name=f"join_{name}")([x, inputs[name]])
        x = layers.Conv2D(width, 3, padding="same", name=f"conv_{name}")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="mask")(x), name="unet")


TAPS = {"coarse": "level2", "fine": "level0", "middle": "level1"}


def reader():
    """Returns a network of two inputs: tokens, and features of an image."""
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    image = keras.Input((5,), name="image")
    x = layers.Embedding(6, 5, name="embed")(tokens)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    x = layers.Multiply(name="both")([x, image])
    x = layers.Dense(3, name="hidden")(x)
    return keras.Model(
        [tokens, image], layers.Softmax(name="out")(x), name="reader"
    )


def call(model, x, **arguments):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x, **arguments))


def tapped(network, *names):
    outputs = [network.get_layer(name).output for name in names]
    return keras.Model(network.input, outputs)


@pytest.fixture(scope="module")
def networks():
    """Returns networks for reading only."""
    keras.utils.set_random_seed(0)
    return encoder(), decoder()


def unet(networks, **arguments):
    arguments = {"taps": TAPS, "fusion": None, **arguments}
    return kc.build_cascade(*networks, **arguments)


def test_a_decoder_is_fed_by_the_taps_of_its_inputs_names(networks):
    first, second = networks
    cascade = unet(networks)
    coarse, fine, middle = tapped(first, "level2", "level0", "level1")(X)
    expected = second({"fine": fine, "middle": middle, "coarse": coarse})
    np.testing.assert_allclose(
        call(cascade, X), ops.convert_to_numpy(expected), atol=1e-5
    )
    # Features that fit have no adapter.
    assert "adapters" not in cascade.blocks
    assert [x.name for x in cascade.inputs] == ["inputs"]


def test_each_of_its_inputs_has_an_adapter_for_its_own_shape(networks):
    taps = {"coarse": "pool0", "fine": "level2", "middle": "level0"}
    cascade = unet(networks, taps=taps)
    shapes = {
        name: tuple(x.shape[1:])
        for name, x in cascade.blocks["adapters"].output.items()
    }
    assert shapes == {
        "fine": (8, 8, 4),
        "middle": (4, 4, 6),
        "coarse": (2, 2, 8),
    }
    assert cascade.output_shape == (None, 8, 8, 2)


def test_an_extra_input_of_tokens_feeds_the_input_of_its_name(networks):
    second = reader()
    cascade = kc.build_cascade(
        networks[0],
        second,
        taps={"image": "level2"},
        adapters={"image": kc.adapters.DenseAdapter(5)},
        fusion=None,
        extra_inputs={"tokens": keras.Input((3,), dtype="int32")},
    )
    assert {x.name: x.dtype for x in cascade.inputs} == {
        "inputs": "float32",
        "tokens": "int32",
    }
    features = tapped(networks[0], "level2")(X)
    features = features[0] if isinstance(features, list) else features
    pooled = ops.convert_to_numpy(features).mean((1, 2))
    weights = [
        ops.convert_to_numpy(w) for w in cascade.adapters["image"].weights
    ]
    image = pooled @ weights[0] + weights[1]
    np.testing.assert_allclose(
        call(cascade, {"inputs": X, "tokens": TOKENS}),
        call(second, [TOKENS, image]),
        atol=1e-5,
    )


def text_and_image(networks, **arguments):
    return kc.build_cascade(
        networks[0],
        reader(),
        taps={"image": "level2"},
        fusion=None,
        inputs={"downstream": {"tokens": "text"}},
        **arguments,
    )


def test_an_input_may_become_one_of_the_cascade(networks):
    cascade = text_and_image(networks)
    assert {x.name: x.dtype for x in cascade.inputs} == {
        "inputs": "float32",
        "text": "int32",
    }
    other = call(cascade, {"inputs": X, "text": TOKENS[::-1]})
    assert not np.allclose(call(cascade, {"inputs": X, "text": TOKENS}), other)


def test_with_every_tap_injected_it_has_all_its_inputs(networks):
    second = reader()
    cascade = kc.build_cascade(
        networks[0],
        second,
        taps={"texture": "level1"},
        inject={"texture": ["both", kc.Injection("embed", "film")]},
    )
    assert sorted(x.name for x in cascade.inputs) == [
        "image",
        "inputs",
        "tokens",
    ]
    image = RNG.normal(size=(4, 5)).astype("float32")
    np.testing.assert_array_equal(
        call(cascade, {"inputs": X, "tokens": TOKENS, "image": image}),
        call(second, [TOKENS, image]),
    )


def test_some_taps_feed_by_name_while_others_are_injected(networks):
    cascade = unet(
        networks,
        taps={**TAPS, "context": "pool1"},
        inject={"context": kc.Injection("conv_middle", "film")},
    )
    np.testing.assert_array_equal(call(cascade, X), call(unet(networks), X))


def test_named_feeds_train_and_are_kept_in_files(networks):
    cascade = text_and_image(
        networks, loss="sparse_categorical_crossentropy", optimizer="sgd"
    )
    x, y = {"inputs": X, "text": TOKENS}, np.array([0, 1, 2, 0])
    before = cascade.evaluate(x, y, verbose=0)
    cascade.compile(optimizers.SGD(0.05), cascade.loss)
    cascade.fit(x, y, epochs=3, verbose=0)
    assert cascade.evaluate(x, y, verbose=0) < before
    check_cascade(cascade, x)
    np.testing.assert_allclose(
        call(cascade.to_plain(), x), call(cascade, x), atol=1e-6
    )
    np.testing.assert_array_equal(call(cascade.rebuild(), x), call(cascade, x))


# Extra inputs that are injected into inner layers.


@pytest.mark.parametrize("merge", ["add", "multiply", "film", "concat"])
def test_an_extra_input_is_injected(networks, merge):
    second = decoder()
    cascade = kc.build_cascade(
        networks[0],
        second,
        taps=TAPS,
        fusion=None,
        extra_inputs={"season": (2,)},
        inject={"season": kc.Injection("conv_middle", merge)},
    )
    season = RNG.normal(size=(4, 2)).astype("float32")
    x = {"inputs": X, "season": season}
    expected = call(unet((networks[0], second)), X)
    np.testing.assert_array_equal(call(cascade, x), expected)
    for variable in cascade.blocks["adapters"].variables:
        variable.assign(ops.ones(variable.shape))
    assert not np.allclose(call(cascade, x), expected)


def test_an_extra_input_of_integers_is_injected_through_an_adapter(networks):
    cascade = kc.build_cascade(
        networks[0],
        decoder(),
        taps=TAPS,
        fusion=None,
        extra_inputs={"kind": keras.Input((), dtype="int32")},
        adapters={"kind": layers.Embedding(4, 6)},
        inject={"kind": kc.Injection("conv_middle", zero_init=False)},
    )
    one, other = (
        call(cascade, {"inputs": X, "kind": np.full(4, kind, "int32")})
        for kind in (0, 3)
    )
    assert not np.allclose(one, other)


# Heads that read a tap: auxiliary losses.


def classifier():
    x = inputs = keras.Input((4,), name="x")
    x = layers.Dense(3, name="hidden")(x)
    return keras.Model(inputs, layers.Softmax(name="out")(x), name="classifier")


def test_a_head_reads_a_tap_beside_the_downstreams_output(networks):
    second = classifier()
    cascade = kc.build_cascade(
        networks[0],
        second,
        taps={"fine": "level0", "middle": "level1"},
        adapters={"middle": None},
        inject={"fine": "hidden"},
        head={"middle": 2},
        downstream_input="inputs",
        inputs={"downstream": "x"},
    )
    x = RNG.normal(size=(4, 4)).astype("float32")
    result = call(cascade, {"inputs": X, "x": x})
    assert set(result) == {"output", "middle"}
    np.testing.assert_array_equal(result["output"], call(second, x))
    middle = ops.convert_to_numpy(tapped(networks[0], "level0", "level1")(X)[1])
    weights = {v.path: ops.convert_to_numpy(v) for v in cascade.variables}
    logits = middle.mean((1, 2)) @ weights["head/middle/dense/kernel"]
    powers = np.exp(logits + weights["head/middle/dense/bias"])
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(result["middle"], expected, atol=1e-5)


def test_an_auxiliary_loss_trains_the_part_that_it_reads(networks):
    cascade = kc.build_cascade(
        networks[0],
        classifier(),
        taps={"top": "level2", "aux": "level0"},
        head={"aux": 2},
        trainable={"upstream/level0": True, "downstream": False},
        optimizer=optimizers.SGD(0.1),
        loss={
            "output": "sparse_categorical_crossentropy",
            "aux": "sparse_categorical_crossentropy",
        },
    )
    before = {v.path: ops.convert_to_numpy(v) + 0 for v in cascade.variables}
    y = {"output": np.array([0, 1, 2, 0]), "aux": np.array([0, 1, 0, 1])}
    logs = cascade.train_on_batch(X, y, return_dict=True)
    assert logs["loss"] == pytest.approx(
        float(logs["output_loss"]) + float(logs["aux_loss"]), rel=1e-5
    )
    after = {v.path: ops.convert_to_numpy(v) for v in cascade.variables}
    moved = {p for p in before if not np.array_equal(before[p], after[p])}
    assert {"head/aux/dense/kernel", "upstream/level0/kernel"} <= moved
    assert not any(
        p.startswith(("downstream/", "upstream/level1")) for p in moved
    )


def test_a_head_reads_a_tap_without_a_downstream(networks):
    cascade = kc.build_cascade(
        networks[0],
        taps={"fine": "level0", "top": "level2"},
        head={"label": 3, "fine": 2},
    )
    result = call(cascade, X)
    assert {name: x.shape for name, x in result.items()} == {
        "label": (4, 3),
        "fine": (4, 2),
    }


def test_an_output_keeps_its_key_beside_a_head(networks):
    x = keras.Input((8,), name="x")
    outputs = {
        "logits": layers.Dense(3, name="a")(x),
        "age": layers.Dense(1, name="b")(x),
    }
    second = keras.Model(x, outputs, name="two")
    cascade = kc.build_cascade(
        networks[0],
        second,
        taps={"top": "level2", "aux": "level0"},
        head={"aux": 2},
    )
    assert set(call(cascade, X)) == {"logits", "age", "aux"}


def test_an_output_and_a_head_of_one_name_are_an_error(networks):
    x = keras.Input((8,), name="x")
    second = keras.Model(x, {"aux": layers.Dense(3)(x)}, name="two")
    with pytest.raises(ValueError, match="Two outputs are called 'aux'"):
        kc.build_cascade(
            networks[0],
            second,
            taps={"top": "level2", "aux": "level0"},
            head={"aux": 2},
        )
