"""Small networks that the tests of the graph package share."""

import keras
import numpy as np
import pytest

from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.taps import resolve_taps

layers = keras.layers


@pytest.fixture
def rows():
    """Eight rows of four features."""
    return np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


@pytest.fixture
def grammar():
    """A network with everything that a path can name.

    In topological order: x, conv1_a, conv1_b, inner (first call), shared
    twice, inner (second call), multiply.
    """
    x = keras.Input((4,), name="x")
    inner_x = keras.Input((4,), name="inner_x")
    hidden = layers.Dense(4, activation="tanh", name="dense_in")(inner_x)
    inner = keras.Model(
        inner_x, layers.Dense(4, name="dense_out")(hidden), name="inner"
    )
    shared = layers.Dense(4, activation="tanh", name="shared")
    y = layers.Dense(4, activation="tanh", name="conv1_a")(x)
    y = layers.Dense(4, name="conv1_b")(y)
    y = shared(shared(inner(y)))
    return keras.Model(x, inner(y) * 2.0, name="grammar")


@pytest.fixture
def part():
    """Function: the block that gives some taps of a network."""

    def part(network, taps):
        found = resolve_taps(read_graph(network), taps, "upstream")
        wanted = {tap.name: tap.reference for tap in found}
        return copy_network(network, "upstream", wanted)

    return part


@pytest.fixture
def state():
    """Function: everything about a network that a copy must leave alone."""

    def state(network):
        operations = getattr(network, "operations", network.layers)
        return {
            "names": [operation.name for operation in operations],
            "paths": [variable.path for variable in network.variables],
            "values": [v.copy() for v in network.get_weights()],
            "flags": [layer.trainable for layer in network._flatten_layers()],
            "outputs": [id(x) for x in network.outputs],
            "calls": [len(op._inbound_nodes) for op in operations],
        }

    return state


@pytest.fixture
def same():
    """Function: checks that two states, or two trees of arrays, are equal."""

    def same(one, other):
        keras.tree.assert_same_structure(one, other)
        pairs = zip(
            keras.tree.flatten(one), keras.tree.flatten(other), strict=True
        )
        for a, b in pairs:
            if keras.ops.is_tensor(a):
                a = keras.ops.convert_to_numpy(a)
            if keras.ops.is_tensor(b):
                b = keras.ops.convert_to_numpy(b)
            np.testing.assert_array_equal(a, b)

    return same


@pytest.fixture
def pyramid():
    """A network with two levels of a pyramid, the second one of two tensors."""
    x = keras.Input((8, 8, 3), name="x")
    low = layers.Conv2D(4, 3, padding="same", name="low")(x)
    high, other = keras.ops.split(
        layers.Conv2D(6, 2, 2, name="high")(low), 2, -1
    )
    network = keras.Model(
        x, {"sum": keras.ops.add(high, other), "low": low}, name="pyramid"
    )
    network.pyramid_outputs = {"P3": low, "P4": high}
    return network
