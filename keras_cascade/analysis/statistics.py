"""Moments of streamed features, and what downstreams were trained on.

How far features are from what a layer knows is told channel by channel from
two numbers: the shift |m - m0| / s0 of the mean, and the spread |log(v / v0)|
of the variance. Where `m0` and `v0` come from, in the order in which they are
looked for:

- the tensor goes into a BatchNormalization: its moving moments; into a
  Normalization: its mean and variance;
- it is the output of a BatchNormalization with moving moments (m, v): beta,
  and gamma² v / (v + epsilon);
- it is that behind a ReLU: the moments of a rectified normal distribution.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_cascade.adapters.moments import merge_means
from keras_cascade.analysis.ranges import (
    activation_name,
    is_untrained,
    keeps_tensor,
    readers,
    trained_moments,
)
from keras_cascade.analysis.report import Distance, Measured
from keras_cascade.data import to_numpy
from keras_cascade.graph.flattening import FlatCall, FlatGraph
from keras_cascade.graph.graph import Reference

# Half of the channels are farther off than this. At a shift of one deviation
# a rectifier that let half of its inputs through lets 84 % or 16 % through;
# at four times the variance the deviation is twice as large.
SHIFT = 1.0
VARIANCE_RATIO = 4.0


class ChannelMoments:
    """Moments of each channel, over rows that arrive in batches.

    The memory depends on the number of channels only. Batches are merged by
    `merge_means`, in float64. What is not finite is counted, and left out of
    the moments.

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
        """Adds rows.

        Args:
            rows: array of shape `(any, channels)`.
        """
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
        self._low = min(self._low, np.min(rows, where=finite, initial=math.inf))
        self._high = max(
            self._high, np.max(rows, where=finite, initial=-math.inf)
        )

    def measured(self) -> Measured:
        """The same over all channels."""
        total = max(self.count.sum(), 1)
        mean = (self.count * self.mean).sum() / total
        between = (self.count * np.square(self.mean - mean)).sum()
        variance = (self._squares.sum() + between) / total
        return Measured(
            float(mean),
            float(np.sqrt(variance)),
            float(self._low),
            float(self._high),
            self._zeros / max(self._values, 1),
            int(self._values - self.count.sum()),
            self._values,
        )


def rows_of(
    tensor: np.ndarray, axis: int = -1, mask: np.ndarray | None = None
) -> np.ndarray:
    """A tensor as rows with a column a channel.

    Args:
        tensor: Of any shape, batch first.
        axis: That of the channels, where there is such a one; else they are
            last. Defaults to `-1`.
        mask: Which leading positions count: of the tensor's first axes.
            Defaults to `None`, all.
    """
    tensor = to_numpy(tensor)
    if tensor.ndim < 2:
        return tensor.reshape(-1, 1)
    axis = axis if -tensor.ndim <= axis < tensor.ndim else -1
    last = np.moveaxis(tensor, axis, -1)
    if mask is not None and mask.shape == last.shape[: len(mask.shape)]:
        last = last[to_numpy(mask).astype(bool)]
    return last.reshape(-1, last.shape[-1])


@dataclass(frozen=True, eq=False)
class Expected:
    """The statistics that a layer was trained on, per channel.

    Attributes:
        layer: The layer that knows them.
        at: What they are of, seen from that layer.
        mean: Of each channel.
        variance: Of each channel.
        axis: The axis of the channels, batch included.
        floor: The variance below which the layer itself sees none.
        is_untrained: Whether they are those that layers begin with.
    """

    layer: str
    at: str
    mean: np.ndarray
    variance: np.ndarray
    axis: int
    floor: float
    is_untrained: bool

    def part(self, start: int, width: int) -> "Expected":
        """The statistics of some neighbouring channels."""
        stop = start + width
        return Expected(
            self.layer,
            self.at,
            self.mean[start:stop],
            self.variance[start:stop],
            self.axis,
            self.floor,
            self.is_untrained,
        )


def expected_at(flat: FlatGraph, reference: Reference) -> Expected | None:
    """What the layers beside a tensor were trained on there, if they know.

    Args:
        flat: The network.
        reference: The tensor.
    """
    for call in readers(flat, reference):
        found = expected_before(call)
        if found is not None:
            return found
    return _of_output(flat, flat.resolve(reference))


def expected_before(call: FlatCall) -> Expected | None:
    """What a layer was trained to see, if it knows."""
    moments, layer = trained_moments(call.operation), call.operation
    axis = _axis(layer)
    if moments is None or axis is None:
        return None
    mean, variance = moments
    floor = float(getattr(layer, "epsilon", keras.backend.epsilon()))
    untrained = is_untrained(mean, variance)
    at = "before"
    return Expected(call.name, at, mean, variance, axis, floor, untrained)


def normalisations_behind(
    flat: FlatGraph, reference: Reference
) -> Iterator[FlatCall]:
    """The first layers behind a tensor that know their input's moments."""
    waiting, seen = [flat.resolve(reference)], set()
    while waiting:
        for call in flat.consumers.get(waiting.pop(0), []):
            if call.address in seen:
                continue
            seen.add(call.address)
            if expected_before(call) is not None:
                yield call
            else:
                waiting += call.outputs


