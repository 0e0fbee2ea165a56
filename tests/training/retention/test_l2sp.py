"""Compares L2-SP with its formula on a linear network, in float64."""

import numpy as np
import pytest

import keras_cascade as kc
from tests.training.retention import linear

STRENGTH = 0.7


def test_the_loss_is_that_of_the_task_and_half_the_squared_distance():
    cascade = linear.cascade({"upstream": kc.L2SP(STRENGTH)})
    linear.move(cascade)
    penalty = STRENGTH / 2 * (linear.MOVED**2).sum()
    assert linear.loss_of(cascade) == pytest.approx(
        linear.mse(cascade) + penalty, rel=1e-6
    )


def test_a_step_pulls_by_strength_times_distance():
    cascade = linear.cascade({"upstream": kc.L2SP(STRENGTH)})
    before = linear.move(cascade)
    gradient = linear.task_gradient(cascade) + STRENGTH * linear.MOVED
    cascade.train_on_batch(linear.X, linear.Y)
    after = linear.value(linear.by_path(cascade)["upstream/dense/kernel"])
    np.testing.assert_allclose(
        after, before - linear.RATE * gradient, rtol=1e-5, atol=1e-6
    )


def test_nothing_is_pulled_at_first():
    cascade = linear.cascade({"upstream": kc.L2SP(STRENGTH)})
    assert linear.loss_of(cascade) == pytest.approx(linear.mse(cascade))


@pytest.mark.parametrize("strength", [-0.1, float("nan"), "much", True, None])
def test_a_strength_that_is_not_a_positive_number_is_an_error(strength):
    with pytest.raises(ValueError, match=r"The strength of L2SP is .* not neg"):
        kc.L2SP(strength)
