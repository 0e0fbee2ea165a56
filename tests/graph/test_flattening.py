"""Graphs without their nesting: calls, and where tensors come from."""

import keras
from keras import layers

from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import read_graph


def nested(calls=1):
    """x -> before -> (inner: first -> last), once or twice -> after."""
    inner_input = keras.Input((3,), name="y")
    first = layers.Dense(3, name="first")(inner_input)
    last = layers.Dense(3, name="last")(first)
    inner = keras.Model(inner_input, last, name="inner")
    inputs = keras.Input((3,), name="x")
    y = layers.Dense(3, name="before")(inputs)
    for _ in range(calls):
        y = inner(y)
    network = keras.Model(inputs, layers.Dense(2, name="after")(y))
    return flatten(read_graph(network))


def test_calls_of_all_levels_come_in_order():
    assert ["/".join(call.address) for call in nested().steps] == [
        "before",
        "inner/first",
        "inner/last",
        "after",
    ]


def test_tensors_cross_borders_with_the_reference_of_their_origin():
    flat = nested()
    assert [port.reference for port in flat.inputs] == [("x", 0)]
    (first,) = flat.consumers["before", 0]
    assert first.address == ("inner", "first")
    assert flat.producers["inner", "last", 0].address == ("inner", "last")
    assert flat.resolve(("inner", 0)) == ("inner", "last", 0)
    assert flat.resolve(("inner", "y", 0)) == ("before", 0)
    assert flat.resolve(("after", 0)) == ("after", 0)


def test_each_call_of_a_nested_network_has_tensors_of_its_own():
    flat = nested(calls=2)
    (again,) = flat.consumers["inner:0", "last", 0]
    assert again.address == ("inner:1", "first")
    (after,) = flat.consumers["inner:1", "last", 0]
    assert after.address == ("after",)


def test_masks_are_not_data_inputs():
    inputs = keras.Input((4,), dtype="int32", name="x")
    y = layers.Embedding(5, 3, mask_zero=True, name="embed")(inputs)
    y = layers.LSTM(2, name="lstm")(y)
    flat = flatten(read_graph(keras.Model(inputs, y)))
    (lstm,) = [call for call in flat.steps if call.address == ("lstm",)]
    assert lstm.data_inputs == [("embed", 0)]
    assert lstm.inputs == (("embed", 0), ("not_equal", 0))
    assert flat.data_consumers["embed", 0] == [lstm]
    assert ("not_equal", 0) not in flat.data_consumers


def test_constants_are_not_inputs():
    inputs = keras.Input((4,), name="x")
    flat = flatten(read_graph(keras.Model(inputs, inputs * 2.0)))
    assert [call.inputs for call in flat.steps] == [(("x", 0),)]
