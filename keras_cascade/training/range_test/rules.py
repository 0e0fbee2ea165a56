"""Reads a learning rate off the losses of a range test, by several rules."""

from collections.abc import Callable

import numpy as np

# The relative resolution of float32 losses: less is rounding.
RESOLUTION = 1e-6


def smooth(losses: np.ndarray, smoothing: float) -> np.ndarray:
    """Returns the exponential moving average, without the bias of its start.

    The share `smoothing` of the average stays from step to step.
    """
    average, averages = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = smoothing * average + (1 - smoothing) * loss
        averages.append(average / (1 - smoothing**count))
    return np.array(averages)


def smooth_both_ways(losses: np.ndarray, smoothing: float) -> np.ndarray:
    """Returns the moving average over earlier and later losses.

    It does not lag: a rate read off a lagging curve would be too high. The
    weight of a neighbour is `smoothing`, of the next one its square.
    """
    steps = np.arange(len(losses))
    weights = float(smoothing) ** np.abs(steps[:, None] - steps)
    return weights @ losses / weights.sum(axis=1)


def diverged(smoothed: np.ndarray, ignored: int = 0) -> bool:
    """Whether the last loss is not finite, or far above the lowest so far.

    Far means four times the lowest, as in fastai. The first `ignored` averages
    do not count: an easy batch would make the lowest too low.
    """
    if not np.isfinite(smoothed[-1]):
        return True
    lowest = float(smoothed[ignored:].min(initial=np.inf))
    return bool(smoothed[-1] > lowest + 3 * abs(lowest))


def before_the_end(losses: np.ndarray) -> np.ndarray:
    """Returns the losses without the last five, in which they explode."""
    finite = np.isfinite(losses)
    end = len(losses) if finite.all() else int(finite.argmin())
    return losses[: max(end - 5, 0)]


def suggest(rates: np.ndarray, smoothed: np.ndarray) -> dict[str, float | None]:
    """Returns the rate that each rule suggests; None if the loss never falls.

    As in fastai the first tenth is left out, where averages of few losses are
    unreliable.
    """
    start = len(smoothed) // 10
    rates, losses = rates[start : len(smoothed)], smoothed[start:]
    size = np.abs(losses).max(initial=0.0)
    if not len(losses) or np.ptp(losses) <= RESOLUTION * size:
        return dict.fromkeys(RULES)
    return {name: rule(rates, losses) for name, rule in RULES.items()}


def steepest(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Returns the rate at which the loss falls fastest, over the rate's log.

    Only the curve before the lowest loss counts: after it, differences of
    batches can make steeper steps than learning did.
    It is the rate where the steepest step begins; None if no step falls.

    References:
        Smith 2015, Cyclical Learning Rates for Training Neural Networks
        (the range test); the rule is fastai's "steep".
    """
    if not len(losses) or not (end := int(losses.argmin())):
        return None
    slopes = np.diff(losses[: end + 1]) / np.diff(np.log(rates[: end + 1]))
    return float(rates[slopes.argmin()])


def valley(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Returns the rate half way down the longest descent.

    A descent is a sequence of falling losses, with any others in between:
    bumps do not end it.
    The rate is None if the loss never falls.

    References:
        The rule is fastai's "valley" (ESRI, the authors of arcgis.learn).
    """
    lengths = np.ones(len(losses), dtype=int)
    starts = np.arange(len(losses))
    for here in range(1, len(losses)):
        above = np.flatnonzero(losses[:here] > losses[here])
        if len(above):
            # Of equally long descents the one that begins last is steeper.
            above = above[::-1]
            before = above[lengths[above].argmax()]
            lengths[here] = lengths[before] + 1
            starts[here] = starts[before]
    if len(losses) < 2 or lengths.max() < 2:
        return None
    end = int(lengths.argmax())
    return float(rates[(starts[end] + end) // 2])


RULES: dict[str, Callable[[np.ndarray, np.ndarray], float | None]] = {
    "valley": valley,
    "steepest": steepest,
}
