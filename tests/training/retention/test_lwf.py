"""Compares LwF with its formula on a linear network, in float64."""

import numpy as np
import pytest

import keras_cascade as kc
from tests.training.retention import linear

STRENGTH, TEMPERATURE = 0.7, 3.0


def lwf(**arguments):
    return kc.LwF(STRENGTH, TEMPERATURE, **arguments)


def build(two_layers, method=None):
    network, _ = two_layers
    return linear.cascade({"upstream": method or lwf()}, network, taps="dense")


def logits(kernel, head):
    x = linear.X.astype("float64")
    return (x @ kernel + linear.BIAS) @ head / TEMPERATURE


def test_the_loss_is_that_of_the_task_and_the_divergence(two_layers):
    cascade = build(two_layers)
    moved = linear.move(cascade)
    _, (kernel, head) = two_layers
    old = linear.softmax(logits(kernel, head))
    new = linear.softmax(logits(moved, head))
    divergence = (old * np.log(old / new)).sum(axis=1).mean()
    assert linear.loss_of(cascade) == pytest.approx(
        linear.mse(cascade) + STRENGTH * divergence, rel=1e-5
    )


def test_a_step_pulls_towards_the_old_outputs(two_layers):
    cascade = build(two_layers)
    moved = linear.move(cascade)
    _, (kernel, head) = two_layers
    old = linear.softmax(logits(kernel, head))
    new = linear.softmax(logits(moved, head))
    in_logits = STRENGTH * (new - old) / len(linear.X) / TEMPERATURE
    gradient = linear.task_gradient(cascade) + linear.X.T.astype("float64") @ (
        in_logits @ head.T
    )
    cascade.train_on_batch(linear.X, linear.Y)
    after = linear.value(linear.by_path(cascade)["upstream/dense/kernel"])
    np.testing.assert_allclose(
        after, moved - linear.RATE * gradient, rtol=1e-5, atol=1e-6
    )


def test_the_penalty_is_0_at_first(two_layers):
    cascade = build(two_layers)
    assert linear.loss_of(cascade) == pytest.approx(
        linear.mse(cascade), rel=1e-6
    )


def test_the_old_head_and_the_old_network_stay_as_they_were(two_layers):
    cascade = build(two_layers)
    before = {
        path: linear.value(v)
        for path, v in linear.by_path(cascade).items()
        if path.startswith("retention/teachers/")
    }
    assert "retention/teachers/upstream/old/kernel" in before
    cascade.fit(linear.X, linear.Y, epochs=2, verbose=0)
    after = linear.by_path(cascade)
    for path, value in before.items():
        np.testing.assert_array_equal(linear.value(after[path]), value)


def test_a_sigmoid_is_kept_unit_by_unit():
    """No layer follows the tap: the block's own outputs are kept."""
    cascade = linear.cascade({"upstream": lwf()}, linear.network("sigmoid"))
    moved = linear.move(cascade)
    x = linear.X.astype("float64")
    old, new = (
        1 / (1 + np.exp(-(x @ kernel + linear.BIAS) / TEMPERATURE))
        for kernel in (linear.KERNEL, moved)
    )
    off = (1 - old) * np.log((1 - old) / (1 - new))
    divergence = (old * np.log(old / new) + off).sum(axis=1).mean()
    task = linear.by_path(cascade)
    hidden = 1 / (1 + np.exp(-(x @ moved + linear.BIAS)))
    out = hidden @ linear.value(task["head/out/kernel"])
    mse = ((out + linear.value(task["head/out/bias"]) - linear.Y) ** 2).mean()
    assert linear.loss_of(cascade) == pytest.approx(
        mse + STRENGTH * divergence, rel=1e-4
    )


def test_logits_are_kept_where_the_user_says_so():
    method = lwf(outputs="softmax_logits")
    cascade = linear.cascade({"upstream": method})
    moved = linear.move(cascade)
    x = linear.X.astype("float64")
    old, new = (
        linear.softmax((x @ kernel + linear.BIAS) / TEMPERATURE)
        for kernel in (linear.KERNEL, moved)
    )
    divergence = (old * np.log(old / new)).sum(axis=1).mean()
    assert linear.loss_of(cascade) == pytest.approx(
        linear.mse(cascade) + STRENGTH * divergence, rel=1e-5
    )


def test_features_have_no_head_to_keep():
    message = r"'linear' ends in 'dense' .Dense, linear.: .*no old head to keep"
    with pytest.raises(ValueError, match=message):
        linear.cascade({"upstream": kc.LwF(1.0)})


def test_a_part_of_a_network_cannot_be_distilled(two_layers):
    network, _ = two_layers
    with pytest.raises(ValueError, match=r"whole network.* one of: 'upstream'"):
        linear.cascade({"upstream/dense": kc.LwF(1.0)}, network, taps="dense")


def test_inputs_are_needed_in_a_custom_loop(two_layers):
    cascade = build(two_layers)
    answers = cascade(linear.X)
    with pytest.raises(ValueError, match=r"compute_loss\(x=inputs"):
        cascade.compute_loss(y=linear.Y, y_pred=answers)


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf")])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match=r"temperature of LwF is .*positive"):
        kc.LwF(1.0, temperature)


def test_linear_outputs_have_no_temperature():
    with pytest.raises(
        ValueError, match=r"'linear', and such outputs have no temperature"
    ):
        kc.LwF(1.0, outputs="linear")
