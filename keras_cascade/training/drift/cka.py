"""Computes the linear CKA of two streams of features in constant memory."""

import numpy as np

from keras_cascade.adapters.moments import merge_means


class LinearCKA:
    """Linear CKA of features that come in batches.

    Centred kernel alignment of two representations X and Y of the same
    samples is `||YᵀX||² / (||XᵀX|| ||YᵀY||)` with centred columns and
    Frobenius norms: 1 where they differ by a rotation and a factor, 0 where
    they have nothing in common. Only means and the three products are kept,
    in float64. The products of a batch are centred about its own means and
    then moved to those of all samples by `merge_means`, so that a large mean
    costs no digits.

    A product has features times features entries. If there are more than
    `max_features`, they are summed into `max_features` groups with random
    signs (a count sketch), the same for both streams. The average bias of the
    norms is subtracted; equal streams still give 1, and other values have an
    error of a few `1 / sqrt(max_features)` at most.

    References:
        Kornblith et al. 2019, Similarity of Neural Network Representations
        Revisited, equation 3 and the linear case of section 3. Charikar,
        Chen, Farach-Colton 2002, Finding Frequent Items in Data Streams.
    """

    def __init__(self, max_features: int = 2048):
        self._max_features = max_features
        self._sketch: Sketch | None = None
        self._count = 0
        self._means: list[np.ndarray] = []
        # Of XᵀX, YᵀY and YᵀX: the matrix, and the diagonal before sketching.
        self._matrices: list[np.ndarray] = []
        self._diagonals: list[np.ndarray] = []

    def update(self, x: np.ndarray, y: np.ndarray) -> None:
        """Adds samples: features of both, `(samples, features)`."""
        if not len(x):
            return
        if not self._count:
            self._begin(x.shape[1])
        batch = [np.asarray(features, dtype=np.float64) for features in (x, y)]
        # The features of a network that diverged overflow: they show as nan.
        with np.errstate(invalid="ignore", over="ignore"):
            means = [features.mean(axis=0) for features in batch]
            centred = [a - mean for a, mean in zip(batch, means, strict=True)]
            self._add(centred)
            self._add_means(means, len(x))

    def similarity(self) -> float:
        """Returns the CKA; nan if a stream is constant or not finite."""
        if not self._count:
            return float("nan")
        # Scaled first: fourth powers of features may overflow in float64.
        with np.errstate(divide="ignore", invalid="ignore"):
            scales = [np.sqrt(diagonal.sum()) for diagonal in self._diagonals]
            x, y = scales[:2]
            square = self._squared_norm
            both = square(2, x * y)
            return float(both / np.sqrt(square(0, x * x) * square(1, y * y)))

    def _begin(self, features: int) -> None:
        size = min(features, self._max_features)
        if size < features:
            self._sketch = Sketch(features, size)
        self._means = [np.zeros(features) for _ in range(2)]
        self._matrices = [np.zeros((size, size)) for _ in range(3)]
        self._diagonals = [np.zeros(features) for _ in range(3)]

    def _add(self, centred: list[np.ndarray]) -> None:
        """Adds the products of rows."""
        sketch = self._sketch
        narrow = centred if sketch is None else [sketch(a) for a in centred]
        for index, (first, second) in enumerate(((0, 0), (1, 1), (1, 0))):
            product = narrow[first].T @ narrow[second]
            self._matrices[index] += product
            diagonal = (centred[first] * centred[second]).sum(axis=0)
            self._diagonals[index] += diagonal

    def _add_means(self, means: list[np.ndarray], count: int) -> None:
        """Moves all products to the means of all samples."""
        merged = [
            merge_means(self._count, old, count, new)
            for old, new in zip(self._means, means, strict=True)
        ]
        self._means = [mean for mean, _ in merged]
        self._add([between[np.newaxis] for _, between in merged])
        self._count += count

    def _squared_norm(self, index: int, scale: float) -> float:
        matrix = self._matrices[index] / scale
        squared = np.vdot(matrix, matrix)
        if self._sketch is None:
            return float(squared)
        diagonal = self._diagonals[index] / scale
        # The average contribution of pairs of features in one group.
        bias = (
            diagonal.sum() ** 2
            + np.vdot(matrix, matrix.T)
            - 2 * np.vdot(diagonal, diagonal)
        )
        return float(squared - bias / len(matrix))


class Sketch:
    """Sums features with random signs, each feature in one sum.

    Inner products between samples are preserved on average. The seed is fixed:
    every sketch of these sizes has the same sums.
    """

    def __init__(self, features: int, sums: int):
        draw = np.random.default_rng(0)
        self._order = draw.permutation(features)
        self._signs = draw.choice([-1.0, 1.0], size=features)
        # One feature for each sum, and the rest at random: no sum is empty.
        rest = draw.integers(sums, size=features - sums)
        target = np.sort(np.concatenate([np.arange(sums), rest]))
        self._starts = np.searchsorted(target, np.arange(sums))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the sums, `(samples, sums)`."""
        signed = (features * self._signs)[:, self._order]
        return np.add.reduceat(signed, self._starts, axis=1)
