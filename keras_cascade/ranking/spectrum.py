"""Decomposes the features of a tap once, for every score that needs it.

Pure NumPy in float64. Tested by `tests/ranking/test_ridge.py` and
`tests/ranking/test_evidence.py`.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_FLOAT64 = np.finfo("float64")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular value decomposition of centred features.

    Attributes:
        vectors: The left singular vectors, `(samples, directions)`; those
            that rounding leaves of zero are not among them.
        squares: The squares of the singular values.
        mean_along: The products of the features' mean and the right singular
            vectors.
        mean_rest: The squared norm of the mean outside of them.
    """

    vectors: np.ndarray
    squares: np.ndarray
    mean_along: np.ndarray
    mean_rest: float

    @classmethod
    def of(cls, features: "np.ndarray | Spectrum") -> "Spectrum":
        """Returns the decomposition of `(samples, features)`."""
        if isinstance(features, Spectrum):
            return features
        x = np.asarray(features, "float64")
        mean = x.mean(axis=0)
        x = x - mean
        wide = x.shape[1] > len(x)
        squares, vectors = _kept(x @ x.T if wide else x.T @ x)
        roots = np.sqrt(squares)
        left = vectors if wide else x @ vectors / roots
        along = left.T @ (x @ mean) / roots if wide else vectors.T @ mean
        rest = float(mean @ mean - along @ along)
        limit = float(mean @ mean) * len(mean) * _FLOAT64.eps
        return cls(left, squares, along, rest if rest > limit else 0.0)


def _kept(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the eigenvalues above what rounding leaves, and vectors."""
    squares, vectors = np.linalg.eigh(gram)
    limit = squares[-1] * len(gram) * _FLOAT64.eps
    kept = squares > max(limit, _FLOAT64.tiny)
    return squares[kept], vectors[:, kept]


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a tap, as the scores take them.

    Attributes:
        rows: `(samples, features)`.
    """

    rows: np.ndarray

    @cached_property
    def spectrum(self) -> Spectrum:
        """The decomposition, of which several scores are computed."""
        return Spectrum.of(self.rows)


def one_thread() -> AbstractContextManager[object]:
    """Returns a context in which linear algebra runs on one thread.

    For matrices of a few hundred rows a second thread saves a tenth, and on
    a busy machine costs seven times as much: after each of some thousand
    small steps it waits for the other. Without threadpoolctl, which
    scikit-learn brings, the threads stay as they are.
    """
    if importlib.util.find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")
