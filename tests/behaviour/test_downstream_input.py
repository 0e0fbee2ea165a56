"""Tests the downstream's input: features, the cascade's inputs, or both."""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.testing import check_cascade

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8, 8, 3)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")


def encoder():
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="top")(x)
    return keras.Model(inputs, x, name="encoder")


def expert(shape=(8, 8, 3), name="image"):
    x = inputs = keras.Input(shape, name=name)
    if len(shape) == 3:
        x = layers.Conv2D(4, 3, activation="tanh", name="conv")(x)
        x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="expert")


def call(model, x, **arguments):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x, **arguments))


@pytest.fixture(scope="module")
def networks():
    """Returns networks for reading only."""
    keras.utils.set_random_seed(0)
    return encoder(), expert()


def build(networks, mode, **arguments):
    return kc.build_cascade(*networks, downstream_input=mode, **arguments)


def per_position():
    """Returns an adapter to the three channels of an image."""
    return layers.Dense(3)


def test_features_replace_the_input(networks):
    cascade = build(networks, "features", taps="conv", adapters=per_position())
    assert [x.name for x in cascade.inputs] == ["inputs"]
    first = keras.Model(networks[0].input, networks[0].get_layer("conv").output)
    kernel, bias = map(ops.convert_to_numpy, cascade.adapters["conv"].weights)
    features = ops.convert_to_numpy(first(X)) @ kernel + bias
    np.testing.assert_allclose(
        call(cascade, X), call(networks[1], features), atol=1e-5
    )


def test_none_means_features_if_a_tap_is_not_injected(networks):
    cascade = build(
        networks, None, taps=["conv", "top"], inject={"top": "mean"}
    )
    other = build(
        networks, "features", taps=["conv", "top"], inject={"top": "mean"}
    )
    assert cascade.spec.downstream_input is None
    assert len(cascade.inputs) == 1
    for variable, value in zip(other.variables, cascade.variables, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(call(cascade, X), call(other, X))


def test_none_means_inputs_if_every_tap_is_injected(networks):
    cascade = build(networks, None, taps="conv", inject={"conv": "conv"})
    np.testing.assert_array_equal(call(cascade, X), call(networks[1], X))


def test_with_inputs_the_downstream_sees_only_them(networks):
    cascade = build(
        networks,
        "inputs",
        taps={"conv": "conv", "aux": "top"},
        inject={"conv": "mean"},
        head={"aux": 2},
    )
    np.testing.assert_array_equal(
        call(cascade, X)["output"], call(networks[1], X)
    )


TAPPED = {
    "a map": {"taps": "conv"},
    "a smaller map": {"taps": "top"},
    "several maps": {"taps": ["conv", "top"]},
    "several, added": {"taps": ["conv", "top"], "fusion": "add"},
    "an extra input": {
        "taps": "conv",
        "extra_inputs": {"depth": (8, 8, 1)},
    },
    "one injected": {"taps": ["conv", "top"], "inject": {"top": "mean"}},
}


@pytest.mark.parametrize("case", TAPPED)
def test_both_starts_as_the_downstream_on_the_input(networks, case):
    cascade = build(networks, "both", **TAPPED[case])
    x = X
    if "extra_inputs" in TAPPED[case]:
        x = {"inputs": X, "depth": X[..., :1]}
    np.testing.assert_array_equal(call(cascade, x), call(networks[1], X))
    # Both count: other weights of the merge change the predictions.
    for variable in cascade.variables:
        if "features_into" in variable.path:
            variable.assign(ops.ones(variable.shape))
    assert not np.allclose(call(cascade, x), call(networks[1], X))


def test_both_is_the_input_and_a_projection_of_the_two(networks):
    """x + V x + W f, at each position."""
    cascade = build(networks, "both", taps="conv", adapters=None)
    weights = {}
    for variable in cascade.variables:
        if "features_into" in variable.path:
            variable.assign(RNG.normal(size=variable.shape))
            side = "V" if variable.path.startswith("downstream") else "W"
            weights[side] = ops.convert_to_numpy(variable)
    first = keras.Model(networks[0].input, networks[0].get_layer("conv").output)
    features = ops.convert_to_numpy(first(X))
    joined = X + X @ weights["V"] + features @ weights["W"]
    np.testing.assert_allclose(
        call(cascade, X), call(networks[1], joined), rtol=1e-4, atol=1e-4
    )


def test_both_of_vectors(networks):
    second = expert((5,), "x")
    cascade = build(
        (networks[0], second),
        "both",
        taps="top",
        adapters="auto",
    )
    x = RNG.normal(size=(6, 5)).astype("float32")
    inputs = {"upstream_inputs": X, "downstream_inputs": x}
    np.testing.assert_array_equal(call(cascade, inputs), call(second, x))


@pytest.mark.parametrize("mode", ["both", "inputs"])
def test_training_changes_the_merge_with_the_input(networks, mode):
    inject = {"conv": "image"} if mode == "inputs" else None
    cascade = build(
        networks,
        mode,
        taps="conv",
        adapters=per_position(),
        inject=inject,
        trainable={
            f"downstream/{name}": False for name in ("conv", "drop", "out")
        },
        optimizer=optimizers.SGD(0.1),
        loss="mse",
    )
    start = {v.path: ops.convert_to_numpy(v) + 0 for v in cascade.variables}
    before = cascade.evaluate(X, Y, verbose=0)
    cascade.fit(X, Y, batch_size=6, epochs=3, verbose=0)
    assert cascade.evaluate(X, Y, verbose=0) < before
    after = {v.path: ops.convert_to_numpy(v) for v in cascade.variables}
    moved = {p for p in start if not np.array_equal(start[p], after[p])}
    expected = {
        p
        for p in start
        if p.startswith(("adapters/", "fusion/")) or "_own" in p
    }
    assert moved == expected
    assert "adapters/conv/kernel" in moved


def test_it_is_kept_by_files_and_rebuild(networks):
    cascade = build(
        networks,
        "both",
        taps=["conv", "top"],
        optimizer=optimizers.SGD(0.1),
        loss="mse",
    )
    cascade.fit(X, Y, epochs=1, verbose=0)
    check_cascade(cascade, X)
    np.testing.assert_array_equal(call(cascade.rebuild(), X), call(cascade, X))
    np.testing.assert_allclose(
        call(cascade.to_plain(), X), call(cascade, X), atol=1e-6
    )


def test_a_loaded_cascade_is_rebuilt_with_its_mode(networks, tmp_path):
    cascade = build(networks, "both", taps="conv")
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    again = loaded.rebuild(downstream_input="features", adapters=per_position())
    assert [x.name for x in again.blocks["downstream"].inputs] == ["image"]
    twice = loaded.rebuild()
    np.testing.assert_array_equal(call(twice, X), call(cascade, X))
    assert [v.path for v in twice.variables] == [
        v.path for v in cascade.variables
    ]
