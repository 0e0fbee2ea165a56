"""Brings wide features to a smaller number by a fixed random projection."""

import math

import numpy as np

# Every projection of a width is the same.
_SEED = 0


class SparseProjection:
    """A sparse random matrix that keeps the distances of samples on average.

    Each entry is zero with probability `1 - 1 / sqrt(features)`, else plus or
    minus `features ** 0.25 / sqrt(components)`.

    Args:
        features: The number of features.
        components: The number of features after the projection.

    Source: Li, Hastie, Church 2006, "Very sparse random projections";
    `sklearn.random_projection.SparseRandomProjection`.

    Example:
    >>> SparseProjection(2000, 16)(np.ones((3, 2000), "float32")).shape
    (3, 16)
    """

    def __init__(self, features: int, components: int):
        draw = np.random.default_rng(_SEED)
        density = 1.0 / math.sqrt(features)
        counts = draw.binomial(features, density, size=components)
        # A component of nothing would take the first feature of the next.
        self._counts = np.maximum(counts, 1)
        self._chosen = np.concatenate(
            [
                np.sort(draw.choice(features, size=count, replace=False))
                for count in self._counts
            ]
        )
        size = math.sqrt(1.0 / (density * components))
        self._factors = draw.choice([-size, size], size=len(self._chosen))
        self._factors = self._factors.astype("float32")
        self._starts = np.cumsum(self._counts) - self._counts

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the projected rows, `(rows, components)`."""
        products = rows[:, self._chosen] * self._factors
        return np.add.reduceat(products, self._starts, axis=1)


class Narrowing:
    """Projects features that are wider than allowed; others stay as they are.

    Args:
        max_features: The width to which wider features are projected.
    """

    def __init__(self, max_features: int):
        self._max_features = max_features
        self._by_width: dict[int, SparseProjection] = {}

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows of at most so many features."""
        width = rows.shape[1]
        if width <= self._max_features:
            return rows
        if width not in self._by_width:
            made = SparseProjection(width, self._max_features)
            self._by_width[width] = made
        return self._by_width[width](rows)
