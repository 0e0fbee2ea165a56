"""A cascade built again keeps what it learned, and blocks are networks."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.adapters import PCAAdapter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.normal(size=(24, 2)).astype("float32")


def upstream():
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="tanh", name="hidden")(x)
    x = layers.Dense(7, activation="tanh", name="middle")(x)
    x = layers.Dense(5, name="features")(x)
    return keras.Model(inputs, x, name="encoder")


def downstream(width=6):
    return keras.Sequential(
        [keras.Input((width,)), layers.Dense(2, name="out")], name="expert"
    )


TAPS = {"low": "hidden", "high": "features"}


def build(first=None, second=None, **arguments):
    arguments = {
        "taps": TAPS,
        "adapters": {"low": 2, "high": 4},
        "trainable": {"upstream/features": True},
        "learning_rates": {"upstream": 1e-3},
        "optimizer": optimizers.SGD(0.1, momentum=0.9),
        "loss": "mse",
        **arguments,
    }
    return kc.build_cascade(
        first or upstream(), second or downstream(), **arguments
    )


def values(variables):
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in variables}


def predict(model, x=X):
    return model.predict(x, verbose=0)


@pytest.fixture
def trained():
    """A cascade that learned, and the networks that it was built from."""
    networks = upstream(), downstream()
    cascade = build(*networks)
    cascade.fit(X, Y, epochs=2, verbose=0)
    return cascade, networks


def test_without_changes_it_computes_the_same(trained):
    cascade, _ = trained
    again = cascade.rebuild()
    np.testing.assert_array_equal(predict(again), predict(cascade))
    assert again.spec.reinitialized == ()
    assert again.learning_rates() == cascade.learning_rates()
    assert [v.path for v in again.trainable_variables] == [
        v.path for v in cascade.trainable_variables
    ]


def test_the_old_cascade_stays_as_it_is(trained):
    cascade, _ = trained
    before, answers = values(cascade.variables), predict(cascade)
    cascade.rebuild(adapters={"low": 3, "high": 3}).fit(X, Y, verbose=0)
    for path, value in values(cascade.variables).items():
        np.testing.assert_array_equal(value, before[path])
    np.testing.assert_array_equal(predict(cascade), answers)


def test_weights_of_equal_path_and_shape_are_carried_over(trained):
    cascade, _ = trained
    wider = cascade.rebuild(adapters={"low": 2, "high": 3}, downstream=None)
    assert wider.spec.reinitialized == (
        "adapters/high/kernel",
        "adapters/high/bias",
    )
    old, new = values(cascade.variables), values(wider.variables)
    for path in new:
        if path not in wider.spec.reinitialized:
            np.testing.assert_array_equal(new[path], old[path], err_msg=path)


def test_the_summary_lists_reinitialized_weights(trained):
    cascade, _ = trained
    texts = []
    cascade.rebuild(downstream=None, head=2).summary(print_fn=texts.append)
    listed = "Reinitialized by rebuild: head/dense/kernel, head/dense/bias"
    assert listed in texts[0]


def test_flags_and_rates_can_change(trained):
    cascade, _ = trained
    other = cascade.rebuild(trainable=True, learning_rates={"downstream": 0.5})
    np.testing.assert_array_equal(predict(other), predict(cascade))
    rates = other.learning_rates()
    assert rates["upstream/hidden/kernel"] == pytest.approx(0.1)
    assert rates["downstream/out/kernel"] == pytest.approx(0.5)


def test_it_is_compiled_as_the_old_one_was(trained):
    cascade, _ = trained
    same = cascade.rebuild()
    assert same.loss == "mse"
    assert same.optimizer.inner_optimizer.momentum == 0.9
    other = cascade.rebuild(optimizer="adam", metrics=["mae"])
    assert isinstance(other.optimizer.to_plain(), optimizers.Adam)
    assert "mae" in other.evaluate(X, Y, verbose=0, return_dict=True)
    assert not build(loss=None).rebuild().compiled


def test_a_new_tap_gets_an_adapter_of_its_own(trained):
    cascade, _ = trained
    more = {**TAPS, "middle": "middle"}
    adapters = {"low": 2, "high": 3, "middle": 1}
    other = cascade.rebuild(taps=more, adapters=adapters)
    assert other.taps == more
    assert other.spec.reinitialized == (
        "adapters/high/kernel",
        "adapters/high/bias",
        "adapters/middle/kernel",
        "adapters/middle/bias",
    )


def test_what_was_pruned_comes_from_the_original_while_it_lives():
    networks = upstream(), downstream()
    cascade = build(
        *networks,
        taps="hidden",
        adapters=6,
        trainable=None,
        learning_rates=None,
    )
    cascade.fit(X, Y, verbose=0)
    other = cascade.rebuild(taps="middle", adapters=6)
    assert other.spec.reinitialized[:2] == (
        "upstream/middle/kernel",
        "upstream/middle/bias",
    )
    original = ops.convert_to_numpy(networks[0].get_layer("middle").kernel)
    np.testing.assert_array_equal(
        values(other.variables)["upstream/middle/kernel"], original
    )


def test_without_the_original_the_block_serves():
    networks = [upstream(), downstream()]
    cascade = build(*networks)
    cascade.fit(X, Y, verbose=0)
    expected, gone = predict(cascade), weakref.ref(networks[0])
    networks.clear()
    gc.collect()
    assert gone() is None
    again = cascade.rebuild(trainable=False)
    np.testing.assert_array_equal(predict(again), expected)
    assert again.taps == cascade.taps
    assert again.spec.networks == cascade.spec.networks
    assert [v.path for v in again.variables] == [
        v.path for v in cascade.variables
    ]
    inner = cascade.rebuild(taps="middle", adapters=6, trainable=None)
    assert inner.taps == {"middle": "middle"}


def test_after_load_it_is_built_again_from_its_blocks(trained, tmp_path):
    cascade, _ = trained
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    again = loaded.rebuild(learning_rates={"adapters": 0.3})
    np.testing.assert_array_equal(predict(again), predict(cascade))
    assert again.spec.networks == cascade.spec.networks
    with pytest.raises(ValueError, match="No tap at 'nowhere'"):
        loaded.rebuild(taps="nowhere")


def test_a_network_that_is_passed_comes_with_its_own_weights(trained):
    cascade, _ = trained
    other = downstream()
    again = cascade.rebuild(downstream=other)
    np.testing.assert_array_equal(
        values(again.blocks["downstream"].variables)["downstream/out/kernel"],
        ops.convert_to_numpy(other.get_layer("out").kernel),
    )


def test_fitted_adapters_keep_what_they_learned():
    cascade = build(adapters={"low": PCAAdapter(2), "high": 4})
    cascade.adapt(X, verbose=False)
    again = cascade.rebuild(trainable=True)
    assert again.adapters["low"].fitted
    np.testing.assert_array_equal(predict(again), predict(cascade))


def test_an_unknown_argument_is_refused_with_those_that_there_are():
    with pytest.raises(TypeError) as caught:
        build().rebuild(tap="hidden")
    message = str(caught.value)
    assert message.startswith(
        "rebuild() has no argument 'tap'. Closest: 'taps'"
    )
    assert "learning_rates" in message


def test_a_mistake_in_a_change_is_explained_as_when_building(trained):
    with pytest.raises(ValueError, match="'expert' expects 6"):
        trained[0].rebuild(adapters={"low": 2, "high": 3})


@pytest.mark.parametrize("name", ["upstream", "adapters", "downstream"])
def test_a_block_is_a_network_again(trained, name):
    block = trained[0].blocks[name]
    x = [np.ones((4, *tensor.shape[1:]), "float32") for tensor in block.inputs]
    packed = keras.tree.pack_sequence_as(block.input, x)
    expected = keras.tree.flatten(block(packed))
    cascade = kc.build_cascade(block, fusion=None, adapters=None)
    if len(x) > 1:
        names = [tensor.name for tensor in block.inputs]
        packed = dict(zip(names, x, strict=True))
    results = keras.tree.flatten(predict(cascade, packed))
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(
            result, ops.convert_to_numpy(value), atol=1e-6
        )


def test_a_block_can_be_tapped_inside(trained):
    cascade, networks = trained
    again = kc.build_cascade(
        cascade.blocks["upstream"], taps="middle", adapters=None
    )
    original = keras.Model(
        networks[0].inputs, networks[0].get_layer("middle").output
    )
    np.testing.assert_allclose(predict(again), predict(original), atol=1e-6)


def test_a_whole_cascade_is_an_upstream(trained):
    cascade, _ = trained
    outer = kc.build_cascade(
        cascade,
        taps={"answer": "-1", "inside": "upstream/hidden"},
        adapters=None,
        fusion=None,
        name="outer",
    )
    result = predict(outer)
    np.testing.assert_allclose(result["answer"], predict(cascade), atol=1e-6)
    assert result["inside"].shape == (24, 8)
    assert all(v.path.startswith("upstream/") for v in outer.variables)


def test_one_network_can_be_upstream_and_downstream():
    network = keras.Sequential(
        [keras.Input((5,)), layers.Dense(5, name="only")], name="twice"
    )
    cascade = kc.build_cascade(network, network, adapters=None)
    x = X[:, :5]
    expected = predict(network, predict(network, x))
    np.testing.assert_allclose(predict(cascade, x), expected, atol=1e-6)
    assert len(cascade.variables) == 2


# Injections.


def injected(**arguments):
    arguments = {
        "taps": {**TAPS, "style": "middle"},
        "adapters": {"low": 2, "high": 4},
        "inject": {"style": ["hidden", kc.Injection("out", "film")]},
        **arguments,
    }
    return build(upstream(), deep_downstream(), **arguments)


def deep_downstream():
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(4, activation="tanh", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="deep")


def loaded_again(cascade, folder):
    cascade.save(folder / "cascade.keras")
    return keras.saving.load_model(folder / "cascade.keras")


@pytest.mark.parametrize("from_file", [False, True])
def test_what_was_injected_is_injected_again(from_file, tmp_path):
    cascade = injected()
    cascade.fit(X, Y, epochs=2, verbose=0)
    start = loaded_again(cascade, tmp_path) if from_file else cascade
    again = start.rebuild()
    np.testing.assert_array_equal(predict(again), predict(cascade))
    assert again.spec.reinitialized == ()
    assert again.spec.inject == cascade.spec.inject
    assert [v.path for v in again.variables] == [
        v.path for v in cascade.variables
    ]


@pytest.mark.parametrize("from_file", [False, True])
def test_an_injection_can_be_taken_out(from_file, tmp_path):
    """The downstream computes what it did before anything entered."""
    cascade = injected()
    cascade.fit(X, Y, epochs=2, verbose=0)
    start = loaded_again(cascade, tmp_path) if from_file else cascade
    without = start.rebuild(inject=None, taps=TAPS)
    block = without.blocks["downstream"]
    assert [x.name for x in block.inputs] == ["x"]
    assert {v.path for v in block.variables} == {
        f"downstream/{layer}/{kind}"
        for layer in ("hidden", "out")
        for kind in ("kernel", "bias")
    }
    x = RNG.normal(size=(5, 6)).astype("float32")
    found = values(cascade.variables)
    hidden = np.tanh(
        x @ found["downstream/hidden/kernel"] + found["downstream/hidden/bias"]
    )
    expected = (
        hidden @ found["downstream/out/kernel"] + found["downstream/out/bias"]
    )
    np.testing.assert_allclose(predict(block, x), expected, atol=1e-5)


def test_an_injection_is_moved_to_another_layer():
    cascade = injected()
    other = cascade.rebuild(inject={"style": "x"})
    assert other.spec.inject == {"style": (kc.Injection("x"),)}
    assert [path for path in other.spec.reinitialized if "into_x" in path]


def test_a_replacement_is_built_again_from_the_original_only(tmp_path):
    cascade = injected(
        inject={"style": kc.Injection("hidden", "replace")},
        taps={"style": "middle"},
        adapters="auto",
        trainable=None,
    )
    loaded = loaded_again(cascade, tmp_path)
    with pytest.raises(ValueError) as caught:
        loaded.rebuild()
    message = str(caught.value)
    assert "inject['style'] took the place of 'hidden'" in message
    assert "rebuild(downstream=network, ...)" in message
    again = loaded.rebuild(downstream=deep_downstream())
    assert [v.path for v in again.variables] == [
        v.path for v in loaded.variables
    ]


def test_a_tap_that_is_given_up_is_no_longer_injected():
    cascade = injected()
    with pytest.raises(ValueError, match="inject names 'style', which is no"):
        cascade.rebuild(taps=TAPS)


def test_preprocessing_is_kept():
    cascade = kc.build_cascade(
        upstream(),
        head=2,
        preprocess=layers.Rescaling(0.5, offset=1.0),
        loss="mse",
    )
    again = cascade.rebuild()
    np.testing.assert_array_equal(predict(again), predict(cascade))
    assert "preprocessing" in again.blocks
    without = cascade.rebuild(preprocess=None)
    assert "preprocessing" not in without.blocks
    np.testing.assert_allclose(
        predict(without, X * 0.5 + 1.0), predict(cascade), atol=1e-5
    )


def test_inputs_keep_their_names():
    cascade = kc.build_cascade(
        upstream(), head=2, inputs={"upstream": "pixels"}, loss="mse"
    )
    assert [x.name for x in cascade.rebuild().inputs] == ["pixels"]


def test_one_of_several_tensors_of_a_call_is_found_again(tmp_path):
    x = keras.Input((4,), name="x")
    low, high = keras.ops.split(keras.layers.Dense(4, name="all")(x), 2, -1)
    network = keras.Model(x, {"low": low, "high": high}, name="halves")
    cascade = kc.build_cascade(
        network, taps={"one": "high", "other": "low"}, head=2
    )
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    path = tmp_path / "cascade.keras"
    cascade.save(path)
    rebuilt = keras.saving.load_model(path).rebuild(head=None)
    one, other = np.split(keras.ops.convert_to_numpy(rebuilt(rows)), 2, -1)
    expected = network(rows)
    np.testing.assert_array_equal(
        one, keras.ops.convert_to_numpy(expected["high"])
    )
    np.testing.assert_array_equal(
        other, keras.ops.convert_to_numpy(expected["low"])
    )
