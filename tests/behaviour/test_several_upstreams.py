"""Tests several upstreams: names, shared inputs, flags, rates, files."""

import gc

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.adapters import PCAAdapter
from keras_cascade.testing import check_cascade

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype("float32")
OTHER = RNG.normal(size=(12, 4)).astype("float32")
Y = RNG.normal(size=(12, 2)).astype("float32")


def network(width=6, name="net", unused=True):
    x = inputs = keras.Input((width,), name="x")
    x = layers.Dense(8, activation="relu", name="conv1")(x)
    x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.Dense(5, activation="tanh", name="conv2")(x)
    x = layers.Dense(3, name="last")(x) if unused else x
    return keras.Model(inputs, x, name=name)


def expert():
    return keras.Sequential(
        [keras.Input((9,)), layers.Dense(2, name="out")], name="expert"
    )


def call(model, x, **arguments):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x, **arguments))


def inner(network, name, x):
    model = keras.Model(network.input, network.get_layer(name).output)
    return ops.convert_to_numpy(model(x))


@pytest.fixture(scope="module")
def networks():
    """Returns networks for reading only."""
    keras.utils.set_random_seed(0)
    return {"shape": network(), "colour": network(name="other")}


TAPS = {"s": "shape/conv2", "c": "colour/conv1"}


def build(networks, **arguments):
    arguments = {
        "taps": TAPS,
        "adapters": {"s": 5, "c": 4},
        "optimizer": optimizers.SGD(0.1, momentum=0.9),
        "loss": "mse",
        **arguments,
    }
    return kc.build_cascade(networks, expert(), **arguments)


def test_each_tap_is_that_of_its_network(networks):
    cascade = kc.build_cascade(networks, taps=TAPS, adapters=None, fusion=None)
    result = call(cascade, X)
    for tap, (name, layer) in {
        "s": ("shape", "conv2"),
        "c": ("colour", "conv1"),
    }.items():
        np.testing.assert_allclose(
            result[tap], inner(networks[name], layer, X), atol=1e-6
        )
    assert cascade.taps == TAPS


def test_equal_inputs_are_one(networks):
    cascade = build(networks)
    assert [x.name for x in cascade.inputs] == ["inputs"]
    assert list(cascade.blocks) == [
        "shape",
        "colour",
        "adapters",
        "fusion",
        "downstream",
    ]


def test_different_inputs_are_named_after_their_networks(networks):
    two = {"shape": networks["shape"], "colour": network(4)}
    cascade = build(two)
    names = {x.name for x in cascade.inputs}
    assert names == {"shape_inputs", "colour_inputs"}
    tapped = kc.build_cascade(two, taps=TAPS, adapters=None, fusion=None)
    result = call(tapped, {"shape_inputs": X, "colour_inputs": OTHER})
    np.testing.assert_allclose(
        result["c"], inner(two["colour"], "conv1", OTHER), atol=1e-6
    )


def test_equal_inputs_are_kept_apart_if_inputs_names_them(networks):
    cascade = kc.build_cascade(
        networks,
        taps=TAPS,
        adapters=None,
        fusion=None,
        inputs={"shape": "front", "colour": "back"},
    )
    result = call(cascade, {"front": X, "back": 2 * X})
    np.testing.assert_allclose(
        result["c"], inner(networks["colour"], "conv1", 2 * X), atol=1e-6
    )


def test_layers_that_no_tap_needs_are_pruned(networks):
    cascade = build(networks)
    paths = {v.path.rsplit("/", 1)[0] for v in cascade.variables}
    assert "shape/last" not in paths
    assert "colour/norm" not in paths
    assert {"shape/conv1", "shape/norm", "shape/conv2", "colour/conv1"} <= paths


def test_a_network_and_its_clone_make_two_blocks(networks):
    one = networks["shape"]
    cascade = build(
        {"shape": one, "colour": keras.models.clone_model(one)},
        trainable={"colour": True},
        inputs={"shape": "front", "colour": "back"},
    )
    paths = [v.path for v in cascade.variables]
    assert len(set(paths)) == len(paths)
    before = {v.path: ops.convert_to_numpy(v) + 0 for v in cascade.variables}
    originals = [ops.convert_to_numpy(v) + 0 for v in one.variables]
    cascade.fit({"front": X, "back": X[::-1]}, Y, verbose=0)
    after = {v.path: ops.convert_to_numpy(v) for v in cascade.variables}
    changed = {p for p in before if not np.array_equal(before[p], after[p])}
    assert "colour/conv1/kernel" in changed
    assert not any(path.startswith("shape/") for path in changed)
    for value, variable in zip(originals, one.variables, strict=True):
        np.testing.assert_array_equal(value, ops.convert_to_numpy(variable))


def test_a_glob_reads_all_networks(networks):
    cascade = kc.build_cascade(networks, taps=["*/conv*"], head=2)
    assert cascade.taps == {
        "conv1": "shape/conv1",
        "conv2": "shape/conv2",
        "conv1_1": "colour/conv1",
        "conv2_1": "colour/conv2",
    }


def test_none_reads_every_output(networks):
    cascade = kc.build_cascade(networks, adapters=None)
    assert cascade.taps == {
        "output": "shape/last",
        "output_1": "colour/last",
    }
    expected = [inner(net, "last", X) for net in networks.values()]
    np.testing.assert_allclose(
        call(cascade, X), np.concatenate(expected, axis=1), atol=1e-6
    )


def trained(cascade):
    return {v.path.rsplit("/", 1)[0] for v in cascade.trainable_variables}


