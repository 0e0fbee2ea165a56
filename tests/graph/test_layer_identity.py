"""Copies and files keep names, dtypes and flags that a config leaves out."""

import keras
import numpy as np
import pytest

from keras_cascade.graph.block import Block
from keras_cascade.graph.copying import copy_network
from tests.incomplete_layers import (
    KINDS,
    WithoutBase,
    describe,
    make_layer,
)

layers = keras.layers


def in_a_network(layer):
    inputs = keras.Input((4, 5))
    return keras.Model(inputs, layer(inputs), name="network")


PLACES = {
    "alone": in_a_network,
    "nested": lambda layer: in_a_network(in_a_network(layer)),
    "wrapped": lambda layer: in_a_network(
        layers.TimeDistributed(layer, name="steps")
    ),
    "network wrapped": lambda layer: in_a_network(
        layers.TimeDistributed(
            keras.Sequential([keras.Input((5,)), layer]), name="steps"
        )
    ),
}


def own_layers(network):
    """Returns what is known of the layers that are no networks."""
    return [
        (x.name, x.dtype_policy.name, x.trainable)
        for x in network._flatten_layers()
        if not isinstance(x, keras.Model | layers.InputLayer)
    ]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_files_know_a_layer_as_its_network_does(
    kind, place, tmp_path
):
    layer = make_layer(kind, "mine", "float16")
    network = PLACES[place](layer)
    layer.trainable = False
    expected = own_layers(network)
    assert ("float16", False) in [found[1:] for found in expected]
    block = copy_network(network, "upstream")
    assert own_layers(block) == expected
    block.save(tmp_path / "block.keras")
    again = keras.saving.load_model(tmp_path / "block.keras")
    assert own_layers(again) == expected
    assert describe(again) == describe(block)
    for one, other in zip(again.weights, network.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_a_layer_that_freezes_itself_stays_as_it_was_set():
    class Freezing(WithoutBase):
        def __init__(self, units):
            super().__init__(units, trainable=False)

    layer = Freezing(3)
    network = in_a_network(layer)
    layer.trainable = True
    with keras.saving.custom_object_scope({"Freezing": Freezing}):
        block = copy_network(network, "upstream")
        again = Block.from_config(block.get_config())
    assert [v.trainable for v in (*block.weights, *again.weights)] == [True] * 2


def test_a_regularizer_that_a_config_leaves_out_is_kept():
    layer = WithoutBase(3, activity_regularizer="l2")
    block = copy_network(in_a_network(layer), "upstream")
    again = Block.from_config(block.get_config())
    rows = np.ones((2, 4, 5), "float32")
    again.set_weights(block.get_weights())
    expected = 0.01 * (to_numpy(layer(rows)) ** 2).sum() / len(rows)
    for network in (block, again):
        network(rows)
        (loss,) = network.losses
        np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-5)


def test_a_class_that_is_registered_nowhere_is_copied_inside_a_wrapper():
    class Unregistered(WithoutBase):
        pass

    layer = Unregistered(3, name="mine")
    network = in_a_network(layers.TimeDistributed(layer))
    block = copy_network(network, "upstream")
    rows = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")
    expected, found = network.predict(rows), block.predict(rows)
    np.testing.assert_array_equal(found, expected)


def test_configs_of_keras_layers_stay_keras_own():
    block = copy_network(in_a_network(layers.Dense(2)), "upstream")
    (_, entry) = block.get_config()["layers"]
    assert entry["registered_name"] is None
    assert entry["class_name"] == "Dense"
