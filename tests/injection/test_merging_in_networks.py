"""Merges in networks with branches: start, training, files, pruned layers."""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.graph.block import Block
from keras_cascade.testing import check_cascade
from tests.injection.small_networks import (
    RNG,
    SILENT,
    answer,
    array,
    call,
    encoder,
    expert,
    weights,
)

# A small network of images, with a residual connection and a nested network.


def image_encoder(name="encoder"):
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(x)
    return keras.Model(inputs, x, name=name)


def deepest():
    x = inputs = keras.Input((8, 8, 5), name="d")
    x = layers.Conv2D(5, 1, activation="tanh", name="leaf")(x)
    return keras.Model(
        inputs, layers.Add(name="skip")([x, inputs]), name="deep"
    )


def inner():
    x = inputs = keras.Input((8, 8, 5), name="i")
    x = layers.Conv2D(5, 1, name="before")(x)
    x = deepest()(x)
    return keras.Model(
        inputs, layers.Add(name="skip")([x, inputs]), name="inner"
    )


def image_expert():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(5, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(5, 3, padding="same", name="branch")(x)
    y = layers.BatchNormalization(name="norm")(y)
    x = layers.Add(name="residual")([x, y])
    x = inner()(x) * 0.5
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(4, name="dense")(x)
    return keras.Model(inputs, layers.Softmax(name="out")(x), name="expert")


X = array(6, 8, 8, 3)
Y = RNG.integers(0, 4, 6)


@pytest.fixture(scope="module")
def networks():
    """Read only."""
    keras.utils.set_random_seed(0)
    return image_encoder(), image_expert()


PLACES = {
    "the input layer": "image",
    "a convolution": "stem",
    "a residual branch": "branch",
    "a normalisation": "norm",
    "a residual sum": "residual",
    "a nested network": "inner",
    "a nested network's input": "inner/i",
    "inside a nested network": "inner/before",
    "two levels down": "inner/deep/leaf",
    "an operation that is no layer": "multiply",
    "a dropout": "drop",
    "a vector": "pool",
    "the output layer": "out",
    "the output, counted from the end": "-1",
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_features_enter_the_cascade_starts_as_the_downstream(
    networks, place
):
    for merge in SILENT:
        cascade = kc.build_cascade(
            *networks,
            taps={"texture": "conv2"},
            inject={"texture": kc.Injection(PLACES[place], merge)},
        )
        np.testing.assert_array_equal(
            call(cascade, X), call(networks[1], X), err_msg=merge
        )
        # And it did enter: other weights, another answer.
        for variable in cascade.blocks["adapters"].variables:
            variable.assign(ops.ones(variable.shape))
        assert not np.allclose(call(cascade, X), call(networks[1], X)), merge


def injected(networks, **arguments):
    arguments = {
        "taps": {"low": "conv1", "high": "conv2"},
        "inject": {
            "low": ["stem", kc.Injection("inner/deep/leaf", "film")],
            "high": [
                kc.Injection("stem", "multiply"),
                kc.Injection("pool", "concat"),
            ],
        },
        "optimizer": optimizers.SGD(0.1, momentum=0.9),
        "loss": "sparse_categorical_crossentropy",
        **arguments,
    }
    return kc.build_cascade(*networks, **arguments)


def test_several_taps_are_injected_at_once(networks):
    cascade = injected(networks)
    np.testing.assert_array_equal(call(cascade, X), call(networks[1], X))
    sides = {
        path.split("/")[1]
        for path in weights(cascade)
        if path.startswith("injections/")
    }
    assert sides == {
        "low_into_stem_gate",
        "low_into_leaf_scaling",
        "low_into_leaf_shifting",
        "high_into_stem_gate",
        "high_into_pool_projection",
    }


def test_two_injections_into_one_layer_follow_each_other():
    """The later merges into the result of the earlier: (x + g) (1 + h)."""
    x = inputs = keras.Input((5,), name="y")
    first = layers.Identity(name="first")(x)
    second = layers.Activation("sigmoid", name="second")(x)
    network = keras.Model(inputs, [first, second], name="encoder")
    cascade = kc.build_cascade(
        network,
        expert((5,)),
        taps=["first", "second"],
        adapters=None,
        inject={
            "first": kc.Injection("hidden", zero_init=False),
            "second": kc.Injection("hidden", "multiply", zero_init=False),
        },
    )
    x = array(4, 5)
    expected = (np.tanh(x) + x) * (1 + 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(
        call(cascade, x), answer(cascade, expected), rtol=1e-5, atol=1e-6
    )


def test_one_tap_enters_several_layers_each_by_a_gate_of_its_own():
    x = inputs = keras.Input((5,), name="x")
    x = layers.Activation("tanh", name="one")(x)
    x = layers.Activation("sigmoid", name="two")(x)
    network = keras.Model(inputs, layers.Dense(2, name="out")(x), name="two")
    cascade = kc.build_cascade(
        encoder((5,)),
        network,
        taps={"f": "features"},
        adapters=None,
        inject={
            "f": [
                kc.Injection(path, zero_init=False) for path in ("one", "two")
            ]
        },
    )
    gates = [v for path, v in weights(cascade).items() if "gate" in path]
    assert len(gates) == 2
    x = array(4, 5)
    expected = 1 / (1 + np.exp(-(np.tanh(x) + x))) + x
    np.testing.assert_allclose(
        call(cascade, x), answer(cascade, expected), rtol=1e-5, atol=1e-6
    )


def test_of_a_shared_layer_only_the_call_that_is_named_is_entered():
    inputs = keras.Input((5,), name="x")
    shared = layers.Dense(5, activation="tanh", name="shared")
    x = shared(shared(inputs))
    network = keras.Model(inputs, layers.Dense(2, name="out")(x), name="twice")
    cascade = kc.build_cascade(
        encoder((5,)),
        network,
        taps={"f": "features"},
        adapters=None,
        inject={"f": kc.Injection("shared:1", zero_init=False)},
    )
    found = weights(cascade)
    x = array(4, 5)

    def dense(x):
        return np.tanh(x @ found["shared/kernel"] + found["shared/bias"])

    np.testing.assert_allclose(
        call(cascade, x),
        answer(cascade, dense(dense(x)) + x),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_residual_connection_carries_features_that_entered_before_it():
    """(x + g) + Dense(x + g): both branches see it."""
    inputs = keras.Input((5,), name="x")
    x = layers.Activation("tanh", name="hidden")(inputs)
    y = layers.Dense(5, name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    network = keras.Model(inputs, layers.Dense(2, name="out")(x), name="res")
    cascade = kc.build_cascade(
        encoder((5,)),
        network,
        taps={"f": "features"},
        adapters=None,
        inject={"f": kc.Injection("hidden", zero_init=False)},
    )
    found = weights(cascade)
    x = array(4, 5)
    entered = np.tanh(x) + x
    expected = entered + entered @ found["branch/kernel"] + found["branch/bias"]
    np.testing.assert_allclose(
        call(cascade, x), answer(cascade, expected), rtol=1e-5, atol=1e-6
    )


def moved(cascade, before):
    after = weights(cascade)
    return {
        path.split("/")[0 if "injections" not in path else 1]
        for path in before
        if not np.array_equal(before[path], after[path])
    }


@pytest.mark.parametrize("merge", SILENT)
def test_gradients_reach_the_gate_at_once_and_the_adapter_next(merge):
    cascade = kc.build_cascade(
        encoder((7,)),
        expert((3, 5)),
        taps={"f": "features"},
        adapters={"f": kc.adapters.DenseAdapter(5)},
        inject={"f": kc.Injection("hidden", merge)},
        inputs={"upstream": "f_input", "downstream": "x"},
        trainable={"downstream": False},
        optimizer=optimizers.SGD(0.1),
        loss="mse",
    )
    x = {"f_input": array(4, 7), "x": array(4, 3, 5)}
    y, start = array(4, 2), weights(cascade)
    cascade.train_on_batch(x, y)
    first = moved(cascade, start)
    assert first and all(name.startswith("f_into_hidden") for name in first)
    cascade.train_on_batch(x, y)
    assert "f" in moved(cascade, start)


def test_a_frozen_downstream_stays_bit_identical_while_adapters_move(networks):
    cascade = injected(networks, trainable={"downstream": False})
    before = {v.path: ops.convert_to_numpy(v) + 0 for v in cascade.variables}
    cascade.fit(X, Y, epochs=3, batch_size=3, verbose=0)
    after = {v.path: ops.convert_to_numpy(v) for v in cascade.variables}
    changed = {p for p in before if not np.array_equal(before[p], after[p])}
    adapters = {p for p in before if p.startswith("adapters/")}
    assert changed == adapters
    # In training mode too: normalisation and dropout are frozen.
    np.testing.assert_array_equal(
        call(cascade, X, training=True), call(cascade, X)
    )


@pytest.fixture(scope="module")
def trained(networks):
    """Read only."""
    cascade = injected(networks)
    cascade.fit(X, Y, epochs=2, batch_size=3, verbose=0)
    return cascade


def test_training_leaves_the_networks_as_they_were(networks, trained):
    keras.utils.set_random_seed(0)
    again = image_encoder(), image_expert()
    for network, fresh in zip(networks, again, strict=True):
        for one, other in zip(network.variables, fresh.variables, strict=True):
            np.testing.assert_array_equal(
                *map(ops.convert_to_numpy, (one, other))
            )
        assert all(layer.trainable for layer in network.layers)
        assert network.get_config()["layers"] == fresh.get_config()["layers"]


def test_a_file_keeps_answers_and_optimizer(trained, tmp_path):
    trained.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(call(loaded, X), call(trained, X))
    assert loaded.spec.inject == trained.spec.inject
    assert [v.path for v in loaded.variables] == [
        v.path for v in trained.variables
    ]
    pairs = zip(
        loaded.optimizer.variables, trained.optimizer.variables, strict=True
    )
    for one, other in pairs:
        assert one.path == other.path
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))


def test_in_stock_layers_the_cascade_answers_the_same(trained):
    plain = trained.to_plain()
    inner = plain.get_layer("downstream").get_layer("inner")
    assert not any(isinstance(m, Block) for m in (plain, inner))
    np.testing.assert_allclose(call(plain, X), call(trained, X), atol=1e-6)


def test_the_cascade_passes_the_checks_of_cascades(trained):
    check_cascade(trained, X)


def test_in_half_precision_the_cascade_starts_as_the_downstream():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        networks = image_encoder(), image_expert()
        for merge in SILENT:
            cascade = kc.build_cascade(
                *networks,
                taps={"texture": "conv2"},
                inject={
                    "texture": [
                        kc.Injection("stem", merge),
                        kc.Injection("inner/deep/leaf", merge),
                        kc.Injection("dense", merge),
                    ]
                },
            )
            result = cascade(X)
            assert keras.backend.standardize_dtype(result.dtype) == "float16"
            np.testing.assert_array_equal(
                ops.convert_to_numpy(result), call(networks[1], X)
            )
            side = [
                v
                for v in cascade.variables
                if "injections/" in v.path or "_own" in v.path
            ]
            assert {v.dtype for v in side} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_downstream_in_half_precision_takes_features_in_full():
    encoder_network = image_encoder()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = image_expert()
    finally:
        keras.config.set_dtype_policy("float32")
    cascade = kc.build_cascade(
        encoder_network,
        network,
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("residual", "film")},
    )
    np.testing.assert_array_equal(call(cascade, X), call(network, X))


# replace: the layers before it are gone.


def parameters(*shapes):
    return sum(int(np.prod(shape)) for shape in shapes)


def test_replace_prunes_the_layers_before_it():
    network = image_expert()
    cascade = kc.build_cascade(
        image_encoder(),
        network,
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("residual", "replace")},
    )
    block = cascade.blocks["downstream"]
    found = {v.path.split("/")[1] for v in block.variables}
    # Dropout's seed stays; stem, branch and norm are gone.
    assert found == {"inner", "drop", "dense"}
    left = parameters((1, 1, 5, 5), 5, (1, 1, 5, 5), 5, (5, 4), 4)
    assert sum(int(np.prod(w.shape)) for w in block.trainable_weights) == left
    assert [x.name for x in cascade.inputs] == ["inputs"]
    features = cascade.blocks["upstream"](X)
    adapted = cascade.blocks["adapters"](list(features.values()))
    rest = keras.Model(
        network.get_layer("inner").input, network.get_layer("inner").output
    )
    x = rest(next(iter(adapted.values()))) * 0.5
    expected = network.get_layer("out")(
        network.get_layer("dense")(network.get_layer("pool")(x))
    )
    np.testing.assert_allclose(
        call(cascade, X), ops.convert_to_numpy(expected), atol=1e-6
    )


def test_replace_of_one_branch_leaves_the_other():
    network = image_expert()
    cascade = kc.build_cascade(
        image_encoder(),
        network,
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("norm", "replace")},
    )
    found = {v.path.split("/")[1] for v in cascade.blocks["downstream"].weights}
    assert found == {"stem", "inner", "dense"}
    # It still sees the image, which feeds the other branch.
    assert "image" in [x.name for x in cascade.blocks["downstream"].inputs]


def test_replace_inside_a_nested_network_keeps_its_own_skip():
    cascade = kc.build_cascade(
        image_encoder(),
        image_expert(),
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("inner/before", "replace")},
    )
    found = {
        v.path.split("/", 1)[1] for v in cascade.blocks["downstream"].weights
    }
    assert not any("before" in path for path in found)
    assert any(path.startswith("stem/") for path in found)
    assert any(path.startswith("inner/deep/leaf/") for path in found)


def test_replace_by_a_vector_needs_a_rule():
    cascade = kc.build_cascade(
        image_encoder(),
        image_expert(),
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("pool", "replace")},
    )
    found = {v.path.split("/")[1] for v in cascade.blocks["downstream"].weights}
    assert found == {"dense"}
    assert cascade.output_shape == (None, 4)
