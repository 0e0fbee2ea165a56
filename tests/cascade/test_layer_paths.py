"""Layers of a cascade by their paths, and the blocks that they are in."""

import keras
import pytest
from keras import layers

import keras_cascade as kc


def network():
    inputs = keras.Input((4,))
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="deep")], name="inner"
    )
    x = layers.Dense(2, name="top")(inner(inputs))
    return keras.Model(inputs, x, name="net")


@pytest.fixture(scope="module")
def cascade():
    networks = {"a": network(), "b": network()}
    return kc.build_cascade(networks, head=2)


@pytest.mark.parametrize("path", ["a/inner/deep", "b/top", "b/-1", "a/inner"])
def test_a_path_leads_to_the_layer_itself(cascade, path):
    found = cascade.get_layer(path)
    assert cascade.block_of(found) == cascade.block_of(path) == path[0]
    block = cascade.blocks[path[0]]
    names = path.replace("-1", "top").split("/")[1:]
    for name in names:
        block = block.get_layer(name)
    assert found is block


def test_blocks_and_inputs_are_found_as_keras_finds_them(cascade):
    assert cascade.get_layer("a") is cascade.blocks["a"]
    assert cascade.get_layer(index=0) is cascade.layers[0]
    assert cascade.get_layer("inputs") is cascade.layers[0]


def test_a_shared_network_is_found_by_each_of_its_names():
    net = network()
    cascade = kc.build_cascade({"a": net, "b": net}, head=2)
    assert cascade.get_layer("a/top") is cascade.get_layer("b/top")
    assert cascade.block_of("b/top") == "a-b"


def test_variables_and_layers_are_in_their_blocks(cascade):
    for variable in cascade.variables:
        assert cascade.block_of(variable) == variable.path.split("/")[0]
    assert cascade.block_of("head") == "head"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a/tip", "'a/tip', which matches nothing.*Closest: 'a/top'"),
        ("upstream/top", "matches 2 layers"),
        ("a/**", "matches .* layers"),
    ],
)
def test_a_path_to_no_layer_or_to_several_is_refused(cascade, path, message):
    with pytest.raises(ValueError, match=message):
        cascade.get_layer(path)


def test_block_of_takes_paths_layers_and_variables(cascade):
    with pytest.raises(TypeError, match="received 3"):
        cascade.block_of(3)
