"""Computes affine maps between features in closed form, and compares features.

Pure NumPy in float64, from the joint moments of the features and the targets.

Tested by `tests/adapters/test_stitch.py`.
"""

from dataclasses import dataclass

import numpy as np

from keras_cascade.adapters.moments import Moments

METHODS = ("ridge", "procrustes")
_EPS = float(np.finfo("float64").eps)


@dataclass(frozen=True)
class Scatter:
    """The sums of products of centred features x and targets y.

    Attributes:
        xx: `(inputs, inputs)`.
        xy: `(inputs, outputs)`.
        yy: `(outputs, outputs)`.
        mean_x: The mean of the features.
        mean_y: The mean of the targets.
        count: The number of rows.
    """

    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray
    mean_x: np.ndarray
    mean_y: np.ndarray
    count: int

    @classmethod
    def of(cls, moments: Moments, x: slice, y: slice) -> "Scatter":
        """Returns the sums for two parts of the columns of some moments."""
        whole, mean = moments.scatter, moments.mean
        sums = whole[x, x], whole[x, y], whole[y, y]
        return cls(*sums, mean[x], mean[y], moments.count)


@dataclass(frozen=True)
class AffineMap:
    """The map `x @ kernel + bias`.

    Attributes:
        kernel: `(inputs, outputs)`.
        bias: `(outputs,)`.
    """

    kernel: np.ndarray
    bias: np.ndarray

    def r2(self, scatter: Scatter) -> float:
        """Returns the part of the targets' variance that the map explains.

        It is 1 for a perfect map, 0 for the mean of the rows, and below 0 for
        what is worse. Targets that never vary have nothing to explain: 1.
        """
        total = float(np.trace(scatter.yy))
        if not total > 0:
            return 1.0
        through = self.kernel.T @ scatter.xx @ self.kernel
        both = 2.0 * float((self.kernel * scatter.xy).sum())
        offset = scatter.mean_x @ self.kernel + self.bias - scatter.mean_y
        missed = total - both + float(np.trace(through))
        return 1.0 - (missed + scatter.count * float(offset @ offset)) / total


def fit_affine(
    scatter: Scatter, method: str = "ridge", penalty: float = 1e-3
) -> AffineMap:
    """Returns the map from features to targets with the least squared error.

    Args:
        scatter: The sums over the rows.
        method: `"ridge"`, a linear regression with a penalty on the squared
            kernel; or `"procrustes"`, a rotation, which keeps distances (where
            the widths differ, its rows or columns are orthonormal). Defaults
            to `"ridge"`.
        penalty: Of `"ridge"`, in units of a feature's mean sum of squares, so
            that neither the scale of the features nor the number of rows
            matters. Defaults to `1e-3`.

    Source: `sklearn.linear_model.Ridge(alpha=penalty * trace(xx) / inputs)`
    and `scipy.linalg.orthogonal_procrustes` of the centred features, which
    give the same.

    Example:
    >>> moments = Moments(2)
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> moments.update(np.hstack([x, 3 * x + 1]))
    >>> scatter = Scatter.of(moments, slice(0, 1), slice(1, 2))
    >>> found = fit_affine(scatter, penalty=0.0)
    >>> found.kernel.round(6).item(), found.bias.round(6).item()
    (3.0, 1.0)
    """
    if method == "procrustes":
        left, _, right = np.linalg.svd(scatter.xy, full_matrices=False)
        kernel = left @ right
    else:
        kernel = _ridge(scatter, penalty)
    return AffineMap(kernel, scatter.mean_y - scatter.mean_x @ kernel)


def _ridge(scatter: Scatter, penalty: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(scatter.xx)
    values = np.maximum(values, 0.0)
    shrunk = values + penalty * values.mean()
    # Directions in which no row varies say nothing: without a penalty they
    # would be divided by rounding errors.
    known = values > values.max(initial=0.0) * len(values) * _EPS
    inverse = np.divide(1.0, shrunk, out=np.zeros_like(shrunk), where=known)
    return vectors @ (inverse[:, None] * (vectors.T @ scatter.xy))


def linear_cka(scatter: Scatter) -> float:
    """Returns how alike two sets of features are, up to a rotation and a scale.

    1 is alike; 0 says that they vary independently, or not at all.

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network
    Representations Revisited", ICML 2019, equation 3 with linear kernels.

    Example:
    >>> moments = Moments(2)
    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> moments.update(np.hstack([x, 2 - 5 * x]))
    >>> scatter = Scatter.of(moments, slice(0, 1), slice(1, 2))
    >>> round(linear_cka(scatter), 6)
    1.0
    """
    scale = np.linalg.norm(scatter.xx) * np.linalg.norm(scatter.yy)
    return float(np.linalg.norm(scatter.xy) ** 2 / scale) if scale else 0.0
