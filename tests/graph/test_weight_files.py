"""Tests files of weights that fit a network and its block."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade._keras_compat import is_in_weights_file

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def dense(width, name, **arguments):
    return layers.Dense(width, name=name, **arguments)


def flat():
    x = keras.Input((6,))
    y = layers.Dropout(0.5)(dense(6, "a")(x))
    return keras.Model(x, dense(2, "c")(y))


def nested():
    x, z = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(z, layers.Dropout(0.5)(dense(6, "b")(z)), name="inner")
    around = keras.Sequential([keras.Input((6,)), inner, dense(6, "d")])
    return keras.Model(x, dense(2, "c")(around(dense(6, "a")(x))))


def called_twice():
    x, z = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(z, dense(6, "b")(z), name="inner")
    return keras.Model(x, dense(2, "c")(inner(dense(6, "a")(inner(x)))))


def branched():
    # The taps below put the branches into another order.
    x = keras.Input((6,))
    long = dense(6, "long2")(dense(6, "long1", activation="tanh")(x))
    short = dense(6, "short")(x)
    return keras.Model(x, dense(2, "c")(layers.Add()([long, short])))


def sequence():
    return keras.Sequential([keras.Input((6,)), dense(6, "a"), dense(2, "c")])


NETWORKS = [flat, nested, called_twice, branched, sequence]


def block_of(network, **arguments):
    return kc.build_cascade(network, head=3, **arguments).blocks["upstream"]


def by_layer(network, found=None):
    """Returns the weights of the layers that are no networks, by name."""
    found = {} if found is None else found
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            by_layer(layer, found)
        elif layer.weights:
            found[layer.name] = layer.get_weights()
    return found


def same(block, network):
    expected = by_layer(network)
    for name, weights in by_layer(block).items():
        for one, other in zip(weights, expected[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", NETWORKS)
def test_weights_of_a_network_fit_its_block_and_back(make, tmp_path):
    path = tmp_path / "w.weights.h5"
    network, third = make(), make()
    block = block_of(make())
    network.save_weights(path)
    block.load_weights(path)
    same(block, network)
    path.unlink()
    block.save_weights(path)
    third.load_weights(path)
    same(block, third)


@pytest.mark.parametrize("make", NETWORKS)
def test_they_fit_a_block_that_was_loaded_or_made_of_a_block(make, tmp_path):
    network = make()
    cascade = kc.build_cascade(make(), head=3)
    cascade.save(tmp_path / "c.keras")
    loaded = keras.saving.load_model(tmp_path / "c.keras").blocks["upstream"]
    network.save(tmp_path / "network.keras")
    for number, block in enumerate((loaded, block_of(loaded))):
        block.load_weights(tmp_path / "network.keras")
        same(block, network)
        path = tmp_path / f"{number}.weights.h5"
        block.save_weights(path)
        again = make()
        again.load_weights(path)
        same(block, again)


@pytest.mark.parametrize(
    ("make", "taps"),
    [
        (branched, ["short", "long1"]),
        (branched, ["long2", "short"]),
        (nested, ["a"]),
        (nested, ["sequential/inner/b"]),
        (flat, ["a"]),
    ],
)
def test_weights_of_a_whole_network_fit_the_part_that_is_tapped(
    make, taps, tmp_path
):
    network, block = make(), block_of(make(), taps=taps)
    network.save_weights(tmp_path / "w.weights.h5")
    block.load_weights(tmp_path / "w.weights.h5")
    same(block, network)


def test_shards_and_states_of_random_layers_are_kept(tmp_path):
    path = tmp_path / "w.weights.json"
    blocks = [block_of(nested()) for _ in range(2)]
    blocks[0](X, training=True)
    states = [
        [v for v in x.variables if "seed_generator" in v.path] for x in blocks
    ]
    states[0][0].assign(states[0][0] + 3)
    blocks[0].save_weights(path, max_shard_size=1)
    blocks[1].load_weights(path)
    both = (*states[0], *states[1])
    values = map(keras.ops.convert_to_numpy, both)
    np.testing.assert_array_equal(*values)
    same(*blocks)


@pytest.mark.parametrize("make", [flat, nested])
def test_files_of_earlier_blocks_are_loaded(make, tmp_path):
    path = tmp_path / "w.weights.h5"
    first, second = block_of(make()), block_of(make())
    # As Keras saves a block by itself.
    keras.saving.save_weights(first, path)
    assert is_in_weights_file(str(path), ("layers/block", "vars/0"))
    second.load_weights(path)
    same(second, first)


def test_a_file_of_another_network_is_refused(tmp_path):
    x = keras.Input((6,))
    keras.Model(x, dense(5, "a")(x)).save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(ValueError, match="could not be loaded"):
        block_of(nested()).load_weights(tmp_path / "w.weights.h5")
