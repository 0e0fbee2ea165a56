import keras
import numpy as np
import pytest

from keras_cascade.graph.graph import read_graph

layers = keras.layers


def _keys(graph):
    return [node.key for node in graph.nodes]


def test_the_calls_come_in_topological_order(grammar):
    graph = read_graph(grammar)
    assert _keys(graph) == [
        "x",
        "conv1_a",
        "conv1_b",
        "inner:0",
        "shared:0",
        "shared:1",
        "inner:1",
        "multiply",
    ]
    made = set()
    for node in graph.nodes:
        assert all(id(x) in made for x in node.tensors)
        made.update(map(id, node.outputs))


def test_a_nested_network_is_read_as_a_graph_of_its_own(grammar):
    inner = read_graph(grammar).by_key["inner:1"].inner
    assert _keys(inner) == ["inner_x", "dense_in", "dense_out"]


def test_reading_changes_nothing(grammar, state, same):
    before = state(grammar)
    read_graph(grammar)
    same(before, state(grammar))


def test_keras_names_can_be_kept():
    layers.Dense(2)
    network = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert _keys(read_graph(network))[-1] == "dense"
    kept = _keys(read_graph(network, keep_names=True))
    assert kept[-1] == network.layers[-1].name != "dense"


def test_a_reference_leads_back_to_its_tensor(grammar):
    graph = read_graph(grammar)
    assert graph.tensor(("conv1_a", 0)).shape == (None, 4)
    for tensor in graph.outputs:
        assert graph.tensor(graph.reference(tensor)) is tensor
    inner = graph.by_key["inner:0"].inner
    assert graph.tensor(("inner:0", "dense_out", 0)) is inner.outputs[0]
    with pytest.raises(KeyError):
        graph.tensor(("conv1_a", "dense_out", 0))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_calls_are_numbered_as_they_were_made(order):
    # Whatever the order in which the outputs ask for them.
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(4, name="shared")
    made = shared(a), shared(b)
    network = keras.Model([a, b], [made[i] for i in order])
    graph = read_graph(network)
    assert graph.by_key["shared:0"].outputs[0] is made[0]
    assert graph.by_key["shared:1"].outputs[0] is made[1]


def test_an_early_call_keeps_its_number_where_keras_goes_by_depth():
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    first = shared(layers.Dense(4, name="before")(x))
    second = shared(x)
    deep = layers.Dense(4, name="d2")(layers.Dense(4, name="d1")(second))
    network = keras.Model(x, layers.Add(name="add")([first, deep]))
    graph = read_graph(network)
    assert graph.by_key["shared:0"].outputs[0] is first
    assert graph.by_key["shared:1"].outputs[0] is second
    made = set()
    for node in graph.nodes:
        assert all(id(tensor) in made for tensor in node.tensors)
        made.update(map(id, node.outputs))


def test_calls_in_other_networks_do_not_count():
    shared = layers.Dense(4, name="shared")
    other = keras.Input((4,))
    shared(shared(other))
    x = keras.Input((4,), name="x")
    assert _keys(read_graph(keras.Model(x, shared(x)))) == ["x", "shared"]


def test_a_nested_network_may_take_its_inputs_by_name():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model(
        {"b": b, "a": a}, layers.Subtract(name="sub")([a, b]), name="inner"
    )
    p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
    graph = read_graph(keras.Model([p, q], inner({"a": p, "b": q})))
    node = graph.by_key["inner"]
    given = {
        x.name: argument.name
        for x, argument in zip(
            node.inner.inputs, node.inner_arguments, strict=True
        )
    }
    assert given == {"a": "p", "b": "q"}


def test_a_sequential_is_read_like_a_functional():
    network = keras.Sequential(
        [keras.Input((4,), name="x"), layers.Dense(2, name="h")]
    )
    assert _keys(read_graph(network)) == ["x", "h"]


def test_a_subclassed_network_has_no_graph_to_read():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    network = Own(name="own")
    network(np.zeros((1, 4), "float32"))
    with pytest.raises(TypeError, match="'own' has no graph to read"):
        read_graph(network)


def test_a_very_long_network_is_read_without_recursion():
    # Its two ends share a layer, and the longer way is called second.
    x = keras.Input((2,), name="x")
    shared = layers.Activation("linear", name="shared")
    first = x
    for number in range(400):
        first = layers.Activation("linear", name=f"a{number}")(first)
    first, second = shared(first), shared(x)
    for number in range(401):
        second = layers.Activation("linear", name=f"b{number}")(second)
    graph = read_graph(keras.Model(x, layers.Add()([first, second])))
    assert graph.by_key["shared:0"].outputs[0] is first
