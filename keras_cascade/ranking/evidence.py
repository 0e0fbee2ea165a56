"""Computes LogME: the evidence of labels given features.

Pure NumPy in float64.
"""

import numpy as np

from keras_cascade.ranking.ridge import directions

# The ratios of precisions that are tried, as powers of ten around the largest
# squared singular value; the interval around the best is divided again.
_DECADES = 12.0
_POINTS = 97
_ROUNDS = 6


def log_evidence(features: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean log evidence of a sample's label: LogME.

    Each target is a Bayesian linear model of the features without an
    intercept; the precisions of its weights and of its noise are those with
    the greatest evidence. For a ratio of the two the best noise is known in
    closed form, so that one number is searched for, also where there are more
    features than samples.

    Args:
        features: `(samples, features)`.
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
    x, y = np.asarray(features, "float64"), np.asarray(targets, "float64")
    # Powers of tiny or huge features would leave the range of numbers.
    x = x / max(np.abs(x).max(), 1e-300)
    vectors, squares = directions(x)
    along = (vectors.T @ y) ** 2
    outside = np.maximum((y**2).sum(axis=0) - along.sum(axis=0), 0.0)
    evidences = [
        _greatest(squares, one, rest, len(x))
        for one, rest in zip(along.T, outside, strict=True)
    ]
    return float(np.mean(evidences))


def _greatest(
    squares: np.ndarray, along: np.ndarray, outside: float, count: int
) -> float:
    """Returns the greatest evidence of one target, for a sample.

    Args:
        squares: The squared singular values of the features.
        along: The squared products of the target and the singular vectors.
        outside: The squared norm of the target that no feature explains.
        count: The number of samples.
    """
    tiny = np.finfo("float64").tiny
    center = np.log10(max(squares.max(initial=0.0), tiny))
    low, high = center - _DECADES, center + _DECADES
    values = np.zeros(1)
    for _ in range(_ROUNDS):
        points = np.linspace(low, high, _POINTS)
        # The share of each direction that the prior takes away.
        ratios = 10.0 ** points[:, None]
        shrunk = ratios / (ratios + squares)
        noise = np.maximum(shrunk @ along + outside, tiny) / count
        values = np.log(shrunk).sum(axis=1) / count - np.log(noise)
        best = int(values.argmax())
        low, high = points[max(best - 1, 0)], points[min(best + 1, _POINTS - 1)]
    return 0.5 * float(values.max() - 1.0 - np.log(2 * np.pi))
