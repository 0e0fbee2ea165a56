"""The format of a tensor is that of the layers beside it."""

import keras
import pytest
from keras import layers

from keras_cascade.graph.data_formats import data_format, data_format_at
from keras_cascade.graph.graph import read_graph

FIRST, LAST = "channels_first", "channels_last"


def at(network, name, index=0):
    return data_format_at(read_graph(network), (*name.split("/"), index))


def pool(data_format, name, **arguments):
    # Not a convolution: TensorFlow's CPU has none for channels_first.
    return layers.AveragePooling2D(
        1, data_format=data_format, name=name, **arguments
    )


def plain(data_format):
    x = keras.Input((4, 5, 6), name="x")
    y = layers.Activation("relu", name="early")(x)
    y = pool(data_format, "pool")(y)
    y = layers.Activation("relu", name="act")(y)
    z = layers.GlobalAveragePooling2D(data_format=data_format, name="gap")(y)
    return keras.Model(x, [y, layers.Dense(3, name="dense")(z)])


@pytest.mark.parametrize("fmt", [FIRST, LAST])
def test_a_network_has_the_format_of_its_layers(fmt):
    assert data_format(read_graph(plain(fmt))) == fmt


@pytest.mark.parametrize("fmt", [FIRST, LAST])
@pytest.mark.parametrize("name", ["x", "early", "pool", "act"])
def test_a_map_has_the_format_of_the_layers_beside_it(name, fmt):
    assert at(plain(fmt), name) == fmt


@pytest.mark.parametrize("name", ["gap", "dense"])
def test_a_vector_has_no_format(name):
    assert at(plain(FIRST), name) is None


def test_a_sequence_has_no_format():
    x = keras.Input((8, 3), name="x")
    y = layers.Conv1D(4, 3, data_format=LAST, name="conv")(x)
    network = keras.Model(x, y)
    assert at(network, "conv") is None
    assert data_format(read_graph(network)) is None


def test_without_a_layer_that_has_one_there_is_no_format():
    x = keras.Input((4, 4, 3), name="x")
    network = keras.Model(x, layers.Activation("relu", name="act")(x))
    assert at(network, "x") is None
    assert at(network, "act") is None
    assert data_format(read_graph(network)) is None


def mixed(transpose):
    """Channels last, then first, then last again."""
    x = keras.Input((4, 5, 6), name="x")
    y = pool(LAST, "one")(x)
    y = transpose((3, 1, 2), "there")(y)
    y = layers.Activation("relu", name="between")(y)
    y = pool(FIRST, "two")(y)
    y = transpose((2, 3, 1), "back")(y)
    return keras.Model(x, layers.Activation("relu", name="end")(y))


def permute(dims, name):
    return layers.Permute(dims, name=name)


def operation(dims, name):
    return lambda x: keras.ops.transpose(x, (0, *dims))


@pytest.mark.parametrize("transpose", [permute, operation])
def test_permutations_are_followed(transpose):
    network = mixed(transpose)
    assert at(network, "x") == LAST
    assert at(network, "one") == LAST
    assert at(network, "between") == FIRST
    assert at(network, "two") == FIRST
    assert at(network, "end") == LAST
    assert data_format(read_graph(network)) is None


def test_a_permutation_on_the_way_to_a_layer_is_followed():
    x = keras.Input((6, 4, 5), name="x")
    y = layers.Permute((2, 3, 1))(x)
    network = keras.Model(x, pool(LAST, "pool")(y))
    assert at(network, "x") == FIRST


def test_channels_in_the_middle_are_no_format():
    x = keras.Input((4, 6, 5), name="x")
    y = layers.Permute((1, 3, 2))(x)
    network = keras.Model(x, pool(LAST, "pool")(y))
    assert at(network, "x") is None


def test_after_a_reshape_the_following_layers_decide():
    x = keras.Input((6,), name="x")
    y = layers.Reshape((6, 1, 1), name="map")(x)
    network = keras.Model(x, pool(FIRST, "pool")(y))
    assert at(network, "map") == FIRST


def test_after_a_reshape_the_networks_own_format_is_the_last_resort():
    x = keras.Input((6, 4, 4), name="x")
    y = layers.GlobalAveragePooling2D(data_format=FIRST, name="gap")(x)
    network = keras.Model(x, layers.Reshape((6, 1, 1), name="map")(y))
    assert at(network, "map") == FIRST


def nested(inner_format):
    inner_x = keras.Input((4, 5, 6), name="inner_x")
    y = layers.Activation("relu", name="start")(inner_x)
    y = pool(inner_format, "pool")(y)
    y = layers.Activation("relu", name="act")(y)
    return keras.Model(inner_x, y, name="inner")


def test_borders_of_nested_networks_are_crossed():
    x = keras.Input((4, 5, 6), name="x")
    y = layers.Activation("relu", name="early")(x)
    y = layers.Activation("relu", name="late")(nested(FIRST)(y))
    y = layers.Permute((2, 3, 1), name="turn")(y)
    network = keras.Model(x, pool(LAST, "pool")(y))
    for name in ("x", "early", "late", "inner", "inner/start", "inner/act"):
        assert at(network, name) == FIRST, name
    assert at(network, "turn") == LAST


def test_the_surroundings_decide_for_a_nested_network_without_a_format():
    inner_x = keras.Input((4, 5, 6), name="inner_x")
    act = layers.Activation("relu", name="act")(inner_x)
    inner = keras.Model(inner_x, act, name="inner")
    x = keras.Input((4, 5, 6), name="x")
    y = inner(pool(FIRST, "pool")(x))
    network = keras.Model(x, layers.Activation("relu", name="end")(y))
    assert at(network, "inner/act") == FIRST
    assert at(network, "end") == FIRST
    follower = keras.Model(x, pool(FIRST, "after")(inner(x)))
    assert at(follower, "inner/act") == FIRST


def test_each_call_of_a_nested_network_has_its_own_surroundings():
    inner_x = keras.Input((4, 4, 4), name="inner_x")
    act = layers.Activation("relu", name="act")(inner_x)
    inner = keras.Model(inner_x, act, name="inner")
    x = keras.Input((4, 4, 4), name="x")
    y = layers.Permute((3, 1, 2))(inner(pool(LAST, "one")(x)))
    network = keras.Model(x, inner(pool(FIRST, "two")(y)))
    assert at(network, "inner:0/act") == LAST
    assert at(network, "inner:1/act") == FIRST


def test_volumes_have_a_format():
    x = keras.Input((3, 4, 4, 4), name="x")
    y = layers.AveragePooling3D(1, data_format=FIRST, name="pool")(x)
    network = keras.Model(x, layers.Activation("relu", name="act")(y))
    assert at(network, "act") == FIRST


def test_an_unknown_place_is_an_error():
    with pytest.raises(KeyError):
        at(plain(LAST), "pool/conv")
