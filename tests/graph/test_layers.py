import keras
import numpy as np
import pytest

from keras_cascade.graph.layers import call_copy, check_layer

layers = keras.layers


def test_the_copy_has_the_layers_weights_and_another_name(rows, same):
    layer = layers.Dense(3, bias_initializer="normal", name="mine")
    expected = layer(rows)
    x = keras.Input((4,))
    network = keras.Model(x, call_copy(layer, "theirs", x))
    same(expected, network(rows))
    assert network.layers[-1] is not layer
    assert (layer.name, network.layers[-1].name) == ("mine", "theirs")


def test_a_layer_without_weights_is_built_by_the_call():
    layer = layers.Dense(3, name="mine")
    x = keras.Input((4,))
    call_copy(layer, "theirs", x)
    assert not layer.built


def test_a_network_is_copied_as_a_network(grammar, rows, same):
    x = keras.Input((4,))
    network = keras.Model(x, call_copy(grammar, "copy", x))
    same(grammar(rows), network(rows))
    assert network.layers[-1].name == "copy"


def test_a_class_in_place_of_a_layer_is_explained():
    with pytest.raises(TypeError, match=r"adapter.*parentheses"):
        check_layer(layers.Dense, "adapter")
    with pytest.raises(TypeError, match="received 3"):
        check_layer(3, "adapter")
    layer = layers.Dense(2)
    assert check_layer(layer, "adapter") is layer


def test_a_copy_shares_no_array_with_the_layer(rows):
    layer = layers.Dense(3)
    layer.build((None, 4))
    x = keras.Input((4,))
    network = keras.Model(x, call_copy(layer, "copy", x))
    before = keras.ops.convert_to_numpy(layer.kernel).copy()
    network.compile("sgd", "mse")
    network.fit(rows, np.ones((8, 3), "float32"), verbose=0)
    np.testing.assert_array_equal(
        before, keras.ops.convert_to_numpy(layer.kernel)
    )
