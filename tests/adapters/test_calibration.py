"""The fitted temperature is the one that SciPy finds on all rows at once."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from keras_cascade.adapters.calibration import TemperatureFit


def scores(temperature: float, rows: int = 600, classes: int = 7, seed=0):
    """Returns logits that are calibrated after division by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.5, size=(rows, classes))
    chances = softmax(logits, axis=1)
    labels = [rng.choice(classes, p=chance) for chance in chances]
    return logits * temperature, np.eye(classes)[labels]


def reference(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns the minimum of the negative log likelihood, by definition."""

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -(targets * scaled).sum()

    options = {"xatol": 1e-10}
    found = minimize_scalar(
        loss, bounds=np.log([0.01, 100]), method="bounded", options=options
    )
    return float(np.exp(found.x))


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 2.4, 20.0])
def test_the_temperature_is_the_minimum_that_scipy_finds(temperature: float):
    logits, targets = scores(temperature)
    fit = TemperatureFit()
    for part in np.array_split(np.arange(len(logits)), 9):
        fit.update(logits[part], targets[part])
    # A minimum of a float64 sum is known to about 1e-7.
    np.testing.assert_allclose(
        fit.temperature(), reference(logits, targets), rtol=1e-6
    )


def test_soft_labels_count_and_a_constant_added_to_logits_does_not():
    logits, targets = scores(1.7)
    targets = 0.9 * targets + 0.1 / targets.shape[1]
    fit = TemperatureFit()
    fit.update(logits + np.arange(len(logits))[:, None], targets)
    np.testing.assert_allclose(
        fit.temperature(), reference(logits, targets), rtol=1e-6
    )


def test_a_few_rows_have_a_sharp_minimum_that_is_still_found():
    logits = np.array([[9.0, 0.0], [8.0, 0.0], [0.0, 7.0], [0.5, 0.0]])
    targets = np.eye(2)[[0, 0, 1, 1]]
    fit = TemperatureFit()
    fit.update(logits, targets)
    np.testing.assert_allclose(
        fit.temperature(), reference(logits, targets), rtol=1e-5
    )


def test_the_arrays_passed_in_stay_as_they_are():
    logits, targets = scores(1.0, rows=20)
    before = logits.copy()
    TemperatureFit().update(logits, targets)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("best", r"from 0\.03125 on fits the 600 labels.*not trained on"),
        ("worst", "up to 32 fits the 600 labels.*order of the classes"),
    ],
)
def test_labels_that_no_temperature_fits_are_an_error(labels, message):
    logits, _ = scores(1.0)
    chosen = logits.argmax(axis=1) if labels == "best" else logits.argmin(1)
    fit = TemperatureFit()
    fit.update(logits, np.eye(7)[chosen])
    with pytest.raises(ValueError, match=message):
        fit.temperature()
