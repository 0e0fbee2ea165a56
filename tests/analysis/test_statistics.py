"""Tests moments and distances against NumPy."""

import numpy as np
import pytest

from keras_cascade.analysis.statistics import (
    ChannelMoments,
    distance,
    is_far,
    to_rows,
)
from keras_cascade.values.trained_statistics import TrainedStatistics
from tests.analysis.networks import exactly

RNG = np.random.default_rng(0)


def moments_of(rows):
    moments = ChannelMoments(rows.shape[-1])
    moments.update(rows)
    return moments


def trained_on(mean, variance, floor=1e-3):
    mean, variance = np.asarray(mean, float), np.asarray(variance, float)
    return TrainedStatistics("norm", "before", mean, variance, -1, floor, False)


def test_moments_of_batches_are_those_of_all_rows():
    rows = RNG.normal(1e6, [1.0, 2.0, 0.0], size=(101, 3))
    moments = ChannelMoments(3)
    for part in np.array_split(rows, 7):
        moments.update(part)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-6)
    measured = moments.over_all()
    assert measured.mean == pytest.approx(rows.mean())
    assert measured.deviation == pytest.approx(rows.std())
    assert (measured.minimum, measured.maximum) == (rows.min(), rows.max())
    assert measured.values == rows.size


def test_values_that_are_not_finite_are_counted_and_left_out():
    rows = np.array([[1.0, np.nan], [3.0, 4.0], [np.inf, 0.0]])
    moments = moments_of(rows)
    np.testing.assert_array_equal(moments.mean, [2.0, 2.0])
    np.testing.assert_array_equal(moments.variance, [1.0, 4.0])
    measured = moments.over_all()
    assert measured.non_finite == 2
    assert measured.zeros == 1 / 6
    assert (measured.minimum, measured.maximum) == (0.0, 4.0)


def test_a_map_has_a_row_for_each_position():
    maps = RNG.normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(to_rows(maps), maps.reshape(-1, 5))
    first = to_rows(maps, axis=1)
    np.testing.assert_allclose(first.mean(0), maps.mean((0, 2, 3)))


def test_a_missing_axis_is_replaced_by_the_last():
    np.testing.assert_array_equal(to_rows(np.eye(3), axis=3), np.eye(3))


def test_masked_steps_are_left_out():
    steps = np.arange(12.0).reshape(2, 3, 2)
    mask = np.array([[True, False, False], [True, True, False]])
    wanted = [[0, 1], [6, 7], [8, 9]]
    np.testing.assert_array_equal(to_rows(steps, mask=mask), wanted)


def test_distance_is_in_deviations_and_logarithms_of_the_variance():
    rows = exactly([3.0, 0.0, 1.0], [2.0, 1.0, 3.0], count=50)
    found = distance(trained_on([1, 0, 0], [4, 1, 1]), moments_of(rows))
    assert found.shift_median == pytest.approx(1.0)
    assert found.shift_max == pytest.approx(1.0)
    assert found.spread_median == pytest.approx(0.0, abs=1e-9)
    assert found.spread_max == pytest.approx(np.log(9))
    assert found.channels == 3


def test_the_distance_of_a_dead_channel_is_finite():
    rows = np.zeros((4, 1))
    found = distance(trained_on([0.01], [0.0], floor=1e-4), moments_of(rows))
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
    assert is_far(distance(trained_on([0], [1]), moments_of(rows))) is far
