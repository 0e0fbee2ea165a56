"""Finds the statistics that the normalisations of a network were trained on.

They are looked for in this order:

- the tensor goes into a BatchNormalization: its moving moments; or into a
  Normalization: its mean and variance;
- the tensor is the output of a BatchNormalization with moving moments (m, v):
  beta, and gamma² v / (v + epsilon);
- the tensor is such an output after a ReLU: the moments of a rectified normal
  distribution.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step
from keras_cascade.values.range_inference import (
    activation_name,
    consumers_of,
    is_identity,
)

Moments = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class TrainedStatistics:
    """The statistics of each channel that a layer was trained on.

    Attributes:
        layer: The layer that has them.
        at: The tensor that they describe, seen from that layer: `"before"`,
            `"after"` or `"after the ReLU of"` it.
        mean: The mean of each channel.
        variance: The variance of each channel.
        axis: The axis of the channels, batch included.
        floor: The smallest variance that the layer tells from zero.
        is_untrained: Whether they are the layer's initial values.
    """

    layer: str
    at: str
    mean: np.ndarray
    variance: np.ndarray
    axis: int
    floor: float
    is_untrained: bool = False

    def channels(self, start: int, stop: int) -> "TrainedStatistics":
        """Returns the statistics of the channels from `start` to `stop`."""
        mean, variance = self.mean[start:stop], self.variance[start:stop]
        return replace(self, mean=mean, variance=variance)


def statistics_at(
    flat: Program, reference: Reference
) -> TrainedStatistics | None:
    """Returns the statistics that a tensor had in training, if layers show."""
    for call in consumers_of(flat, reference):
        found = statistics_before(call)
        if found is not None:
            return found
    return _statistics_after(flat, flat.resolve(reference))


def statistics_before(call: Step) -> TrainedStatistics | None:
    """Returns the statistics of a layer's input, if the layer has them."""
    moments = trained_moments(call.operation)
    return None if moments is None else _statistics(call, "before", *moments)


def first_normalisations_after(
    flat: Program, reference: Reference
) -> Iterator[Step]:
    """Yields on each way from a tensor the first layer with statistics."""
    waiting, seen = [flat.resolve(reference)], set()
    while waiting:
        for call in flat.data_consumers.get(waiting.pop(0), []):
            if call.address in seen:
                continue
            seen.add(call.address)
            if statistics_before(call) is not None:
                yield call
            else:
                waiting += call.outputs


def trained_moments(layer: keras.Operation) -> Moments | None:
    """Returns a normalisation's mean and variance of each input channel."""
    if isinstance(layer, keras.layers.BatchNormalization):
        found = (layer.moving_mean, layer.moving_variance)
    elif isinstance(layer, keras.layers.Normalization) and not layer.invert:
        # They are missing until the layer is adapted.
        found = (getattr(layer, "mean", None), getattr(layer, "variance", None))
    else:
        return None
    if any(x is None for x in found):
        return None
    mean, variance = (_to_numpy(x).reshape(-1) for x in found)
    return mean, variance


def is_untrained(mean: np.ndarray, variance: np.ndarray) -> bool:
    """Whether moments are those that layers are initialised with."""
    return bool(np.all(mean == 0) and np.all(variance == 1))


def rectified_moments(
    mean: np.ndarray, deviation: np.ndarray, limit: float = math.inf
) -> Moments:
    """Returns mean and variance of min(max(z, 0), limit) for a normal z.

    With a = mean / deviation, and the density phi and distribution Phi of the
    standard normal, integration by parts gives for max(z, 0)

        E[z+]  = mean Phi(a) + deviation phi(a)
        E[z+²] = (mean² + deviation²) Phi(a) + mean deviation phi(a)

    A limit c subtracts E[(z - c)+] from the first, and E[z² - c² over z > c]
    from the second.

    Args:
        mean: array, of z.
        deviation: array, of z, positive.
        limit: The largest value. Defaults to infinity.

    Source: Socci, Lee, Seung, "The Rectified Gaussian Distribution", 1998.
    """
    first, second = _moments_above(mean, deviation, 0.0)
    if math.isfinite(limit):
        over, over_squared = _moments_above(mean, deviation, limit)
        chance = _normal_distribution((mean - limit) / deviation)
        first = first - (over - limit * chance)
        second = second - (over_squared - limit**2 * chance)
    # Rounding may make the difference of squares negative.
    return first, np.maximum(second - np.square(first), 0.0)


def _moments_above(
    mean: np.ndarray, deviation: np.ndarray, limit: float
) -> Moments:
    """Returns E[z over z > limit] and E[z² over z > limit]."""
    a = (limit - mean) / deviation
    chance = _normal_distribution(-a)
    slope = deviation * np.exp(-np.square(a) / 2) / math.sqrt(2 * math.pi)
    second = (mean**2 + deviation**2) * chance + slope * (mean + limit)
    return mean * chance + slope, second


def _normal_distribution(a: np.ndarray) -> np.ndarray:
    # NumPy has no error function.
    return (1 + np.vectorize(math.erf, "d")(a / math.sqrt(2))) / 2


def _statistics_after(
    flat: Program, reference: Reference
) -> TrainedStatistics | None:
    """Returns the statistics of a BatchNormalization's (rectified) output."""
    call, at = _producer(flat, reference), "after"
    limit = _relu_limit(call.operation) if call else None
    if call and limit is not None and call.data_inputs[0] is not None:
        call, at = _producer(flat, call.data_inputs[0]), "after the ReLU of"
    layer: Any = call and call.operation
    if not call or not isinstance(layer, keras.layers.BatchNormalization):
        return None
    # A layer without `scale` or `center` has no such variable.
    variance = _to_numpy(layer.moving_variance)
    gamma = _to_numpy(layer.gamma) if layer.scale else np.ones_like(variance)
    mean = _to_numpy(layer.beta) if layer.center else np.zeros_like(variance)
    variance = np.square(gamma) * variance / (variance + layer.epsilon)
    if limit is not None:
        mean, variance = rectified_moments(mean, np.sqrt(variance), limit)
    return _statistics(call, at, mean, variance)


def _producer(flat: Program, reference: Reference) -> Step | None:
    """Returns the call that makes a tensor, the one before identities."""
    call = flat.producers.get(reference)
    while call is not None and is_identity(call.operation):
        origin = call.data_inputs[0]
        call = None if origin is None else flat.producers.get(origin)
    return call


def _relu_limit(operation: keras.Operation) -> float | None:
    """Returns the largest output of a ReLU; None for any other operation."""
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


def _statistics(
    call: Step, at: str, mean: np.ndarray, variance: np.ndarray
) -> TrainedStatistics | None:
    """Returns moments with their layer; None if its axes are several."""
    layer: Any = call.operation
    axis = [layer.axis] if isinstance(layer.axis, int) else layer.axis
    if not axis or len(axis) != 1:
        return None
    # Normalization has no epsilon of its own and takes the backend's.
    floor = float(getattr(layer, "epsilon", keras.backend.epsilon()))
    untrained = is_untrained(*(trained_moments(layer) or (mean, variance)))
    return TrainedStatistics(
        call.label, at, mean, variance, int(axis[0]), floor, untrained
    )


def _to_numpy(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), "float64")
