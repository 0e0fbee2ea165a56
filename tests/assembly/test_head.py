"""Heads are classifiers, layers or several named outputs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc

X = np.random.default_rng(0).normal(size=(9, 4, 4, 2)).astype("float32")


@pytest.fixture(scope="module")
def network():
    """Read only: a map, then a vector."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, name="map")(x)
    x = layers.GlobalAveragePooling2D(name="vector")(x)
    return keras.Model(inputs, x, name="encoder")


def weights(cascade, path):
    found = [v for v in cascade.variables if v.path.startswith(path)]
    return [ops.convert_to_numpy(v) for v in found]


def logits(network, cascade, path="head/dense"):
    kernel, bias = weights(cascade, path)
    return network.predict(X, verbose=0) @ kernel + bias


def softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("tap", ["vector", "map"])
def test_a_number_is_a_pooled_softmax_classifier(network, tap):
    cascade = kc.build_cascade(network, taps=tap, adapters=None, head=5)
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0),
        softmax(logits(network, cascade)),
        atol=1e-6,
    )


def test_one_class_is_a_sigmoid(network):
    cascade = kc.build_cascade(network, head=1)
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0),
        1 / (1 + np.exp(-logits(network, cascade))),
        atol=1e-6,
    )


def test_a_list_of_layers_is_applied_in_order(network):
    head = [layers.Dense(4), layers.Activation("tanh"), layers.Dense(2)]
    cascade = kc.build_cascade(network, head=head)
    paths = [v.path for v in cascade.blocks["head"].variables]
    assert paths == [
        f"head/{name}/{kind}"
        for name in ("dense", "dense_1")
        for kind in ("kernel", "bias")
    ]
    hidden = np.tanh(logits(network, cascade, "head/dense/"))
    kernel, bias = weights(cascade, "head/dense_1/")
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0), hidden @ kernel + bias, atol=1e-6
    )
    assert not any(layer.built for layer in head[:1])


@pytest.mark.parametrize("tap", ["vector", "map"])
def test_a_list_may_end_in_a_number_of_classes(network, tap, tmp_path):
    head = [layers.Dense(4, name="dense_7", activation="relu"), 3]
    cascade = kc.build_cascade(network, taps=tap, adapters=None, head=head)
    features = keras.Model(network.input, network.get_layer(tap).output)
    x = features.predict(X, verbose=0)
    kernels = [weights(cascade, f"head/{n}/") for n in ("dense", "dense_1")]
    x = np.maximum(x @ kernels[0][0] + kernels[0][1], 0)
    x = x if tap == "vector" else x.mean(axis=(1, 2))
    expected = softmax(x @ kernels[1][0] + kernels[1][1])
    found = cascade.predict(X, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    cascade.save(tmp_path / "head.keras")
    again = keras.saving.load_model(tmp_path / "head.keras")
    assert [v.path for v in again.variables] == [
        v.path for v in cascade.variables
    ]
    np.testing.assert_array_equal(again.predict(X, verbose=0), found)


def test_named_heads_are_named_outputs_and_may_read_a_tap(network):
    cascade = kc.build_cascade(
        network,
        taps={"map": "map", "vector": "vector"},
        adapters=None,
        fusion=Last(),
        head={"digit": 5, "map": [layers.Flatten(), layers.Dense(1)]},
    )
    result = cascade.predict(X, verbose=0)
    assert {name: x.shape for name, x in result.items()} == {
        "digit": (9, 5),
        "map": (9, 1),
    }
    inner = keras.Model(network.inputs, network.get_layer("map").output)
    kernel, bias = weights(cascade, "head/map/dense")
    flat = inner.predict(X, verbose=0).reshape(9, -1)
    np.testing.assert_allclose(result["map"], flat @ kernel + bias, atol=1e-5)


@keras.saving.register_keras_serializable(package="keras_cascade_tests")
class Last(layers.Layer):
    """A merging layer of a user: the last stream alone."""

    def call(self, inputs):
        return inputs[-1]


def test_a_head_with_weights_brings_them(network):
    layer = layers.Dense(2)
    layer.build((None, 3))
    cascade = kc.build_cascade(network, head=layer)
    np.testing.assert_array_equal(
        weights(cascade, "head/")[0], ops.convert_to_numpy(layer.kernel)
    )


def test_a_network_can_be_the_head(network):
    expert = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, "softmax")], name="expert"
    )
    cascade = kc.build_cascade(network, head=expert)
    expected = expert.predict(network.predict(X, verbose=0), verbose=0)
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0), expected, atol=1e-6
    )


def test_a_head_reads_the_downstream(network):
    downstream = keras.Sequential(
        [keras.Input((3,)), layers.Dense(6, name="out")], name="expert"
    )
    cascade = kc.build_cascade(network, downstream, adapters=None, head=2)
    inner = downstream.predict(network.predict(X, verbose=0), verbose=0)
    kernel, bias = weights(cascade, "head/")
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0), softmax(inner @ kernel + bias), atol=1e-6
    )


def expert():
    return keras.Sequential(
        [keras.Input((3,)), layers.Dense(6, name="out")], name="expert"
    )


def test_a_head_under_a_taps_name_leaves_the_downstreams_output(network):
    downstream = expert()
    cascade = kc.build_cascade(
        network,
        downstream,
        taps={"vector": "vector", "aux": "map"},
        adapters={"aux": kc.adapters.DenseAdapter(3)},
        fusion="add",
        head={"aux": 2},
    )
    result = cascade.predict(X, verbose=0)
    assert {name: x.shape for name, x in result.items()} == {
        "output": (9, 6),
        "aux": (9, 2),
    }
    plain = kc.build_cascade(
        network,
        downstream,
        taps={"vector": "vector", "aux": "map"},
        adapters=dict(cascade.adapters),
        fusion="add",
    )
    np.testing.assert_allclose(
        result["output"], plain.predict(X, verbose=0), atol=1e-6
    )


def test_a_head_of_another_name_reads_the_downstream(network):
    cascade = kc.build_cascade(
        network,
        expert(),
        taps={"v": "vector"},
        adapters=None,
        head={"digit": 2},
    )
    assert list(cascade.predict(X, verbose=0)) == ["digit"]


def test_heads_on_a_tap_and_on_the_downstream_go_together(network):
    cascade = kc.build_cascade(
        network,
        expert(),
        taps={"v": "vector"},
        adapters=None,
        head={"digit": 2, "v": 4},
    )
    result = cascade.predict(X, verbose=0)
    # The downstream's output is read by a head; it stays an output as well.
    assert result["digit"].shape == (9, 2)
    assert result["v"].shape == (9, 4)
    kernel, bias = weights(cascade, "head/v/dense")
    found = network.predict(X, verbose=0) @ kernel + bias
    np.testing.assert_allclose(result["v"], softmax(found), atol=1e-6)


def test_a_head_on_several_outputs_needs_the_name_of_a_tap(network):
    x = keras.Input((3,))
    two = keras.Model(x, [layers.Dense(2)(x), layers.Dense(1)(x)], name="two")
    arguments = {"taps": {"v": "vector"}, "adapters": None}
    with pytest.raises(ValueError, match="A head reads one output"):
        kc.build_cascade(network, two, head={"digit": 2}, **arguments)
    cascade = kc.build_cascade(network, two, head={"v": 2}, **arguments)
    assert set(cascade.predict(X, verbose=0)) == {"output", "output_1", "v"}
