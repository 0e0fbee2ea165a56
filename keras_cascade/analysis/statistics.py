"""Computes moments of streamed features, and distances from trained ones."""

import math

import numpy as np

from keras_cascade.adapters.moments import merge_means
from keras_cascade.analysis.report import Distance, ValueStatistics
from keras_cascade.data import to_numpy
from keras_cascade.values.trained_statistics import TrainedStatistics

# Features are far off if half of their channels exceed one of these. At a
# shift of one deviation a rectifier that let half of its inputs through lets
# 84 % or 16 % through; at four times the variance the deviation doubles.
SHIFT = 1.0
VARIANCE_RATIO = 4.0


class ChannelMoments:
    """Moments of each channel, over rows that arrive in batches.

    The memory depends on the number of channels only. Batches are merged by
    `merge_means`, in float64. Values that are not finite are counted, and left
    out of the moments.

    Args:
        channels: int, number of columns.

    Example:
    >>> moments = ChannelMoments(1)
    >>> moments.update(np.array([[1.0], [3.0]]))
    >>> moments.mean, moments.variance
    (array([2.]), array([1.]))
    """

    def __init__(self, channels: int):
        self.count = np.zeros(channels)
        self.mean = np.zeros(channels)
        self._squares = np.zeros(channels)
        self._low, self._high = math.inf, -math.inf
        self._zeros, self._values = 0, 0

    @property
    def variance(self) -> np.ndarray:
        """The variance of each channel, with denominator `count`."""
        return self._squares / np.maximum(self.count, 1)

    def update(self, rows: np.ndarray) -> None:
        """Adds rows, an array of shape `(any, channels)`."""
        if not rows.size:
            return
        rows = np.asarray(rows, "float64")
        finite = np.isfinite(rows)
        rows = np.where(finite, rows, 0.0)
        count = finite.sum(axis=0)
        mean = rows.sum(axis=0) / np.maximum(count, 1)
        squares = (np.square(rows - mean) * finite).sum(axis=0)
        self.mean, between = merge_means(self.count, self.mean, count, mean)
        self.count = self.count + count
        self._squares += squares + np.square(between)
        self._values += rows.size
        self._zeros += int(np.sum((rows == 0) & finite))
        low = np.min(rows, where=finite, initial=math.inf)
        high = np.max(rows, where=finite, initial=-math.inf)
        self._low, self._high = min(self._low, low), max(self._high, high)

    def over_all(self) -> ValueStatistics:
        """Returns the statistics over all channels."""
        total = max(self.count.sum(), 1)
        mean = (self.count * self.mean).sum() / total
        between = (self.count * np.square(self.mean - mean)).sum()
        variance = (self._squares.sum() + between) / total
        return ValueStatistics(
            float(mean),
            float(np.sqrt(variance)),
            float(self._low),
            float(self._high),
            self._zeros / max(self._values, 1),
            int(self._values - self.count.sum()),
            self._values,
        )


def to_rows(
    tensor: np.ndarray, axis: int = -1, mask: np.ndarray | None = None
) -> np.ndarray:
    """Returns a tensor as rows with a column for each channel.

    Args:
        tensor: Of any shape, batch first.
        axis: The axis of the channels; the last is taken if the tensor has
            fewer. Defaults to `-1`.
        mask: Selects among the positions of the first axes. Defaults to
            `None`, all.
    """
    tensor = to_numpy(tensor)
    if tensor.ndim < 2:
        return tensor.reshape(-1, 1)
    # The tensor may be a vector, and the axis that of a map.
    axis = axis if -tensor.ndim <= axis < tensor.ndim else -1
    last = np.moveaxis(tensor, axis, -1)
    if mask is not None and mask.shape == last.shape[: len(mask.shape)]:
        last = last[to_numpy(mask).astype(bool)]
    return last.reshape(-1, last.shape[-1])


def distance(trained: TrainedStatistics, moments: ChannelMoments) -> Distance:
    """Returns how far moments are from those that a layer was trained on.

    Each channel has a shift |m - m0| / s0 of the mean, and a spread
    |log(v / v0)| of the variance.
    """
    # A dead channel has no variance to divide by.
    variance0 = np.maximum(trained.variance, trained.floor)
    variance = np.maximum(moments.variance, trained.floor)
    shift = np.abs(moments.mean - trained.mean) / np.sqrt(variance0)
    spread = np.abs(np.log(variance / variance0))
    return Distance(
        trained.layer,
        trained.at,
        float(np.median(shift)),
        float(np.max(shift)),
        float(np.median(spread)),
        float(np.max(spread)),
        len(shift),
    )


def is_far(found: Distance) -> bool:
    """Whether half of the channels are beyond `SHIFT` or `VARIANCE_RATIO`."""
    far = math.log(VARIANCE_RATIO)
    return found.shift_median > SHIFT or found.spread_median > far
