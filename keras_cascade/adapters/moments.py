"""Mean and covariance of streamed rows, and their principal components.

Pure NumPy in float64. The memory depends on the width of the rows, not on
their number.
"""

import dataclasses
import importlib.util
import math
from typing import Any

import numpy as np


class Moments:
    """Count, mean and scatter matrix of rows that arrive in batches.

    Rows are gathered into blocks; each block is reduced about its own mean
    and merged by `merge_means`. A mean that is large against the spread
    therefore costs no precision.

    Args:
        width: The number of features of a row.
        block: How many rows are reduced at once. Larger blocks are faster for
            small batches. Defaults to `max(4 * width, 1024)`.

    Example:
    >>> import numpy as np
    >>> moments = Moments(2)
    >>> moments.update(np.array([[1.0, 0.0], [3.0, 0.0]]))
    >>> moments.update(np.array([[5.0, 3.0]]))
    >>> moments.count, moments.mean
    (3, array([3., 1.]))
    """

    def __init__(self, width: int, block: int | None = None):
        self.width = width
        self._block = block or max(4 * width, 1024)
        self._rows = np.empty((self._block + 1, width))
        self._waiting = 0
        self._count = 0
        self._mean = np.zeros(width)
        # The lower triangle counts. SciPy adds in place to this order only.
        self._scatter = np.zeros((width, width), order="F")

    @property
    def count(self) -> int:
        """The number of rows seen."""
        return self._count + self._waiting

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows, of shape `(width,)`."""
        self._reduce()
        return self._mean

    @property
    def lower_covariance(self) -> np.ndarray:
        """The covariance with denominator `count - 1`, its lower triangle."""
        self._reduce()
        return self._scatter / (self._count - 1)

    @property
    def scatter(self) -> np.ndarray:
        """The sum of the outer products of the centred rows with themselves."""
        self._reduce()
        lower = np.tril(self._scatter)
        return lower + np.tril(lower, -1).T

    def update(self, rows: np.ndarray) -> None:
        """Adds rows, of shape `(any, width)`."""
        while len(rows):
            part, rows = np.split(rows, [self._block - self._waiting])
            stop = self._waiting + len(part)
            self._rows[self._waiting : stop] = part
            self._waiting = stop
            if self._waiting == self._block:
                self._reduce()

    def _reduce(self) -> None:
        """Turns the waiting rows into moments, in one product."""
        count, self._waiting = self._waiting, 0
        if not count:
            return
        rows = self._rows[:count]
        mean = rows.mean(axis=0)
        rows -= mean
        # One more row makes the scatter about each mean one about both.
        self._mean, self._rows[count] = merge_means(
            self._count, self._mean, count, mean
        )
        self._count += count
        _add_gram(self._scatter, self._rows[: count + 1])


def merge_means(
    count: int | np.ndarray,
    mean: np.ndarray,
    added: int | np.ndarray,
    added_mean: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of two sets of rows, and a row for their scatter.

    The scatter of both sets about their common mean is the scatter of each
    about its own mean, plus the outer product of that row with itself. The
    counts are arrays where columns have different numbers of rows.

    Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances", 1979.
    """
    total = np.maximum(count + added, 1)
    step = added_mean - mean
    return mean + step * (added / total), step * np.sqrt(count * added / total)


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """The principal axes of rows, by falling variance.

    Attributes:
        mean: The mean, `(width,)`.
        components: The axes, `(n_components, width)`, orthonormal rows.
        explained_variance: The variance along each, `(n_components,)`.
        total_variance: The variance along all axes together.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    total_variance: float


def principal_components(
    moments: Moments, n_components: int | float
) -> PrincipalComponents:
    """Returns the principal components of the rows that `moments` has seen.

    The sign of each component makes its entry of largest magnitude positive,
    so that equal data gives equal components.

    Args:
        moments: The moments of at least two rows.
        n_components: int, how many; or float below 1, the fraction of the
            total variance that they explain together at least.

    Raises:
        ValueError: If there are fewer rows, or features, than components.

    Example:
    >>> import numpy as np
    >>> moments = Moments(2)
    >>> moments.update(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    >>> principal_components(moments, 1).explained_variance
    array([4.])
    """
    _check_size(moments, n_components)
    covariance = moments.lower_covariance
    wanted = n_components if isinstance(n_components, int) else None
    # Rising values; rounding can leave some just below zero.
    values, vectors = _eigh(covariance, wanted)
    values = np.maximum(values[::-1], 0.0)
    if isinstance(n_components, float):
        n_components = _count_for(values, n_components, moments.count)
    return PrincipalComponents(
        mean=moments.mean,
        components=_with_fixed_signs(vectors.T[::-1][:n_components]),
        explained_variance=values[:n_components],
        total_variance=float(np.trace(covariance)),
    )


# SciPy, where it is installed, does less: one triangle of the product, and the
# wanted eigenvectors only. NumPy's results are the same to rounding. Both steps
# use the same library, as the threads of two slow each other down.


def _has_scipy() -> bool:
    return importlib.util.find_spec("scipy") is not None


def _add_gram(scatter: np.ndarray, rows: np.ndarray) -> None:
    """Adds `rows.T @ rows` to the lower triangle of `scatter`, in place."""
    if not _has_scipy():
        scatter += rows.T @ rows
        return
    import scipy.linalg.blas

    blas: Any = scipy.linalg.blas
    blas.dsyrk(1.0, rows.T, beta=1.0, c=scatter, overwrite_c=1, lower=1)


def _eigh(
    lower: np.ndarray, wanted: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns rising eigenvalues, and eigenvectors: all, or the largest."""
    if wanted is None or not _has_scipy():
        return np.linalg.eigh(lower)
    import scipy.linalg

    width = len(lower)
    largest = (width - wanted, width - 1)
    return scipy.linalg.eigh(lower, lower=True, subset_by_index=largest)


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
    """Returns the fewest components whose variance exceeds the fraction."""
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