def test_upstream_means_all_upstreams(networks):
    cascade = build(networks, trainable={"upstream": True})
    assert trained(cascade) >= {"shape/conv1", "colour/conv1"}
    cascade = build(networks, trainable={"upstream/conv1": True})
    assert trained(cascade) - {
        "adapters/s",
        "adapters/c",
        "downstream/out",
    } == {
        "shape/conv1",
        "colour/conv1",
    }


def test_a_block_is_unfrozen_by_its_name(networks):
    cascade = build(networks, trainable={"colour": True})
    assert not any(path.startswith("shape") for path in trained(cascade))
    assert "colour/conv1" in trained(cascade)


def test_all_upstreams_are_frozen_by_default(networks):
    cascade = build(networks)
    before = {v.path: ops.convert_to_numpy(v) + 0 for v in cascade.variables}
    cascade.fit(X, Y, epochs=2, verbose=0)
    for variable in cascade.variables:
        if variable.path.startswith(("shape/", "colour/")):
            np.testing.assert_array_equal(
                before[variable.path], ops.convert_to_numpy(variable)
            )
    np.testing.assert_array_equal(
        call(cascade, X, training=True), call(cascade, X)
    )


def test_rates_are_set_by_the_names_of_blocks(networks):
    cascade = build(
        networks,
        trainable=True,
        learning_rates={"upstream": 1e-3, "colour": 1e-4},
    )
    rates = cascade.learning_rates()
    assert rates["shape/conv1/kernel"] == pytest.approx(1e-3)
    assert rates["colour/conv1/kernel"] == pytest.approx(1e-4)
    assert rates["downstream/out/kernel"] == pytest.approx(0.1)


@pytest.fixture(scope="module")
def fitted(networks):
    """Returns networks for reading only."""
    two = {"shape": networks["shape"], "colour": network(4)}
    cascade = build(
        two,
        adapters={"s": PCAAdapter(5), "c": 4},
        trainable={"colour": True},
        learning_rates={"colour": 1e-3},
    )
    x = {"shape_inputs": X, "colour_inputs": OTHER}
    cascade.adapt(x, verbose=False)
    cascade.fit(x, Y, epochs=2, verbose=0)
    return cascade, x


def test_it_passes_check_cascade(fitted):
    check_cascade(*fitted)


def test_it_is_restored_from_a_file(fitted, tmp_path):
    cascade, x = fitted
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(call(loaded, x), call(cascade, x))
    assert loaded.taps == cascade.taps
    assert list(loaded.blocks) == list(cascade.blocks)
    assert loaded.learning_rates() == cascade.learning_rates()
    pairs = zip(
        cascade.optimizer.variables, loaded.optimizer.variables, strict=True
    )
    for one, other in pairs:
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))
    again = loaded.rebuild()
    np.testing.assert_array_equal(call(again, x), call(cascade, x))
    assert again.taps == cascade.taps


def test_it_can_be_rebuilt(fitted):
    cascade, x = fitted
    again = cascade.rebuild()
    np.testing.assert_array_equal(call(again, x), call(cascade, x))
    assert again.spec.reinitialized == ()
    other = cascade.rebuild(taps={"s": "shape/conv1", "c": TAPS["c"]})
    assert other.taps["s"] == "shape/conv1"


def test_one_of_its_networks_can_be_exchanged(networks):
    cascade = build(networks)
    third = network(name="third")
    changed = {**networks, "colour": third}
    other = cascade.rebuild(upstream=changed)
    block = other.blocks["colour"]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(block.variables[0]),
        ops.convert_to_numpy(third.get_layer("conv1").kernel),
    )


def test_without_the_originals_it_is_rebuilt_from_blocks():
    two = {"shape": network(), "colour": network(name="other")}
    cascade = build(two)
    two.clear()
    gc.collect()
    again = cascade.rebuild(trainable={"shape/conv1": True})
    np.testing.assert_array_equal(call(again, X), call(cascade, X))
    assert again.taps == TAPS
    assert "shape/conv1" in trained(again)


def test_clone_model_clones_it(networks):
    cascade = build(networks)
    clone = keras.models.clone_model(cascade)
    clone.set_weights(cascade.get_weights())
    np.testing.assert_array_equal(call(clone, X), call(cascade, X))
    assert list(clone.blocks) == list(cascade.blocks)
    assert clone.upstreams == ["shape", "colour"]
    assert set(clone.taps) == set(TAPS)


def test_the_plain_model_predicts_the_same(fitted):
    cascade, x = fitted
    np.testing.assert_allclose(
        call(cascade.to_plain(), x), call(cascade, x), atol=1e-6
    )


def test_the_networks_stay_unchanged(networks):
    keras.utils.set_random_seed(0)
    fresh = {"shape": network(), "colour": network(name="other")}
    cascade = build(networks, trainable=True)
    cascade.fit(X, Y, verbose=0)
    for name, net in networks.items():
        assert net.get_config() == fresh[name].get_config()
        for one, other in zip(
            net.variables, fresh[name].variables, strict=True
        ):
            np.testing.assert_array_equal(
                *map(ops.convert_to_numpy, (one, other))
            )


def test_a_single_upstream_may_have_a_name(networks):
    cascade = kc.build_cascade(
        {"shape": networks["shape"]},
        taps="conv2",
        head=2,
        trainable={"upstream/conv2": True},
    )
    assert list(cascade.blocks) == ["shape", "head"]
    assert trained(cascade) == {"shape/conv2", "head/dense"}
    again = cascade.rebuild()
    np.testing.assert_array_equal(call(again, X), call(cascade, X))


def test_its_summary_has_a_row_for_each(networks):
    texts = []
    build(networks).summary(print_fn=texts.append)
    for word in ("shape", "colour", "net (Functional)", "other (Functional)"):
        assert word in texts[0]
