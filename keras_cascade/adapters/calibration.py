"""The temperature at which scores are as sure as they are right.

Pure NumPy in float64. The memory depends on the size of a batch, not on the
number of rows.
"""

import math

import numpy as np

# Temperatures from 32 down to 1/32, eight an octave, as their inverses.
_OCTAVES = 10
_AN_OCTAVE = 8
_INVERSES = 2.0 ** (
    np.arange(_OCTAVES * _AN_OCTAVE + 1) / _AN_OCTAVE - _OCTAVES / 2
)


class TemperatureFit:
    """Finds, in one pass, the temperature of lowest negative log likelihood.

    The likelihood of labels under `softmax(logits / temperature)` is convex
    in the inverse temperature. Its first and second derivatives are summed on
    a grid of inverse temperatures, over all rows; the first is zero between
    two points of the grid, where a cubic through both finds the zero, to some
    1e-7 of the temperature. No row is kept.

    Example:
    >>> import numpy as np
    >>> fit = TemperatureFit()
    >>> fit.update(np.log([[0.9, 0.1]] * 4), np.eye(2)[[0, 0, 0, 1]])
    >>> round(fit.temperature(), 6)  # 3 of 4: odds of 9 should be 3
    2.0

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
    Networks", ICML 2017, section 4.2.
    """

    def __init__(self) -> None:
        self.count = 0
        self._slopes = np.zeros(len(_INVERSES))
        self._curvatures = np.zeros(len(_INVERSES))

    def update(self, logits: np.ndarray, targets: np.ndarray) -> None:
        """Adds finite logits and their distributions, `(rows, classes)`."""
        logits = logits.astype("float64")
        logits -= logits.max(axis=1, keepdims=True)
        squares, of_targets = logits**2, _expected(targets, logits)
        for start in range(_AN_OCTAVE):
            weights = np.exp(logits * _INVERSES[start])
            for index in range(start, len(_INVERSES), _AN_OCTAVE):
                total = weights.sum(axis=1)
                mean = _expected(weights, logits) / total
                square = _expected(weights, squares) / total
                self._slopes[index] += (mean - of_targets).sum()
                self._curvatures[index] += (square - mean**2).sum()
                # Twice the inverse temperature: cheaper than exponentials.
                weights *= weights
        self.count += len(logits)

    def temperature(self) -> float:
        """Returns that temperature; an error if none from 1/32 to 32 fits."""
        self._check_range()
        # The slope rises: it is negative first, and positive at the end.
        right = int(np.argmax(self._slopes >= 0))
        left = right - 1
        step = math.log(_INVERSES[right] / _INVERSES[left])
        rises = self._curvatures * _INVERSES * step
        share = _zero(
            self._slopes[left], self._slopes[right], rises[left], rises[right]
        )
        return float(1 / (_INVERSES[left] * math.exp(share * step)))

    def _check_range(self) -> None:
        lowest, highest = 1 / _INVERSES[-1], 1 / _INVERSES[0]
        if self._slopes[0] >= 0:
            raise ValueError(
                f"no temperature up to {highest:g} fits the {self.count} "
                "labels: the higher, the likelier they are, as where the "
                "scores say no more about them than chance. Are the labels "
                "those of the data, in the order of the classes?"
            )
        if self._slopes[-1] <= 0:
            raise ValueError(
                f"no temperature from {lowest:g} on fits the {self.count} "
                "labels: the lower, the likelier they are, as where the "
                "highest score is right in nearly every row. Fit it on data "
                "that the network was not trained on, on more of it, or give "
                "a temperature."
            )


def _expected(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.einsum("nc,nc->n", weights, values)


def _zero(left: float, right: float, rise: float, end_rise: float) -> float:
    """Returns the zero of a cubic by its values and slopes at 0 and 1.

    The value at 0 is negative and the value at 1 is not, so halving finds it.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        value = (
            (1 + 2 * x) * (1 - x) ** 2 * left
            + x * (1 - x) ** 2 * rise
            + x**2 * (3 - 2 * x) * right
            + x**2 * (x - 1) * end_rise
        )
        low, high = (x, high) if value < 0 else (low, x)
    return high
