"""Tensors enter a graph: consumers of a call's tensor take the merged one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_cascade.graph.copying import copy_graph
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.insertion import (
    Insertion,
    MergeStep,
    inject,
    remove_injections,
)

FED = ops.convert_to_tensor(
    np.random.default_rng(1).normal(size=(8, 4)).astype("float32")
)


@pytest.fixture
def rows(rows):
    """As the backend's tensor, to compute with."""
    return ops.convert_to_tensor(rows)


def entry(address, name="fed", merge="add"):
    """An addition, or a product, after a call; or in its place."""
    kinds = {"add": layers.Add, "multiply": layers.Multiply}

    def steps(x, fed):
        if merge == "replace":
            return []
        step = f"{name}_{merge}"
        output = keras.KerasTensor(x.shape, x.dtype)
        return [MergeStep(step, kinds[merge](name=step), ([x, *fed],), output)]

    tensor = keras.KerasTensor((None, 4), dtype="float32")
    return Insertion(tuple(address.split("/")), {name: tensor}, steps)


def entered(network, *entries):
    return copy_graph(inject(read_graph(network), entries), "copy", pruned=True)


def check(network, expected, entries, *inputs):
    found = entered(network, *entries)
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    np.testing.assert_allclose(
        ops.convert_to_numpy(found(given)),
        ops.convert_to_numpy(expected),
        rtol=1e-5,
        atol=1e-6,
    )
    return found


def dense(name):
    return layers.Dense(4, activation="tanh", name=name)


@pytest.fixture
def plain():
    """one → two, with a connection around two."""
    x = keras.Input((4,), name="x")
    one = dense("one")(x)
    two = dense("two")(one)
    return keras.Model(x, layers.Add(name="sum")([one, two]), name="plain")


def layers_of(network, *names):
    return [network.get_layer(name) for name in names]


def test_all_consumers_of_the_tensor_take_the_merged_one(plain, rows):
    one, two = layers_of(plain, "one", "two")
    x = one(rows) + FED
    check(plain, x + two(x), [entry("one")], rows, FED)


def test_a_tensor_enters_after_the_input(plain, rows):
    expected = plain(rows + FED)
    check(plain, expected, [entry("x")], rows, FED)


def test_a_tensor_enters_after_the_output(plain, rows):
    check(plain, plain(rows) + FED, [entry("sum")], rows, FED)


def test_a_tensor_enters_one_branch_alone(plain, rows):
    one, two = layers_of(plain, "one", "two")
    x = one(rows)
    check(plain, x + two(x) + FED, [entry("two")], rows, FED)


def test_several_enter_each_at_its_call(plain, rows):
    one, two = layers_of(plain, "one", "two")
    x = one(rows) * FED
    expected = x + (two(x) + 2 * FED)
    entries = [entry("one", "first", "multiply"), entry("two", "second")]
    check(plain, expected, entries, rows, FED, 2 * FED)


@pytest.mark.parametrize("first", ["add", "multiply"])
def test_of_two_at_one_call_the_later_merges_into_the_earlier(
    plain, rows, first
):
    one, two = layers_of(plain, "one", "two")
    kinds = ["add", "multiply"] if first == "add" else ["multiply", "add"]
    x = one(rows)
    x = (x + FED) * FED if first == "add" else x * FED + FED
    entries = [entry("one", kind, kind) for kind in kinds]
    check(plain, x + two(x), entries, rows, FED, FED)


