"""Computes ridge regression that leaves each sample out, in closed form.

Pure NumPy in float64.
"""

from dataclasses import dataclass

import numpy as np

from keras_cascade.ranking.spectrum import Spectrum

_TINY = 1e-12
# Penalties, as multiples of the mean squared norm of a sample: the result
# does not depend on the scale of the features.
PENALTIES = 10.0 ** np.arange(-6.0, 3.5, 0.5)


@dataclass(frozen=True)
class LeftOut:
    """The predictions for samples that were left out of the training.

    Attributes:
        predictions: For each sample, that of the regression on all others,
            `(samples, targets)`.
        penalty: The penalty with the least squared error.
        errors: The mean squared error at each penalty.
    """

    predictions: np.ndarray
    penalty: float
    errors: np.ndarray


def leave_one_out(
    features: np.ndarray | Spectrum,
    targets: np.ndarray,
    penalties: np.ndarray | None = None,
) -> LeftOut:
    """Predicts each sample by a ridge regression on all the others.

    With the eigenvalues of the centred features' products, the regressions of
    all samples at all penalties cost little more than one: the error of a
    sample that is left out is its error in the regression on all samples,
    divided by one minus its leverage.

    Args:
        features: `(samples, features)`, or their decomposition.
        targets: `(samples, targets)`.
        penalties: Those to choose from. Defaults to `None`: `PENALTIES` times
            the mean squared norm of the centred samples.

    Source: Golub, Heath, Wahba 1979, "Generalized cross-validation as a
    method for choosing a good ridge parameter";
    `sklearn.linear_model.RidgeCV`, which gives the same results.

    Example:
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> found = leave_one_out(x, 2 * x, np.array([1e-9]))
    >>> found.predictions.round(6).ravel().tolist()
    [0.0, 2.0, 4.0, 6.0]
    """
    spectrum = Spectrum.of(features)
    vectors, squares = spectrum.vectors, spectrum.squares
    targets = np.asarray(targets, "float64")
    count = len(targets)
    usual = PENALTIES * max(squares.sum() / count, _TINY)
    grid = usual if penalties is None else penalties
    y = targets - targets.mean(axis=0)
    along, own = vectors.T @ y, vectors**2

    def errors_at(penalty: float) -> np.ndarray:
        shrunk = squares / (squares + penalty)
        residual = y - vectors @ (shrunk[:, None] * along)
        leverage = own @ shrunk + 1.0 / count
        # Without a penalty a sample may be alone in a direction.
        return residual / np.maximum(1.0 - leverage, _TINY)[:, None]

    errors = np.array([np.mean(errors_at(x) ** 2) for x in grid])
    penalty = float(grid[errors.argmin()])
    return LeftOut(targets - errors_at(penalty), penalty, errors)
