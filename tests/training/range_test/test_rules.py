"""Compares the rules with curves that were worked out by hand."""

import numpy as np
import pytest

from keras_cascade.training.range_test.rules import (
    before_the_end,
    diverged,
    smooth,
    smooth_both_ways,
    steepest,
    suggest,
    valley,
)

RATES = 10.0 ** np.arange(-8, 2)


def losses(*values):
    return np.array(values, dtype="float64")


def test_the_suggested_rate_is_where_the_steepest_step_begins():
    # Steps: 0, -1, -2, -6, -1, +0, +30.
    curve = losses(20, 20, 19, 17, 11, 10, 10, 40)
    assert steepest(RATES[:8], curve) == RATES[3]


def test_slopes_are_over_the_log_of_the_rate():
    rates = losses(1e-3, 1e-1, 2e-1)
    # Two decades for -4, a factor of two for -1: -0.87 and -1.44 a factor e.
    assert steepest(rates, losses(10, 6, 5)) == rates[1]


def test_a_steep_step_after_the_lowest_loss_does_not_count():
    curve = losses(10, 9, 7, 6, 50, 8, 60)
    assert steepest(RATES[:7], curve) == RATES[1]


def test_the_valley_is_half_way_down_the_longest_descent():
    # It goes from index 2 down to index 8.
    curve = losses(9, 9, 10, 9, 8, 7, 6, 5, 4, 30)
    assert valley(RATES, curve) == RATES[5]


def test_bumps_do_not_end_a_descent():
    # 10, 8, 7, 5, 3 with bumps of 9, 12 between: from index 1 to 7.
    curve = losses(2, 10, 8, 9, 7, 12, 5, 3, 40)
    assert valley(RATES[:9], curve) == RATES[4]


def test_of_equally_long_descents_the_one_that_begins_last_counts():
    # 9.5 or 10, then 8, 7.
    assert valley(RATES[:4], losses(9.5, 10, 8, 7)) == RATES[2]


def test_a_fall_within_the_rounding_of_float32_does_not_count():
    rates = np.geomspace(1e-5, 1.0, 40)
    flat = 3 - 3e-8 * np.arange(40)
    assert suggest(rates, flat) == {"valley": None, "steepest": None}
    assert suggest(rates[:0], flat[:0]) == {"valley": None, "steepest": None}
    falling = suggest(rates, 3 - 1e-5 * np.arange(40))
    # From index 4, after the first tenth, to 39.
    assert falling["valley"] == rates[21]


@pytest.mark.parametrize("rule", [steepest, valley])
@pytest.mark.parametrize("curve", [[], [3.0], [1.0, 2.0, 3.0], [2.0, 2.0]])
def test_no_rate_is_suggested_if_the_loss_never_falls(rule, curve):
    assert rule(RATES[: len(curve)], losses(*curve)) is None


def test_the_average_is_the_weighted_mean_of_the_losses_so_far():
    curve = losses(4, 1, 7, 2)
    for count in range(1, 5):
        weights = 0.8 ** np.arange(count)[::-1]
        expected = np.average(curve[:count], weights=weights)
        assert smooth(curve, 0.8)[count - 1] == pytest.approx(expected)
    np.testing.assert_array_equal(smooth(curve, 0.0), curve)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([2.0, 1.0, 3.9], False),
        ([2.0, 1.0, 4.1], True),
        ([2.0, np.nan], True),
        ([np.inf], True),
        ([-2.0, -3.0, -2.5], False),
        ([-2.0, -3.0, 7.0], True),
    ],
)
def test_a_loss_explodes_at_four_times_the_lowest(curve, expected):
    assert diverged(losses(*curve)) is expected


def test_an_easy_batch_at_the_start_is_ignored():
    curve = losses(1, 10, 10, 9, 20)
    assert diverged(curve)
    assert not diverged(curve, ignored=1)
    assert not diverged(curve[:1], ignored=1)
    assert diverged(losses(1, 10, 10, 9, 37), ignored=1)
    assert diverged(losses(np.nan), ignored=1)


def test_the_explosion_is_left_out():
    np.testing.assert_array_equal(
        before_the_end(np.arange(100.0)), np.arange(95)
    )
    curve = np.array([*np.arange(40.0), np.nan, 3.0])
    np.testing.assert_array_equal(before_the_end(curve), np.arange(35))
    assert len(before_the_end(np.ones(3))) == 0


def test_the_average_of_both_sides_weighs_by_distance_and_does_not_lag():
    curve = losses(4, 1, 7, 2)
    for here in range(4):
        weights = 0.8 ** np.abs(np.arange(4) - here)
        expected = np.average(curve, weights=weights)
        assert smooth_both_ways(curve, 0.8)[here] == pytest.approx(expected)
    np.testing.assert_array_equal(smooth_both_ways(curve, 0.0), curve)
    bell = np.exp(-(np.linspace(-3, 3, 61) ** 2))
    assert smooth_both_ways(-bell, 0.9).argmin() == 30
    assert smooth(-bell, 0.9).argmin() > 33