def test_a_merge_after_a_replacement_merges_into_it(plain, rows):
    two = plain.get_layer("two")
    x = FED * (3 * FED)
    entries = [
        entry("one", "other", "replace"),
        entry("one", "fed", "multiply"),
    ]
    found = entered(plain, *entries)
    by_name = {"other": FED, "fed": 3 * FED}
    given = [by_name[tensor.name] for tensor in found.inputs]
    np.testing.assert_allclose(
        ops.convert_to_numpy(found(given)),
        ops.convert_to_numpy(x + two(x)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_layers_that_only_a_replaced_tensor_needed_are_pruned(plain):
    found = entered(plain, entry("one", merge="replace"))
    assert [tensor.name for tensor in found.inputs] == ["fed"]
    assert {v.path.split("/")[1] for v in found.variables} == {"two"}
    np.testing.assert_allclose(
        ops.convert_to_numpy(found(FED)),
        ops.convert_to_numpy(FED + plain.get_layer("two")(FED)),
        rtol=1e-5,
    )


def test_a_branch_that_is_needed_stays_when_another_is_replaced(plain, rows):
    found = check(
        plain,
        plain.get_layer("one")(rows) + FED,
        [entry("two", merge="replace")],
        rows,
        FED,
    )
    assert {v.path.split("/")[1] for v in found.variables} == {"one"}


def test_a_tensor_enters_a_network_in_a_network():
    leaf_x = keras.Input((4,), name="leaf_x")
    leaf = keras.Model(
        leaf_x, dense("second")(dense("first")(leaf_x)), name="leaf"
    )
    middle_x = keras.Input((4,), name="middle_x")
    skip = layers.Add(name="skip")([leaf(middle_x), middle_x])
    middle = keras.Model(middle_x, skip, name="middle")
    x = keras.Input((4,), name="x")
    network = keras.Model(x, dense("out")(middle(x)), name="outer")
    rows = ops.ones((8, 4))
    first, second = layers_of(leaf, "first", "second")
    inside = second(first(rows) + FED) + rows
    expected = network.get_layer("out")(inside)
    check(network, expected, [entry("middle/leaf/first")], rows, FED)
    # Two at different depths, the outer network's own included.
    inside = second(first(rows) + FED) * FED + rows
    expected = network.get_layer("out")(inside + FED)
    entries = [
        entry("middle/leaf/first", "a"),
        entry("middle/leaf", "b", "multiply"),
        entry("middle", "c"),
    ]
    check(network, expected, entries, rows, FED, FED, FED)


def test_the_other_calls_of_a_layer_stay_as_they_were(grammar, rows):
    """`shared` is called twice, and `inner` before and after it."""
    found = check(
        grammar,
        _grammar_by_hand(grammar, rows, FED),
        [entry("shared:1")],
        rows,
        FED,
    )
    assert len(found.variables) == len(grammar.variables)


def _grammar_by_hand(grammar, rows, fed):
    a, b, inner, shared = layers_of(
        grammar, "conv1_a", "conv1_b", "inner", "shared"
    )
    return inner(shared(shared(inner(b(a(rows))))) + fed) * 2.0


def test_a_network_with_inputs_by_name_is_entered():
    inner_inputs = {n: keras.Input((4,), name=n) for n in ("p", "q")}
    joined = layers.Add(name="join")(list(inner_inputs.values()))
    inner = keras.Model(inner_inputs, dense("leaf")(joined), name="inner")
    inputs = {n: keras.Input((4,), name=n) for n in ("s", "t")}
    out = inner({"p": inputs["s"], "q": inputs["t"]})
    network = keras.Model(inputs, out, name="outer")
    s, t = ops.ones((8, 4)), 2 * ops.ones((8, 4))
    expected = inner.get_layer("leaf")(s + t + FED)
    check(network, expected, [entry("inner/join")], s, t, FED)


def test_named_outputs_keep_their_names(rows):
    x = keras.Input((4,), name="x")
    hidden = dense("hidden")(x)
    outputs = {"early": hidden, "late": dense("last")(hidden)}
    network = keras.Model(x, outputs, name="two")
    hidden, last = layers_of(network, "hidden", "last")
    found = entered(network, entry("hidden"))([rows, FED])
    merged = hidden(rows) + FED
    for name, expected in {"early": merged, "late": last(merged)}.items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(found[name]),
            ops.convert_to_numpy(expected),
            rtol=1e-5,
        )


def test_a_name_that_the_network_has_is_numbered(rows):
    x = keras.Input((4,), name="x")
    y = layers.Activation("tanh", name="fed_add")(x)
    network = keras.Model(x, y, name="taken")
    found = check(
        network,
        ops.tanh(rows) + FED,
        [entry("fed_add")],
        rows,
        FED,
    )
    assert {"fed_add", "fed_add_1"} <= {layer.name for layer in found.layers}


def test_the_network_stays_as_it_is(grammar, state, same):
    before = state(grammar)
    graph = read_graph(grammar)
    keys = [node.key for node in graph.nodes]
    inject(graph, [entry("inner:0"), entry("conv1_b", "other")])
    same(state(grammar), before)
    assert [node.key for node in graph.nodes] == keys
    assert len(graph.inputs) == 1


def test_the_copy_names_each_weight_as_the_network_does(plain):
    found = entered(plain, entry("two"))
    assert [v.path for v in found.variables] == [
        f"copy/{layer}/{kind}"
        for layer in ("one", "two")
        for kind in ("kernel", "bias")
    ]


def test_injections_are_removed(rows):
    leaf_x = keras.Input((4,), name="leaf_x")
    leaf = keras.Model(
        leaf_x, dense("second")(dense("first")(leaf_x)), name="leaf"
    )
    x = keras.Input((4,), name="x")
    network = keras.Model(x, dense("out")(leaf(x)), name="outer")
    entries = [entry("leaf/first", "a"), entry("leaf", "b"), entry("out", "c")]
    entries.append(entry("out", "d", "multiply"))
    changed = entered(network, *entries)
    assert len(changed.inputs) == 5
    names = ["a", "b", "c", "d"]
    graph = remove_injections(
        read_graph(changed), [f"{n}_" for n in names], names
    )
    again = copy_graph(graph, "again", pruned=True)
    assert [tensor.name for tensor in again.inputs] == ["x"]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(again(rows)), ops.convert_to_numpy(network(rows))
    )
