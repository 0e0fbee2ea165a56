"""Tests the rows of a network: stretches between taps and injections."""

import keras
from keras import layers

from keras_cascade.display.picture.diagram import Port
from keras_cascade.display.picture.leaves import list_leaves
from keras_cascade.display.picture.stretches import Entry, Exit, divide
from keras_cascade.graph.graph import read_graph


def leaves_of(names, frozen=(), input_dim=3):
    x = inputs = keras.Input((input_dim,))
    for name in names:
        x = layers.Dense(3, name=name, trainable=name not in frozen)(x)
    return list_leaves(read_graph(keras.Model(inputs, x, name="net")))


def rows_of(leaves, entries=(), exits=()):
    whole = Exit(leaves[-1].path, Port("out"))
    rows = divide(leaves, list(entries), [*exits, whole])
    return [
        (*row.lines, row.state, row.entering, [x.key for x in row.leaving])
        for row in rows
    ]


OWN = Entry("in", frozenset({0}))


def test_a_stretch_ends_at_each_tap():
    leaves = leaves_of("abcd")
    taps = [Exit(("b",), Port("one")), Exit(("b",), Port("two"))]
    assert rows_of(leaves, [OWN], taps) == [
        ("a … b", "trains", ("in",), ["one", "two"]),
        ("c … d", "trains", (), ["out"]),
    ]


def test_a_stretch_ends_where_weights_begin_to_train():
    assert rows_of(leaves_of("abcd", frozen="ab"), [OWN]) == [
        ("a … b", "frozen", ("in",), []),
        ("c … d", "trains", (), ["out"]),
    ]


def test_weights_that_train_by_turns_are_one_stretch():
    leaves = leaves_of("abcdefgh", frozen="aceg")
    assert rows_of(leaves, [OWN]) == [("a … h", "part", ("in",), ["out"])]


def test_features_enter_before_the_layers_that_merge_them():
    leaves = leaves_of(["stem", "f_into_stem_add", "top"])
    merge = Entry("f", frozenset(), "add at stem", "f_into_stem_")
    assert rows_of(leaves, [OWN, merge]) == [
        ("stem", "trains", ("in",), []),
        ("add at stem", "", ("f",), []),
        ("top", "trains", (), ["out"]),
    ]


def test_the_output_of_a_merge_at_the_end_leaves_at_the_merge():
    leaves = leaves_of(["stem", "f_into_stem_add"])
    merge = Entry("f", frozenset(), "add at stem", "f_into_stem_")
    assert rows_of(leaves, [OWN, merge]) == [
        ("stem", "trains", ("in",), []),
        ("add at stem", "", ("f",), ["out"]),
    ]


def test_a_network_without_layers_is_the_identity():
    (row,) = divide([], [OWN], [Exit(("inputs",), Port("out"))])
    assert row.lines == ("identity",)
    assert row.entering == ("in",) and row.leaving[0].key == "out"