def distance(expected: Expected, moments: ChannelMoments) -> Distance:
    """How far moments are from those that are expected."""
    variance0 = np.maximum(expected.variance, expected.floor)
    variance = np.maximum(moments.variance, expected.floor)
    shift = np.abs(moments.mean - expected.mean) / np.sqrt(variance0)
    spread = np.abs(np.log(variance / variance0))
    return Distance(
        expected.layer,
        expected.at,
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


def rectified_moments(
    mean: np.ndarray, deviation: np.ndarray, limit: float = math.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of min(max(z, 0), limit), z normally distributed.

    With a = mean / deviation, and the density phi and distribution Phi of the
    standard normal, integration by parts gives for max(z, 0)

        E[z+]  = mean Phi(a) + deviation phi(a)
        E[z+²] = (mean² + deviation²) Phi(a) + mean deviation phi(a)

    and a limit c takes off what lies above: E[(z - c)+] of the first and
    E[(z² - c²) over z > c] of the second.

    Args:
        mean: array, of z.
        deviation: array, of z, positive.
        limit: The largest value. Defaults to infinity.

    Source: Socci, Lee, Seung, "The Rectified Gaussian Distribution", 1998.
    """
    first, second = _above(mean, deviation, 0.0)
    if math.isfinite(limit):
        over, over_squared = _above(mean, deviation, limit)
        chance = _distribution((mean - limit) / deviation)
        first = first - (over - limit * chance)
        second = second - (over_squared - limit**2 * chance)
    return first, np.maximum(second - np.square(first), 0.0)


def _above(
    mean: np.ndarray, deviation: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """E[z over z > limit] and E[z² over z > limit]."""
    a = (limit - mean) / deviation
    density = np.exp(-np.square(a) / 2) / math.sqrt(2 * math.pi)
    chance = _distribution(-a)
    first = mean * chance + deviation * density
    second = (mean**2 + deviation**2) * chance + deviation * density * (
        mean + limit
    )
    return first, second


def _distribution(a: np.ndarray) -> np.ndarray:
    """Phi, the distribution of the standard normal."""
    # NumPy has no error function.
    errors = [math.erf(x / math.sqrt(2)) for x in np.ravel(a)]
    return (1 + np.reshape(errors, np.shape(a))) / 2


def _of_output(flat: FlatGraph, reference: Reference) -> Expected | None:
    """What a BatchNormalization, or a ReLU behind one, gives."""
    call = _origin(flat, reference)
    if call is None:
        return None
    limit = _rectifies(call.operation)
    normalisation = call
    if limit is not None and call.inputs[0] is not None:
        normalisation = _origin(flat, call.inputs[0])
    layer: Any = None if normalisation is None else normalisation.operation
    if normalisation is None or not isinstance(
        layer, keras.layers.BatchNormalization
    ):
        return None
    mean, variance = _normalised_moments(layer)
    at = "as behind"
    if limit is not None:
        mean, variance = rectified_moments(mean, np.sqrt(variance), limit)
        at = "as behind the ReLU of"
    axis, floor = _axis(layer), float(layer.epsilon)
    untrained = is_untrained(*(trained_moments(layer) or (mean, variance)))
    name = normalisation.name
    if axis is None:
        return None
    return Expected(name, at, mean, variance, axis, floor, untrained)


def _origin(flat: FlatGraph, reference: Reference) -> FlatCall | None:
    """What made a tensor, looking through what leaves it as it is."""
    call = flat.producers.get(reference)
    while call is not None and keeps_tensor(call.operation):
        origin = call.inputs[0]
        call = None if origin is None else flat.producers.get(origin)
    return call


def _rectifies(operation: Any) -> float | None:
    """The largest value that a ReLU gives; None for what is none."""
    if isinstance(operation, keras.layers.ReLU):
        if operation.negative_slope or operation.threshold:
            return None
        limit = operation.max_value
        return math.inf if limit is None else float(limit)
    name = None
    if isinstance(operation, keras.layers.Activation):
        name = activation_name(operation)
    elif not isinstance(operation, keras.Layer):
        # `keras.ops.relu`: such classes are not public, their names are.
        name = type(operation).__name__.lower()
    return {"relu": math.inf, "relu6": 6.0}.get(name or "")


def _normalised_moments(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a BatchNormalization gives for what it was trained on."""
    variance = _host(layer.moving_variance)
    gamma = _host(layer.gamma) if layer.scale else np.ones_like(variance)
    beta = _host(layer.beta) if layer.center else np.zeros_like(variance)
    return beta, np.square(gamma) * variance / (variance + layer.epsilon)


def _axis(layer: Any) -> int | None:
    """The axis of the channels; None where there are several."""
    axis = getattr(layer, "axis", None)
    if isinstance(axis, int):
        return axis
    flat = list(axis) if isinstance(axis, list | tuple) else []
    return int(flat[0]) if len(flat) == 1 else None


def _host(variable: Any) -> np.ndarray:
    return to_numpy(keras.ops.convert_to_numpy(variable)).astype("float64")
