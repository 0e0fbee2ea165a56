"""Computes LogME: the evidence of labels given features.

Pure NumPy in float64.
"""

import numpy as np

from keras_cascade.ranking.spectrum import Spectrum

# The ratios of precisions that are tried, as powers of ten around the largest
# squared singular value; then those around the best, ever closer.
_DECADES = 12.0
_COARSE, _FINE = 97, 9
_ROUNDS = 7
_TINY = np.finfo("float64").tiny


def log_evidence(features: np.ndarray | Spectrum, targets: np.ndarray) -> float:
    """Returns the mean log evidence of a sample's label: LogME.

    Each target is a Bayesian linear model of the features without an
    intercept; the precisions of its weights and of its noise are those with
    the greatest evidence. For a ratio of the two the best noise is known in
    closed form, so that one number is searched for, also where there are more
    features than samples.

    Args:
        features: `(samples, features)`, or their decomposition.
        targets: `(samples, targets)`; for classes a column of zeros and ones
            for each. Their evidence is averaged.

    Source: You et al. 2021, "LogME: Practical Assessment of Pre-trained
    Models for Transfer Learning", the maximum to which its algorithm 1
    iterates; equal to `BayesianRidge(fit_intercept=False)` of scikit-learn
    with flat priors.

    Example:
    >>> x = np.array([[1.0], [2.0], [3.0]])
    >>> related, unrelated = 2 * x, np.array([[1.0], [-2.0], [1.0]])
    >>> log_evidence(x, related) > log_evidence(x, unrelated)
    True
    """
    y = np.asarray(targets, "float64")
    posterior = _Posterior(Spectrum.of(features), y)
    points = np.linspace(-_DECADES, _DECADES, _COARSE)
    points = np.tile(points, (y.shape[1], 1))
    for _ in range(_ROUNDS):
        points = _closer(points, posterior.evidences(10.0**points))
    return float(posterior.evidences(10.0**points).max(axis=1).mean())


def _closer(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns points between those beside the best one of each row."""
    rows, best = np.arange(len(points)), values.argmax(axis=1)
    low = points[rows, np.maximum(best - 1, 0)][:, None]
    high = points[rows, np.minimum(best + 1, points.shape[1] - 1)][:, None]
    return low + (high - low) * np.linspace(0.0, 1.0, _FINE)


class _Posterior:
    """Bayesian linear models without an intercept, one for each target.

    In the coordinates of the singular vectors of the centred features and of
    the constant vector, the products of the features as they are form an
    arrow: a diagonal, and the row and column of the constant. Its inverse
    and determinant are sums of positive terms.
    """

    def __init__(self, spectrum: Spectrum, targets: np.ndarray):
        self._count = len(targets)
        means = spectrum.mean_along**2
        rest = spectrum.mean_rest
        largest = spectrum.squares.max(initial=0.0)
        largest = max(largest, self._count * (means.sum() + rest)) or 1.0
        # Powers of tiny or huge features would leave the range of numbers.
        self._squares = spectrum.squares / largest
        self._means, self._rest = means / largest, rest / largest
        # The row of the constant.
        factor = np.sqrt(self._count / largest)
        self._row = np.sqrt(self._squares) * spectrum.mean_along * factor
        self._along = (spectrum.vectors.T @ targets).T
        self._constant = targets.sum(axis=0) / np.sqrt(self._count)
        norms = (targets**2).sum(axis=0)
        known = (self._along**2).sum(axis=1) + self._constant**2
        self._outside = np.maximum(norms - known, 0.0)

    def evidences(self, ratios: np.ndarray) -> np.ndarray:
        """Returns the log evidence for a sample at the best noise.

        Args:
            ratios: The precision of the weights over that of the noise, in
                units of the largest squared singular value,
                `(targets, ratios)`.
        """
        # The share of each direction that the prior takes away.
        shrunk = ratios[..., None] / (ratios[..., None] + self._squares)
        mean = self._count * (shrunk @ self._means + self._rest)
        constant = 1.0 / (1.0 + mean / ratios)
        rows = (shrunk @ (self._row * self._along)[..., None])[..., 0]
        left = self._constant[:, None] - rows / ratios
        along = (shrunk @ (self._along**2)[..., None])[..., 0]
        squares = along + constant * left**2 + self._outside[:, None]
        noise = np.log(np.maximum(squares, _TINY) / self._count)
        volume = np.log(shrunk).sum(axis=-1) + np.log(constant)
        return 0.5 * (volume / self._count - noise - 1.0 - np.log(2 * np.pi))
