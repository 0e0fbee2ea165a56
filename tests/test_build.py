"""Tests build_cascade as a whole: inputs, names, copies, pruning."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.training.rates.blockwise_optimizer import find_blockwise

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 6)).astype("float32")
SIDE = RNG.normal(size=(10, 2)).astype("float32")


def upstream():
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="tanh", name="hidden")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(5, name="features")(x)
    return keras.Model(inputs, x, name="encoder")


def downstream(width=7):
    return keras.Sequential(
        [keras.Input((width,)), layers.Dense(2, name="out")], name="expert"
    )


def predict(model, x=X):
    return model.predict(x, verbose=0)


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x))


def test_without_arguments_it_is_the_network_itself():
    network = upstream()
    cascade = kc.build_cascade(network)
    assert cascade.taps == {"output": "features"}
    np.testing.assert_allclose(predict(cascade), predict(network), atol=1e-6)


def test_a_single_input_is_named_inputs():
    assert [x.name for x in kc.build_cascade(upstream()).inputs] == ["inputs"]


def test_several_inputs_keep_their_names_except_numbered_ones():
    left = keras.Input((2,), name="left")
    others = [keras.Input((2,)), keras.Input((2,))]
    network = keras.Model([left, *others], layers.Add()([left, *others]))
    cascade = kc.build_cascade(network, extra_inputs={"side": (1,)})
    names = {x.name for x in cascade.inputs}
    assert names == {"left", "inputs", "inputs_1", "side"}


def test_layers_that_no_tap_needs_are_pruned():
    cascade = kc.build_cascade(upstream(), taps="hidden", adapters=None)
    assert [v.path for v in cascade.variables] == [
        "upstream/hidden/kernel",
        "upstream/hidden/bias",
    ]


def test_an_input_that_no_tap_needs_is_pruned():
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="r")
    low = layers.Dense(4, name="low")(left)
    network = keras.Model(
        [left, right], layers.Concatenate(name="both")([low, right])
    )
    cascade = kc.build_cascade(network, taps="low")
    assert [tuple(x.shape) for x in cascade.inputs] == [(None, 2)]


def test_inputs_keep_their_dtypes():
    ids = keras.Input((3,), dtype="int32", name="ids")
    network = keras.Model(ids, layers.Embedding(5, 2)(ids))
    cascade = kc.build_cascade(
        network, extra_inputs={"side": keras.Input((2,), dtype="float16")}
    )
    dtypes = {x.name: x.dtype for x in cascade.inputs}
    assert dtypes == {"inputs": "int32", "side": "float16"}


def test_extra_inputs_may_have_adapters():
    cascade = kc.build_cascade(
        upstream(),
        downstream(8),
        adapters={"output": None, "side": 3},
        extra_inputs={"side": (2,)},
    )
    kernel, bias = map(to_numpy, cascade.adapters["side"].weights)
    features = cascade.blocks["upstream"](X)["output"]
    joined = np.hstack([to_numpy(features), SIDE @ kernel + bias])
    expected = cascade.blocks["downstream"](joined)
    np.testing.assert_allclose(
        predict(cascade, {"inputs": X, "side": SIDE}),
        to_numpy(expected),
        atol=1e-6,
    )


def test_an_integer_extra_input_goes_through_its_adapter():
    cascade = kc.build_cascade(
        upstream(),
        adapters={"kind": layers.CategoryEncoding(4, output_mode="one_hot")},
        extra_inputs={"kind": keras.Input((1,), dtype="int32")},
    )
    kinds = (np.arange(10) % 4).astype("int32")[:, None]
    result = predict(cascade, {"inputs": X, "kind": kinds})
    np.testing.assert_array_equal(result[:, 5:], np.eye(4)[kinds[:, 0]])


def test_building_twice_gives_the_same_cascade_twice():
    network, expert = upstream(), downstream()
    built = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        built.append(
            kc.build_cascade(
                network,
                expert,
                taps=["hidden", "-1"],
                extra_inputs={"side": (2,)},
                learning_rates={"downstream": 1e-4},
                loss="mse",
            )
        )
    first, second = built
    assert first.spec.get_config() == second.spec.get_config()
    assert [v.path for v in first.variables] == [
        v.path for v in second.variables
    ]
    data = {"inputs": X, "side": SIDE}
    np.testing.assert_array_equal(predict(first, data), predict(second, data))
    first.fit(data, X[:, :2], verbose=0)
    assert np.abs(predict(first, data) - predict(second, data)).max() > 0


def test_an_adapter_and_a_head_passed_in_stay_unchanged():
    adapter, head = layers.Dense(4, name="mine"), layers.Dense(2, name="last")
    cascade = kc.build_cascade(
        upstream(), adapters=adapter, head=head, loss="mse"
    )
    assert not adapter.built
    assert not head.built
    assert cascade.adapters["output"] is not adapter


def test_copies_share_nothing_with_the_networks():
    network = upstream()
    cascade = kc.build_cascade(network, trainable=True, head=2, loss="mse")
    before = predict(network)
    cascade.fit(X, X[:, :2], verbose=0)
    np.testing.assert_array_equal(predict(network), before)
    network.get_layer("hidden").kernel.assign(np.zeros((6, 8)))
    assert np.abs(to_numpy(cascade.blocks["upstream"](X)["output"])).max() > 0


def test_copy_false_shares_layers_and_flags():
    network, expert = upstream(), downstream(5)
    cascade = kc.build_cascade(
        network,
        expert,
        copy=False,
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
    )
    assert cascade.blocks["upstream"].get_layer("hidden") is (
        network.get_layer("hidden")
    )
    assert not network.get_layer("hidden").trainable
    before = to_numpy(expert.get_layer("out").kernel)
    cascade.fit(X, X[:, :2], verbose=0)
    assert np.abs(to_numpy(expert.get_layer("out").kernel) - before).max() > 0
    expected = predict(expert, predict(network))
    np.testing.assert_allclose(predict(cascade), expected, atol=1e-6)


def test_a_file_is_a_network(tmp_path):
    network = upstream()
    network.save(tmp_path / "encoder.keras")
    for path in (tmp_path / "encoder.keras", str(tmp_path / "encoder.keras")):
        cascade = kc.build_cascade(path)
        np.testing.assert_allclose(
            predict(cascade), predict(network), atol=1e-6
        )
        assert cascade.spec.networks["upstream"].name == "encoder"


def test_a_subclassed_network_is_a_black_box():
    network = Subclassed(name="mine")
    expected = to_numpy(network(X))
    cascade = kc.build_cascade(network, head=[layers.Activation("linear")])
    np.testing.assert_allclose(predict(cascade), expected, atol=1e-6)


@keras.saving.register_keras_serializable(package="keras_cascade_tests")
class Subclassed(keras.Model):
    """A network without a graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


