"""Moments against NumPy, what layers were trained on against the layers."""

from statistics import NormalDist

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_cascade.analysis.statistics import (
    ChannelMoments,
    Expected,
    distance,
    expected_at,
    expected_before,
    is_far,
    normalisations_behind,
    rectified_moments,
    rows_of,
)
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import read_graph

RNG = np.random.default_rng(0)


def normalisation(mean, variance, gamma=None, beta=None, **kwargs):
    """A BatchNormalization that was trained on these moments."""
    layer = layers.BatchNormalization(**kwargs)
    mean, variance = np.asarray(mean, "float32"), np.asarray(variance)
    layer.build((None, len(mean)))
    gamma = np.ones_like(mean) if gamma is None else gamma
    beta = np.zeros_like(mean) if beta is None else beta
    layer.set_weights([gamma, np.asarray(beta), mean, variance])
    return layer


def moments_of(rows):
    moments = ChannelMoments(rows.shape[-1])
    moments.update(rows)
    return moments


def expected(mean, variance, floor=1e-3):
    mean, variance = np.asarray(mean, float), np.asarray(variance, float)
    return Expected("norm", "before", mean, variance, -1, floor, False)


def expected_of(network, inner=None):
    """What is expected at a network's output, or at another reference."""
    graph = read_graph(network)
    output = graph.reference(graph.outputs[0])
    return expected_at(flatten(graph), inner or output)


def test_moments_of_batches_are_those_of_all_rows():
    rows = RNG.normal(1e6, [1.0, 2.0, 0.0], size=(101, 3))
    moments = ChannelMoments(3)
    for part in np.array_split(rows, 7):
        moments.update(part)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-6)
    measured = moments.measured()
    assert measured.mean == pytest.approx(rows.mean())
    assert measured.deviation == pytest.approx(rows.std())
    assert (measured.minimum, measured.maximum) == (rows.min(), rows.max())
    assert measured.values == rows.size


def test_what_is_not_finite_is_counted_and_left_out():
    rows = np.array([[1.0, np.nan], [3.0, 4.0], [np.inf, 0.0]])
    moments = moments_of(rows)
    np.testing.assert_array_equal(moments.mean, [2.0, 2.0])
    np.testing.assert_array_equal(moments.variance, [1.0, 4.0])
    measured = moments.measured()
    assert measured.non_finite == 2
    assert measured.zeros == 1 / 6
    assert (measured.minimum, measured.maximum) == (0.0, 4.0)


def test_a_map_has_a_row_a_position():
    maps = RNG.normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(rows_of(maps), maps.reshape(-1, 5))
    first = rows_of(maps, axis=1)
    np.testing.assert_allclose(first.mean(0), maps.mean((0, 2, 3)))


def test_an_axis_that_is_not_there_is_the_last():
    np.testing.assert_array_equal(rows_of(np.eye(3), axis=3), np.eye(3))


def test_masked_steps_do_not_count():
    steps = np.arange(12.0).reshape(2, 3, 2)
    mask = np.array([[True, False, False], [True, True, False]])
    wanted = [[0, 1], [6, 7], [8, 9]]
    np.testing.assert_array_equal(rows_of(steps, mask=mask), wanted)


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


def test_before_a_batch_normalization_its_moving_moments_are_expected():
    layer = normalisation([1, 2], [4, 9], name="norm")
    inputs = keras.Input((2,))
    x = layers.Dense(2, name="before")(layers.Dropout(0.5)(inputs))
    network = keras.Model(inputs, layer(layers.Dropout(0.5)(x)))
    found = expected_of(network, ("before", 0))
    assert found.layer == "BatchNormalization 'norm'"
    np.testing.assert_array_equal(found.mean, [1, 2])
    np.testing.assert_array_equal(found.variance, [4, 9])


def test_across_the_border_of_a_nested_network_too():
    inner_input = keras.Input((2,))
    layer = normalisation([1, 2], [4, 9], name="norm")
    inner = keras.Model(inner_input, layer(inner_input), name="inner")
    inputs = keras.Input((2,))
    x = layers.Dense(2, name="before")(inputs)
    found = expected_of(keras.Model(inputs, inner(x)), ("before", 0))
    assert found.layer == "BatchNormalization 'inner/norm'"


def test_before_a_normalization_its_mean_and_variance_are_expected():
    network = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, name="before"),
            layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0]),
        ]
    )
    found = expected_of(network, ("before", 0))
    np.testing.assert_allclose(found.mean, [1, 2])
    np.testing.assert_allclose(found.variance, [4, 9])


def exactly(mean, deviation, count=20_000):
    """The quantiles of normal distributions of these moments, as rows."""
    shares = (np.arange(count) + 0.5) / count
    column = np.array([NormalDist().inv_cdf(share) for share in shares])
    column = (column - column.mean()) / column.std()
    return column[:, None] * deviation + mean


