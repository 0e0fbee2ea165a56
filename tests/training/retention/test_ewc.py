"""Compares EWC with its formula on a linear network, in float64."""

import numpy as np
import pytest

import keras_cascade as kc
from tests.training.retention import linear

STRENGTH = 0.7
OLD = np.random.default_rng(1).normal(size=(20, 3)).astype("float32")
# Of y = x W + b with noise of variance 1: the mean of x_i², and 1.
FISHER = np.tile((OLD.astype("float64") ** 2).mean(0)[:, None], (1, 4))


def ewc(**arguments):
    return kc.EWC(STRENGTH, OLD, **{"probes": None, **arguments})


def test_the_loss_is_that_of_the_task_and_the_weighted_distance():
    cascade = linear.cascade({"upstream": ewc()})
    linear.move(cascade)
    penalty = STRENGTH / 2 * (FISHER * linear.MOVED**2).sum()
    assert linear.loss_of(cascade) == pytest.approx(
        linear.mse(cascade) + penalty, rel=1e-5
    )


def test_a_step_pulls_by_strength_times_information_times_distance():
    cascade = linear.cascade({"upstream": ewc()})
    before = linear.move(cascade)
    gradient = linear.task_gradient(cascade) + STRENGTH * FISHER * linear.MOVED
    cascade.train_on_batch(linear.X, linear.Y)
    after = linear.value(linear.by_path(cascade)["upstream/dense/kernel"])
    np.testing.assert_allclose(
        after, before - linear.RATE * gradient, rtol=1e-5, atol=1e-6
    )


def test_a_bias_of_a_linear_output_has_information_1():
    cascade = linear.cascade({"upstream": ewc()})
    fisher = linear.by_path(cascade)["retention/fishers/upstream/dense/bias"]
    np.testing.assert_allclose(linear.value(fisher), np.ones(4), rtol=1e-6)


def test_the_information_is_that_of_the_network_with_its_old_head(two_layers):
    """The head is a softmax: F = mean x_i² sum_c p_c (v_jc - v_j·p)²."""
    network, (_, head) = two_layers
    cascade = linear.cascade(
        {"upstream": ewc()}, network, taps="dense", head=None, loss=None
    )
    fisher = linear.by_path(cascade)["retention/fishers/upstream/dense/kernel"]
    x = OLD.astype("float64")
    p = linear.softmax((x @ linear.KERNEL + linear.BIAS) @ head)
    centred = head[None] - (p @ head.T)[:, :, None]
    inner = np.einsum("nc,njc->nj", p, centred**2)
    expected = np.einsum("ni,nj->ij", x**2, inner) / len(x)
    np.testing.assert_allclose(linear.value(fisher), expected, rtol=1e-4)


def test_unknown_outputs_are_an_error():
    with pytest.raises(ValueError, match=r"EWC's outputs is 'logits'.*softmax"):
        kc.EWC(1.0, OLD, outputs="logits")


def test_zero_probes_are_an_error():
    with pytest.raises(ValueError, match=r"EWC's probes is 0.*at least 1"):
        kc.EWC(1.0, OLD, probes=0)


def test_data_that_cannot_be_read_are_an_error_at_once():
    with pytest.raises(TypeError, match=r"Received an object of type int"):
        kc.EWC(1.0, 3)


def test_a_negative_strength_is_an_error():
    with pytest.raises(ValueError, match=r"strength of EWC is -1"):
        kc.EWC(-1, OLD)


def test_data_that_give_nan_are_an_error():
    bad = kc.EWC(1.0, np.full((4, 3), np.nan, "float32"))
    with pytest.raises(ValueError, match=r"dense/kernel' is not finite"):
        linear.cascade({"upstream": bad})
