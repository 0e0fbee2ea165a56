import keras
import pytest

from keras_cascade.graph.flops import Costs
from keras_cascade.graph.graph import read_graph

layers = keras.layers


def _flops(network):
    graph = read_graph(network)
    return Costs(graph).flops(graph.reference(graph.outputs[0]))


def _parameters(network):
    graph = read_graph(network)
    return Costs(graph).parameters(graph.reference(graph.outputs[0]))


def _network(shape, layer):
    x = keras.Input(shape)
    return keras.Model(x, layer(x))


# Two for a product and its sum; the outputs are 8 × 8 unless said otherwise.
FORMULAS = {
    "conv": (
        (8, 8, 3),
        lambda: layers.Conv2D(5, 3, padding="same"),
        2 * 3 * 3 * 3 * 5 * 8 * 8,
    ),
    "conv with strides": (
        (8, 8, 3),
        lambda: layers.Conv2D(5, 3, strides=2, padding="same"),
        2 * 3 * 3 * 3 * 5 * 4 * 4,
    ),
    "conv in groups": (
        (8, 8, 4),
        lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
        2 * 3 * 3 * (4 // 2) * 6 * 8 * 8,
    ),
    "conv 1d": (
        (10, 3),
        lambda: layers.Conv1D(5, 3),
        2 * 3 * 3 * 5 * 8,
    ),
    "depthwise": (
        (8, 8, 3),
        lambda: layers.DepthwiseConv2D(3, padding="same"),
        2 * 3 * 3 * 3 * 8 * 8,
    ),
    "separable": (
        (8, 8, 3),
        lambda: layers.SeparableConv2D(5, 3, padding="same"),
        2 * (3 * 3 * 3 + 3 * 5) * 8 * 8,
    ),
    "transposed": (
        (8, 8, 3),
        lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
        2 * 3 * 3 * 3 * 5 * 8 * 8,
    ),
    "dense": ((7,), lambda: layers.Dense(5), 2 * 7 * 5),
    "dense of a sequence": ((6, 7), lambda: layers.Dense(5), 2 * 6 * 7 * 5),
    "embedding": ((6,), lambda: layers.Embedding(50, 4), 0),
    "elementwise": ((8, 8, 3), lambda: layers.ReLU(), 8 * 8 * 3),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_layers_cost_is_what_the_formula_says(name):
    shape, layer, expected = FORMULAS[name]
    assert _flops(_network(shape, layer())) == expected


@pytest.mark.parametrize("value_dim", [None, 6])
def test_attention_counts_projections_and_products(value_dim):
    queries, keys, d, other, heads, k = 5, 9, 8, 10, 2, 4
    v = value_dim or k
    q, s = keras.Input((queries, d)), keras.Input((keys, other))
    layer = layers.MultiHeadAttention(heads, k, value_dim=value_dim)
    expected = (
        2
        * heads
        * (
            queries * d * k  # queries
            + keys * other * (k + v)  # keys and values
            + queries * keys * (k + v)  # scores, and sums of values
            + queries * v * d  # output
        )
    )
    assert _flops(keras.Model([q, s], layer(q, s))) == expected


def test_attention_to_itself_is_the_same_formula():
    tokens, d, heads, k = 5, 8, 2, 4
    x = keras.Input((tokens, d))
    y = layers.MultiHeadAttention(heads, k)(x, x)
    expected = 2 * heads * (4 * tokens * d * k + 2 * tokens * tokens * k)
    assert _flops(keras.Model(x, y)) == expected


def test_a_recurrent_layer_pays_its_kernels_each_step():
    # Gates: 4 × (input × units + units × units + bias), a step each.
    network = _network((6, 3), layers.LSTM(5))
    assert _flops(network) == 2 * 6 * 4 * (3 * 5 + 5 * 5 + 5)


def test_each_call_costs_and_each_layer_counts_once():
    x = keras.Input((4,))
    inner_x = keras.Input((4,))
    inner = keras.Model(inner_x, layers.Dense(4)(inner_x))
    shared = layers.Dense(4)
    network = keras.Model(x, inner(shared(inner(shared(x)))))
    assert _flops(network) == 4 * (2 * 4 * 4)
    assert _parameters(network) == 2 * (4 * 4 + 4)


def test_layers_that_a_tensor_does_not_need_cost_nothing():
    x = keras.Input((4,), name="x")
    low = layers.Dense(3, name="low")(x)
    layers_behind = layers.Dense(100, name="high")(low)
    graph = read_graph(keras.Model(x, layers_behind))
    assert Costs(graph).flops(("low", 0)) == 2 * 4 * 3
    assert Costs(graph).parameters(("low", 0)) == 4 * 3 + 3


def test_a_tensor_of_each_call_costs_what_a_network_that_ends_there_does():
    x = keras.Input((4,), name="x")
    inner_x = keras.Input((4,), name="inner_x")
    shared = layers.Dense(4, name="shared")
    inner = keras.Model(inner_x, shared(inner_x), name="inner")
    first = layers.Dense(4, name="first")(inner(x))
    again = inner(layers.Dropout(0.5, name="side")(x) + first)
    network = keras.Model(x, layers.Dense(2, name="last")(shared(again)))
    graph = read_graph(network)
    costs = Costs(graph)
    for node in graph.nodes:
        ending = keras.Model(x, node.outputs[0])
        reference = (node.key, 0)
        assert costs.parameters(reference) == ending.count_params()
        assert costs.flops(reference) == _flops(ending)
    within = ("inner:1", "inner_x", 0)
    assert costs.parameters(within) == 2 * (4 * 4 + 4)
    assert costs.flops(within) == 2 * (2 * 4 * 4) + 2 * 4


def test_an_open_size_has_no_cost():
    network = _network((None, None, 3), layers.Conv2D(5, 3))
    assert _flops(network) is None
    assert _parameters(network) == 3 * 3 * 3 * 5 + 5


def test_attention_over_an_open_length_has_no_cost():
    q, s = keras.Input((5, 8)), keras.Input((None, 8))
    network = keras.Model([q, s], layers.MultiHeadAttention(2, 4)(q, s))
    assert _flops(network) is None


def test_parameters_of_a_layer_are_counted_by_hand():
    x = keras.Input((8, 8, 3))
    y = layers.DepthwiseConv2D(3)(x)
    y = layers.LayerNormalization()(layers.BatchNormalization()(y))
    assert _parameters(keras.Model(x, y)) == (3 * 3 * 3 + 3) + 4 * 3 + 2 * 3


def wrapped(layer, shape):
    inputs = keras.Input(shape)
    outputs = layer(inputs)
    graph = read_graph(keras.Model(inputs, outputs))
    return Costs(graph).flops(graph.reference(graph.outputs[0]))


def small_network():
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


CONVOLUTION = 10 * 10 * 8 * 2 * 27
WRAPPED = {
    "each step": (
        lambda: layers.TimeDistributed(layers.Conv2D(8, 3)),
        (5, 12, 12, 3),
        5 * CONVOLUTION,
    ),
    "network": (
        lambda: layers.TimeDistributed(small_network()),
        (5, 12, 12, 3),
        5 * (CONVOLUTION + 8),
    ),
    "sequential": (
        lambda: layers.TimeDistributed(
            keras.Sequential([keras.Input((6,)), layers.Dense(8)])
        ),
        (5, 6),
        5 * 2 * 6 * 8,
    ),
    "wrapper in wrapper": (
        lambda: layers.TimeDistributed(layers.TimeDistributed(layers.Dense(8))),
        (4, 5, 6),
        4 * 5 * 2 * 6 * 8,
    ),
    "normalized": (
        lambda: layers.SpectralNormalization(layers.Dense(8)),
        (5, 6),
        5 * 2 * 6 * 8,
    ),
    "both ways": (
        lambda: layers.Bidirectional(layers.LSTM(4)),
        (5, 6),
        2 * 2 * 5 * (6 * 16 + 4 * 16 + 16),
    ),
    "recurrent convolution": (
        lambda: layers.ConvLSTM2D(4, 3, padding="same"),
        (5, 7, 8, 3),
        2 * 5 * 7 * 8 * (9 * 3 * 16 + 9 * 4 * 16 + 16),
    ),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped_layers_are_counted_by_hand(case):
    make, shape, expected = WRAPPED[case]
    assert wrapped(make(), shape) == expected


def test_kernels_inside_a_layer_of_the_users_are_counted():
    class Doubled(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first, self.second = layers.Dense(8), layers.Dense(6)

        def build(self, input_shape):
            self.first.build(input_shape)
            self.second.build((*input_shape[:-1], 8))

        def call(self, x):
            return self.second(self.first(x))

    assert wrapped(Doubled(), (5, 6)) == 5 * 2 * (6 * 8 + 8 * 6) + 5 * 6


def test_an_open_number_of_steps_is_not_counted():
    layer = layers.TimeDistributed(layers.Dense(8))
    assert wrapped(layer, (None, 6)) is None