def test_networks_may_have_equal_layer_names():
    network = downstream(6)
    second = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, name="out")], name="expert"
    )
    cascade = kc.build_cascade(network, second, adapters=None)
    assert [v.path for v in cascade.variables] == [
        "upstream/out/kernel",
        "upstream/out/bias",
        "downstream/out/kernel",
        "downstream/out/bias",
    ]
    expected = predict(second, predict(network))
    np.testing.assert_allclose(predict(cascade), expected, atol=1e-6)


def test_a_downstream_may_take_its_input_in_a_list_or_a_dict():
    for packed in (lambda x: [x], lambda x: {"only": x}):
        x = keras.Input((5,), name="only")
        expert = keras.Model(packed(x), layers.Dense(2)(x))
        cascade = kc.build_cascade(upstream(), expert, adapters=None)
        assert cascade.output_shape == (None, 2)


def test_a_compiled_network_is_not_compiled_in_the_cascade():
    network = upstream()
    network.compile("sgd", "mse")
    assert not kc.build_cascade(network, head=2).compiled
    assert network.compiled


@pytest.mark.parametrize("optimizer", ["sgd", keras.optimizers.SGD])
def test_it_is_compiled_if_there_is_a_loss(optimizer):
    optimizer = optimizer if isinstance(optimizer, str) else optimizer(0.5)
    cascade = kc.build_cascade(
        upstream(), head=2, optimizer=optimizer, loss="mse", metrics=["mae"]
    )
    assert cascade.compiled
    plain = find_blockwise(cascade.optimizer).to_plain()
    assert type(plain) is type(keras.optimizers.get(optimizer))
    assert cascade.optimizer is not optimizer


def test_the_cascade_has_the_name_it_was_given():
    assert kc.build_cascade(upstream(), name="digits").name == "digits"
