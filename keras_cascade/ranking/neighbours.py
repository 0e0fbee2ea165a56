"""Predicts each sample by its nearest neighbours among the others.

Pure NumPy.
"""

import numpy as np

NEIGHBOURS = 5
# The rows whose distances are in memory at once.
_ROWS = 512


def neighbour_means(
    features: np.ndarray, targets: np.ndarray, count: int = NEIGHBOURS
) -> np.ndarray:
    """Returns for each sample the mean target of its nearest neighbours.

    Neighbours are nearest by the cosine of their features, the sample itself
    left out. For classes, with a column of zeros and ones for each, the
    largest mean is the vote of the neighbours.

    Args:
        features: `(samples, features)`.
        targets: `(samples, targets)`.
        count: The number of neighbours, all others if there are fewer.
            Defaults to `NEIGHBOURS`.

    Source: `sklearn.neighbors.KNeighborsClassifier(metric="cosine")`.

    Example:
    >>> x = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0]])
    >>> neighbour_means(x, np.array([[0.0], [0], [1], [1]]), 1).ravel()
    array([0., 0., 1., 1.])
    """
    x = np.asarray(features, "float64")
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(norms > 0, norms, 1.0)
    count = min(count, len(x) - 1)
    means = np.empty(targets.shape)
    for start in range(0, len(x), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(x)))
        similar = x[rows] @ x.T
        similar[rows - start, rows] = -np.inf
        nearest = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        means[rows] = targets[nearest].mean(axis=1)
    return means