def test_behind_a_batch_normalization_is_expected_what_it_gives():
    layer = normalisation([5, -3], [4, 0.01], np.array([2, 0.5]), [1, -1])
    network = keras.Sequential([keras.Input((2,)), layer])
    given = exactly([5, -3], [2, 0.1], count=1000)
    output = ops.convert_to_numpy(network(given.astype("float32")))
    found = expected_of(network)
    np.testing.assert_allclose(found.mean, output.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.variance, output.var(0), rtol=1e-3)


@pytest.mark.parametrize(
    "rectifier",
    [layers.ReLU, lambda: layers.ReLU(6.0), lambda: layers.Activation("relu6")],
    ids=["relu", "relu6", "activation"],
)
def test_behind_a_relu_is_expected_what_it_leaves(rectifier):
    layer = normalisation([5, -3], [4, 1], np.array([4, 0.5]), [1, -0.5])
    network = keras.Sequential(
        [keras.Input((2,)), layer, layers.Dropout(0.1), rectifier()]
    )
    given = exactly([5, -3], [2, 1])
    output = ops.convert_to_numpy(network(given.astype("float32")))
    found = expected_of(network)
    np.testing.assert_allclose(found.mean, output.mean(0), rtol=2e-3)
    np.testing.assert_allclose(found.variance, output.var(0), rtol=2e-3)


def test_a_relu_in_operations_counts_as_one():
    inputs = keras.Input((2,))
    layer = normalisation([0, 0], [1, 1], beta=[1, 1])
    found = expected_of(keras.Model(inputs, ops.relu(layer(inputs))))
    by_layer = expected_of(keras.Model(inputs, layers.ReLU()(layer(inputs))))
    np.testing.assert_array_equal(found.mean, by_layer.mean)


def test_behind_a_dense_layer_nothing_is_known():
    inputs = keras.Input((2,))
    layer = normalisation([0, 0], [1, 1])
    network = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    assert expected_of(network) is None


def test_moments_that_never_moved_are_said_to_be():
    inputs = keras.Input((2,))
    fresh = keras.Model(inputs, layers.BatchNormalization()(inputs))
    assert expected_of(fresh).is_untrained
    trained = normalisation([0, 0.1], [1, 1])
    assert not expected_of(keras.Model(inputs, trained(inputs))).is_untrained


def test_the_first_normalisations_on_each_way_are_found_and_none_behind():
    inputs = keras.Input((2,), name="x")
    left = layers.BatchNormalization(name="left")(layers.Dense(3)(inputs))
    right = layers.Dense(3)(layers.Dense(4)(inputs))
    right = layers.BatchNormalization(name="right")(right)
    both = layers.BatchNormalization(name="both")(layers.Add()([left, right]))
    flat = flatten(read_graph(keras.Model(inputs, both)))
    found = normalisations_behind(flat, ("x", 0))
    assert {call.address[-1] for call in found} == {"left", "right"}


def test_distance_is_in_deviations_and_logarithms_of_the_variance():
    rows = exactly([3.0, 0.0, 1.0], [2.0, 1.0, 3.0], count=50)
    found = distance(expected([1, 0, 0], [4, 1, 1]), moments_of(rows))
    assert found.shift_median == pytest.approx(1.0)
    assert found.shift_max == pytest.approx(1.0)
    assert found.spread_median == pytest.approx(0.0, abs=1e-9)
    assert found.spread_max == pytest.approx(np.log(9))
    assert found.channels == 3


def test_a_dead_channel_is_as_far_as_its_layer_sees_it():
    rows = np.zeros((4, 1))
    found = distance(expected([0.01], [0.0], floor=1e-4), moments_of(rows))
    assert found.shift_median == pytest.approx(1.0)
    assert found.spread_median == 0.0


@pytest.mark.parametrize(
    ("mean", "deviation", "far"),
    [(0.9, 1.0, False), (1.1, 1.0, True), (0.0, 1.9, False), (0.0, 2.1, True)],
)
def test_far_is_beyond_a_deviation_or_four_times_the_variance(
    mean, deviation, far
):
    rows = exactly([mean], [deviation], count=20)
    assert is_far(distance(expected([0], [1]), moments_of(rows))) is far


def test_a_part_is_of_neighbouring_channels():
    part = expected([1, 2, 3], [4, 5, 6]).part(1, 2)
    np.testing.assert_array_equal(part.mean, [2, 3])
    np.testing.assert_array_equal(part.variance, [5, 6])


def test_several_axes_give_no_statistics_by_channel():
    inputs = keras.Input((2, 3), name="x")
    layer = layers.Normalization(axis=(1, 2), mean=0.5, variance=2.0)
    flat = flatten(read_graph(keras.Model(inputs, layer(inputs))))
    assert expected_before(flat.calls[0]) is None
