"""Tests statistics against the layers that were trained on them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import read_graph
from keras_cascade.values.trained_statistics import (
    TrainedStatistics,
    first_normalisations_after,
    rectified_moments,
    statistics_at,
    statistics_before,
)
from tests.analysis.networks import exactly


def normalisation(mean, variance, gamma=None, beta=None, **kwargs):
    """Returns a BatchNormalization that was trained on these moments."""
    layer = layers.BatchNormalization(**kwargs)
    mean, variance = np.asarray(mean, "float32"), np.asarray(variance)
    layer.build((None, len(mean)))
    gamma = np.ones_like(mean) if gamma is None else gamma
    beta = np.zeros_like(mean) if beta is None else beta
    layer.set_weights([gamma, np.asarray(beta), mean, variance])
    return layer


def statistics_of(network, inner=None):
    """Returns the statistics at a network's output, or at another tensor."""
    graph = read_graph(network)
    output = graph.reference(graph.outputs[0])
    return statistics_at(flatten(graph), inner or output)


@pytest.mark.parametrize("limit", [np.inf, 6.0, 0.5])
def test_rectified_moments_are_the_integrals(limit):
    mean, deviation = np.array([-1.0, 0.0, 2.5]), np.array([0.5, 1.0, 3.0])
    z = mean + deviation * np.linspace(-12, 12, 400_001)[:, None]
    density = np.exp(-(((z - mean) / deviation) ** 2) / 2)
    density /= np.trapezoid(density, z, axis=0)
    rectified = np.clip(z, 0, limit)
    first = np.trapezoid(rectified * density, z, axis=0)
    second = np.trapezoid(rectified**2 * density, z, axis=0)
    found = rectified_moments(mean, deviation, limit)
    np.testing.assert_allclose(found[0], first, atol=1e-6)
    np.testing.assert_allclose(found[1], second - first**2, atol=1e-6)


def test_before_a_batch_normalization_are_its_moving_moments():
    layer = normalisation([1, 2], [4, 9], name="norm")
    inputs = keras.Input((2,))
    x = layers.Dense(2, name="before")(layers.Dropout(0.5)(inputs))
    network = keras.Model(inputs, layer(layers.Dropout(0.5)(x)))
    found = statistics_of(network, ("before", 0))
    assert found.layer == "BatchNormalization 'norm'"
    np.testing.assert_array_equal(found.mean, [1, 2])
    np.testing.assert_array_equal(found.variance, [4, 9])


def test_a_batch_normalization_in_a_nested_network_is_found():
    inner_input = keras.Input((2,))
    layer = normalisation([1, 2], [4, 9], name="norm")
    inner = keras.Model(inner_input, layer(inner_input), name="inner")
    inputs = keras.Input((2,))
    x = layers.Dense(2, name="before")(inputs)
    found = statistics_of(keras.Model(inputs, inner(x)), ("before", 0))
    assert found.layer == "BatchNormalization 'inner/norm'"


def test_before_a_normalization_are_its_mean_and_variance():
    network = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, name="before"),
            layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0]),
        ]
    )
    found = statistics_of(network, ("before", 0))
    np.testing.assert_allclose(found.mean, [1, 2])
    np.testing.assert_allclose(found.variance, [4, 9])


def test_after_a_batch_normalization_are_the_moments_of_its_output():
    layer = normalisation([5, -3], [4, 0.01], np.array([2, 0.5]), [1, -1])
    network = keras.Sequential([keras.Input((2,)), layer])
    given = exactly([5, -3], [2, 0.1], count=1000)
    output = ops.convert_to_numpy(network(given.astype("float32")))
    found = statistics_of(network)
    np.testing.assert_allclose(found.mean, output.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.variance, output.var(0), rtol=1e-3)


@pytest.mark.parametrize(
    "rectifier",
    [layers.ReLU, lambda: layers.ReLU(6.0), lambda: layers.Activation("relu6")],
    ids=["relu", "relu6", "activation"],
)
def test_after_a_relu_are_the_moments_of_rectified_values(rectifier):
    layer = normalisation([5, -3], [4, 1], np.array([4, 0.5]), [1, -0.5])
    network = keras.Sequential(
        [keras.Input((2,)), layer, layers.Dropout(0.1), rectifier()]
    )
    given = exactly([5, -3], [2, 1])
    output = ops.convert_to_numpy(network(given.astype("float32")))
    found = statistics_of(network)
    np.testing.assert_allclose(found.mean, output.mean(0), rtol=2e-3)
    np.testing.assert_allclose(found.variance, output.var(0), rtol=2e-3)


def test_a_relu_function_counts_as_a_relu():
    inputs = keras.Input((2,))
    layer = normalisation([0, 0], [1, 1], beta=[1, 1])
    found = statistics_of(keras.Model(inputs, ops.relu(layer(inputs))))
    by_layer = statistics_of(keras.Model(inputs, layers.ReLU()(layer(inputs))))
    np.testing.assert_array_equal(found.mean, by_layer.mean)


def test_a_dense_layer_has_no_statistics():
    inputs = keras.Input((2,))
    layer = normalisation([0, 0], [1, 1])
    network = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    assert statistics_of(network) is None


def test_initial_moments_are_recognised():
    inputs = keras.Input((2,))
    fresh = keras.Model(inputs, layers.BatchNormalization()(inputs))
    assert statistics_of(fresh).is_untrained
    trained = normalisation([0, 0.1], [1, 1])
    assert not statistics_of(keras.Model(inputs, trained(inputs))).is_untrained


def test_the_first_normalisation_on_each_way_is_found():
    inputs = keras.Input((2,), name="x")
    left = layers.BatchNormalization(name="left")(layers.Dense(3)(inputs))
    right = layers.Dense(3)(layers.Dense(4)(inputs))
    right = layers.BatchNormalization(name="right")(right)
    both = layers.BatchNormalization(name="both")(layers.Add()([left, right]))
    flat = flatten(read_graph(keras.Model(inputs, both)))
    found = first_normalisations_after(flat, ("x", 0))
    assert {call.address[-1] for call in found} == {"left", "right"}


def test_statistics_of_some_channels():
    mean, variance = np.array([1, 2, 3]), np.array([4, 5, 6])
    whole = TrainedStatistics("norm", "before", mean, variance, -1, 1e-3)
    part = whole.channels(1, 3)
    np.testing.assert_array_equal(part.mean, [2, 3])
    np.testing.assert_array_equal(part.variance, [5, 6])


def test_several_axes_give_no_statistics_of_channels():
    inputs = keras.Input((2, 3), name="x")
    layer = layers.Normalization(axis=(1, 2), mean=0.5, variance=2.0)
    flat = flatten(read_graph(keras.Model(inputs, layer(inputs))))
    assert statistics_before(flat.steps[0]) is None
