"""Tests inferred ranges against values that go through the layers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_cascade.adapters import (
    DenseAdapter,
    LogitsAdapter,
    PCAAdapter,
    SpatialAdapter,
)
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import read_graph
from keras_cascade.values.range_inference import infer_range
from keras_cascade.values.requirements import required_range
from keras_cascade.values.value_ranges import ValueRange

RNG = np.random.default_rng(0)


def known_of(network):
    graph = read_graph(network)
    output = graph.reference(graph.outputs[0])
    return infer_range(flatten(graph), output)


def expected_by(network):
    flat = flatten(read_graph(network))
    return required_range(flat, flat.inputs[0].reference, network)


def chain(*several, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *several])


BOUNDED = {
    "celu": (-1, np.inf),
    "elu": (-1, np.inf),
    "exponential": (0, np.inf),
    "gelu": (-0.17, np.inf),
    "hard_sigmoid": (0, 1),
    "hard_silu": (-0.375, np.inf),
    "hard_tanh": (-1, 1),
    "log_sigmoid": (-np.inf, 0),
    "log_softmax": (-np.inf, 0),
    "mish": (-0.309, np.inf),
    "relu": (0, np.inf),
    "relu6": (0, 6),
    "selu": (-1.759, np.inf),
    "sigmoid": (0, 1),
    "silu": (-0.279, np.inf),
    "softmax": (0, 1),
    "softplus": (0, np.inf),
    "softsign": (-1, 1),
    "sparse_plus": (0, np.inf),
    "sparse_sigmoid": (0, 1),
    "sparsemax": (0, 1),
    "squareplus": (0, np.inf),
    "tanh": (-1, 1),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_an_activation_stays_within_its_range(name):
    known = known_of(chain(layers.Activation(name)))
    assert (known.low, known.high) == BOUNDED[name]
    x = np.linspace(-30, 30, 60_000, dtype="float32").reshape(6, -1).T
    y = ops.convert_to_numpy(getattr(keras.activations, name)(x))
    assert y.min() >= known.low
    assert y.max() <= known.high
    # The range is tight: finite bounds are nearly reached.
    for end, reached in ((known.low, y.min()), (known.high, y.max())):
        assert not np.isfinite(end) or abs(end - reached) < 0.05


@pytest.mark.parametrize("name", ["linear", "leaky_relu", "soft_shrink"])
def test_an_activation_without_bounds_is_unknown(name):
    known = known_of(chain(layers.Dense(3), layers.Activation(name)))
    assert known == ValueRange()


@pytest.mark.parametrize(
    "last",
    [
        lambda: layers.Dense(4, "softmax"),
        lambda: layers.Softmax(),
        lambda: layers.Activation("softmax"),
        lambda: layers.Activation(layers.Softmax()),
        lambda: keras.Sequential([layers.Dense(4, "softmax")]),
    ],
    ids=["fused", "layer", "activation", "layer_as_activation", "nested"],
)
def test_a_softmax_is_found_in_every_spelling(last):
    assert known_of(chain(last())).sums_to_one


def test_a_softmax_function_is_found():
    inputs = keras.Input((4,))
    assert known_of(keras.Model(inputs, ops.softmax(inputs))).sums_to_one


def test_moving_dropping_and_averaging_pass_a_range_on():
    known = known_of(
        chain(
            layers.Conv2D(3, 1, activation="softmax"),
            layers.Dropout(0.5),
            layers.AveragePooling2D(2),
            layers.Permute((2, 1, 3)),
            layers.GlobalAveragePooling2D(),
            layers.Identity(),
            layers.Reshape((3, 1)),
            layers.Flatten(),
            shape=(4, 4, 2),
        )
    )
    assert known.sums_to_one


def test_a_maximum_of_probabilities_does_not_sum_to_one():
    known = known_of(
        chain(
            layers.Conv2D(3, 1, activation="softmax"),
            layers.GlobalMaxPooling2D(),
            shape=(4, 4, 2),
        )
    )
    assert known.sums_to_one is None
    assert (known.low, known.high) == (0, 1)


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNormalization,
        layers.LayerNormalization,
        lambda: layers.GroupNormalization(2),
    ],
    ids=["batch", "layer", "group"],
)
def test_normalisations_standardise(layer):
    known = known_of(chain(layer(), layers.Dropout(0.1)))
    assert known.standardised
    assert known.sums_to_one is False
    assert str(known).startswith("standardised (")


def test_a_dense_layer_makes_the_range_unknown():
    known = known_of(chain(layers.Dense(3, "sigmoid"), layers.Dense(3)))
    assert str(known) == "not known"


@pytest.mark.parametrize(
    ("merge", "low", "high"),
    [
        (layers.Add, -1, 2),
        (layers.Multiply, -1, 1),
        (layers.Concatenate, -1, 1),
        (layers.Average, -1, 1),
        (layers.Maximum, -1, 1),
    ],
)
def test_merges_combine_ranges(merge, low, high):
    inputs = keras.Input((5,))
    left = layers.Activation("tanh")(inputs)
    right = layers.Activation("sigmoid")(inputs)
    network = keras.Model(inputs, merge()([left, right]))
    known = known_of(network)
    assert (known.low, known.high) == (low, high)
    y = network(RNG.normal(0, 9, size=(50, 5)).astype("float32"))
    y = ops.convert_to_numpy(y)
    assert low <= y.min() and y.max() <= high


def test_a_sum_with_a_constant_is_unknown():
    inputs = keras.Input((5,))
    y = layers.Activation("tanh")(inputs) + 7.0
    assert known_of(keras.Model(inputs, y)) == ValueRange()


def test_rescaling_moves_a_range():
    known = known_of(
        chain(layers.Activation("tanh"), layers.Rescaling(-10.0, 5.0))
    )
    assert (known.low, known.high) == (-5, 15)


def test_recurrent_layers_have_the_range_of_their_activation():
    known = known_of(chain(layers.LSTM(3), shape=(4, 2)))
    assert (known.low, known.high) == (-1, 1)


def test_resampling_passes_a_range_on_and_projecting_does_not():
    first = layers.Activation("sigmoid")
    resized = chain(first, SpatialAdapter(8), shape=(4, 4, 2))
    assert known_of(resized).high == 1
    projected = chain(first, SpatialAdapter(8, 3), shape=(4, 4, 2))
    assert known_of(projected) == ValueRange()
    assert known_of(chain(first, DenseAdapter(3))) == ValueRange()


def test_logits_are_not_probabilities():
    known = known_of(chain(layers.Dense(4, "softmax"), LogitsAdapter()))
    assert known.sums_to_one is False
    assert known.high == 0


def test_whitened_components_are_standardised():
    assert known_of(chain(PCAAdapter(2, whiten=True))).standardised
    assert not known_of(chain(PCAAdapter(2))).standardised


@pytest.mark.parametrize("axis", [(), (1,)], ids=["cast", "with an axis"])
def test_a_range_passes_the_input_of_a_nested_network(axis):
    inner_input = keras.Input((6,))
    inner = keras.Model(inner_input, layers.Rescaling(1 / 255)(inner_input))
    x = keras.Input((6, *axis), dtype="uint8")
    inside = keras.Model(x, inner(x))
    # An added axis makes other channels: their statistics do not hold.
    expected = expected_by(inside)
    limits = (-np.inf, np.inf) if axis else (0, 255)
    assert (expected.low, expected.high) == limits
    softmax = keras.Model(x, inner(layers.Softmax(dtype="float16")(x)))
    found = known_of(softmax)
    assert (found.low, found.high) == (0, pytest.approx(1 / 255))
