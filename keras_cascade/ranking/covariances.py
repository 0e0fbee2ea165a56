"""Computes scores from covariances: the H-score and the effective rank.

Pure NumPy in float64.
"""

import numpy as np


def h_score(
    features: np.ndarray, targets: np.ndarray, shrink: bool = True
) -> float:
    """Returns how much of the features' variance is between classes.

    Args:
        features: `(samples, features)`.
        targets: A column of zeros and ones for each class.
        shrink: Whether the covariance of the features is shrunk by the
            estimate of Ledoit and Wolf, without which the score cannot be
            computed where features are many. Defaults to `True`.

    Source: Bao et al. 2019, "An Information-Theoretic Approach to
    Transferability"; Ibrahim et al. 2022, "Newer is not always better"
    (shrunk).

    Example:
    >>> x = np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> classes = np.eye(2)[[0, 0, 1, 1]]
    >>> round(h_score(x, classes, shrink=False), 6)
    1.0
    """
    x = np.asarray(features, "float64")
    x = x - x.mean(axis=0)
    # The scale matters to nothing but rounding.
    x = x / max(np.sqrt((x**2).mean()), np.finfo("float64").tiny)
    targets = targets[:, targets.any(axis=0)]
    means = targets @ ((targets.T @ x) / targets.sum(axis=0)[:, None])
    between = means.T @ means / (len(x) - 1)
    covariance = x.T @ x / len(x)
    if not shrink:
        within = covariance * len(x) / (len(x) - 1)
        return float(np.trace(np.linalg.pinv(within) @ between))
    share = _shrinkage(x, covariance)
    mean = np.trace(covariance) / len(covariance)
    shrunk = (1 - share) * covariance + share * mean * np.eye(len(covariance))
    if share >= 1.0 or not mean:
        return 0.0
    return float(np.trace(np.linalg.solve(shrunk, (1 - share) * between)))


def _shrinkage(centred: np.ndarray, covariance: np.ndarray) -> float:
    """Returns the share of the identity in the Ledoit-Wolf estimate.

    Source: Ledoit, Wolf 2004, "A well-conditioned estimator for
    large-dimensional covariance matrices"; `sklearn.covariance.LedoitWolf`.
    """
    count, width = centred.shape
    squares = centred**2
    mean = np.trace(covariance) / width
    norm = (covariance**2).sum()
    beta = (squares.T @ squares).sum() / count - norm
    delta = norm - width * mean**2
    return float(min(max(beta / count, 0.0), delta) / delta) if delta else 0.0


def effective_rank(features: np.ndarray) -> float:
    """Returns the number of directions that the features use.

    It is the exponential of the entropy of the singular values, divided by
    their sum. It needs no labels.

    Args:
        features: `(samples, features)`.

    Source: Roy, Vetterli 2007, "The effective rank"; Garrido et al. 2023,
    "RankMe".

    Example:
    >>> round(effective_rank(np.eye(4)), 6)
    4.0
    """
    values = np.linalg.svd(np.asarray(features, "float64"), compute_uv=False)
    shares = values / max(values.sum(), np.finfo("float64").tiny)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
