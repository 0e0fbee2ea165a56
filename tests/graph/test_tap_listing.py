"""The list of taps: paths, shapes, cost, and the names of the network."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.graph.tap_listing import list_taps


def test_every_listed_tap_can_be_tapped(grammar, rows):
    paths = [tap.path for tap in list_taps(grammar)]
    cascade = kc.build_cascade(grammar, taps=paths, adapters=None, fusion=None)
    assert list(cascade.taps.values()) == paths
    outputs = cascade(rows)
    for tap, name in zip(list_taps(grammar), cascade.taps, strict=True):
        assert tuple(outputs[name].shape[1:]) == tap.shape[1:]


def test_a_pattern_narrows_the_list(grammar):
    listed = list_taps(grammar, "inner:1/*")
    assert [tap.layer for tap in listed] == ["InputLayer", "Dense", "Dense"]
    with pytest.raises(ValueError, match="No tap matches"):
        list_taps(grammar, "nope*")


def test_the_list_tells_shapes_types_parameters_and_cost():
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.Flatten(name="flat")(y)
    y = layers.Dense(5, name="dense")(y)
    listed = {tap.path: tap for tap in list_taps(keras.Model(x, y))}
    conv, norm, dense = 3 * 3 * 3 * 4 + 4, 4 * 4, 64 * 5 + 5
    assert listed["conv"].shape == (None, 4, 4, 4)
    assert listed["conv"].layer == "Conv2D"
    assert [tap.parameters for tap in listed.values()] == [
        0,
        conv,
        conv + norm,
        conv + norm,
        conv + norm + dense,
    ]
    costs = [0, 2 * 3 * 3 * 3 * 4 * 16, 64, 64, 2 * 64 * 5]
    assert [tap.flops for tap in listed.values()] == list(np.cumsum(costs))


def test_the_list_prints_as_a_table(grammar):
    text = str(list_taps(grammar))
    for head in ("path", "shape", "dtype", "layer", "parameters", "FLOPs"):
        assert head in text
    line = next(x for x in text.splitlines() if "inner:1/dense_out" in x)
    assert "Dense" in line and "float32" in line
    assert repr(list_taps(grammar)) == text


def test_the_list_of_taps_has_the_names(pyramid):
    found = {tap.path: tap.names for tap in list_taps(pyramid)}
    assert found["low"] == ("P3",)
    assert found["P4"] == ()
    assert "low = P3" in str(list_taps(pyramid))
    assert [tap.path for tap in list_taps(pyramid, "P3")] == ["low"]
