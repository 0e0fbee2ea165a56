"""Mean and covariance of streamed rows, and their principal components.

Pure NumPy in float64, apart from any layer. The memory depends on the width
of the rows, not on their number.
"""

import dataclasses
import math

import numpy as np


class Moments:
    """Count, mean and scatter matrix of rows that arrive in batches.

    Rows are gathered into blocks; each block is reduced about its own mean
    and merged by the pairwise update of Chan, Golub and LeVeque. A mean that
    is large against the spread therefore costs no precision.

    Args:
        width: int, number of features of a row.
        block: int, rows reduced at once. Larger blocks are faster for small
            batches and take `block * width` numbers of memory. Defaults to
            `max(width, 1024)`.

    Example:
    >>> import numpy as np
    >>> moments = Moments(2)
    >>> moments.update(np.array([[1.0, 0.0], [3.0, 0.0]]))
    >>> moments.update(np.array([[5.0, 3.0]]))
    >>> moments.count, moments.mean
    (3, array([3., 1.]))

    Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances", 1979.
    """

    def __init__(self, width: int, block: int | None = None):
        self.width = width
        self._rows = np.empty((block or max(width, 1024), width))
        self._waiting = 0
        self._count = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))

    @property
    def count(self) -> int:
        """Number of rows seen."""
        return self._count + self._waiting

    @property
    def mean(self) -> np.ndarray:
        """Mean of the rows, of shape `(width,)`."""
        self._reduce()
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """Covariance with denominator `count - 1`, `(width, width)`."""
        self._reduce()
        return self._scatter / (self._count - 1)

    def update(self, rows: np.ndarray) -> None:
        """Adds rows.

        Args:
            rows: array of shape `(any, width)`.
        """
        start = 0
        while start < len(rows):
            part = rows[start : start + len(self._rows) - self._waiting]
            stop = self._waiting + len(part)
            self._rows[self._waiting : stop] = part
            self._waiting = stop
            start += len(part)
            if self._waiting == len(self._rows):
                self._reduce()

    def merge(self, other: "Moments") -> None:
        """Adds all that another one has seen.

        Args:
            other: moments of rows of the same width; left as they are.
        """
        other._reduce()
        self._reduce()
        self._add(other._count, other._mean, other._scatter)

    def _reduce(self) -> None:
        """Turns the waiting rows into moments."""
        if not self._waiting:
            return
        rows = self._rows[: self._waiting]
        mean = rows.mean(axis=0)
        rows -= mean
        self._add(self._waiting, mean, rows.T @ rows)
        self._waiting = 0

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if not count:
            return
        total = self._count + count
        delta = mean - self._mean
        weighted = delta * math.sqrt(self._count * count / total)
        self._scatter += scatter
        self._scatter += np.outer(weighted, weighted)
        self._mean = self._mean + delta * (count / total)
        self._count = total


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """Principal axes of some rows, by falling variance.

    Attributes:
        mean: array `(width,)`.
        components: array `(n_components, width)`, orthonormal rows.
        explained_variance: array `(n_components,)`, variance along each.
        total_variance: float, variance along all axes together.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    total_variance: float


def principal_components(
    moments: Moments, n_components: int | float
) -> PrincipalComponents:
    """Principal components of the rows that `moments` has seen.

    One eigendecomposition of the covariance. The sign of each component is
    the one that makes its entry of largest magnitude positive, so that equal
    data gives equal components.

    Args:
        moments: the rows' `Moments`, of at least two rows.
        n_components: int, how many; or float below 1, the fraction of the
            total variance that they explain together at least.

    Returns:
        The `PrincipalComponents`.

    Raises:
        ValueError: there are fewer rows, or features, than components.

    Example:
    >>> import numpy as np
    >>> moments = Moments(2)
    >>> moments.update(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    >>> principal_components(moments, 1).explained_variance
    array([4.])
    """
    _check_size(moments, n_components)
    # `eigh` sorts by rising value; rounding can leave some just below zero.
    values, vectors = np.linalg.eigh(moments.covariance)
    values = np.maximum(values[::-1], 0.0)
    total = float(values.sum())
    if isinstance(n_components, float):
        n_components = _count_for(values, n_components, moments.count)
    return PrincipalComponents(
        mean=moments.mean,
        components=_with_fixed_signs(vectors.T[::-1][:n_components]),
        explained_variance=values[:n_components],
        total_variance=total,
    )


def _check_size(moments: Moments, n_components: int | float) -> None:
    rows, width = moments.count, moments.width
    if n_components > width:
        raise ValueError(
            f"{n_components} components of {width} features: at most {width} "
            "are possible."
        )
    needed = max(2, math.ceil(n_components))
    if rows < needed:
        raise ValueError(
            f"{n_components} components need at least {needed} rows, received "
            f"{rows}."
        )


def _count_for(values: np.ndarray, fraction: float, rows: int) -> int:
    """The fewest components whose variance exceeds the fraction."""
    if not values.any():
        raise ValueError(
            f"The {rows} rows are all equal: there is no variance of which to "
            f"explain {fraction}."
        )
    ratios = np.cumsum(values / values.sum())
    count = int(np.searchsorted(ratios, fraction, side="right")) + 1
    return min(count, rows, len(values))


def _with_fixed_signs(components: np.ndarray) -> np.ndarray:
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return components * signs[:, None]
