"""Tests the list of a network's innermost calls."""

import keras
import pytest
from keras import layers

from keras_cascade.display.picture.leaves import (
    list_leaves,
    needed_inputs,
    needed_leaves,
    path_of,
)
from keras_cascade.graph.graph import read_graph


@pytest.fixture(scope="module")
def graph():
    x = inputs = keras.Input((4,), name="inner_input")
    x = layers.Dense(3, name="first")(x)
    inner = keras.Model(inputs, layers.Dense(2, name="second")(x), name="inner")
    image, side = (
        keras.Input((4,), name="image"),
        keras.Input((2,), name="side"),
    )
    y = inner(image)
    joined = layers.Concatenate(name="join")([y, side])
    return read_graph(keras.Model([image, side], [joined, y], name="net"))


def test_leaves_have_paths_and_say_which_inputs_they_read(graph):
    found = {"/".join(x.path): set(x.inputs) for x in list_leaves(graph)}
    assert found == {
        "inner/first": {0},
        "inner/second": set(),
        "join": {1},
    }


def test_a_tensor_is_traced_to_its_innermost_call(graph):
    joined, inner = graph.outputs
    assert path_of(graph, inner) == ("inner", "second")
    assert path_of(graph, joined) == ("join",)


def test_an_output_needs_some_leaves_and_inputs(graph):
    joined, inner = graph.outputs
    paths = [leaf.path for leaf in needed_leaves(graph, [inner])]
    assert paths == [("inner", "first"), ("inner", "second")]
    assert needed_inputs(graph, [inner]) == [0]
    assert needed_inputs(graph, [joined]) == [0, 1]
