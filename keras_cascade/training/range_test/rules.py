"""Rules that read a learning rate off the losses of a range test."""

from collections.abc import Callable

import numpy as np

# Losses are float32: smaller differences are rounding.
RESOLUTION = 1e-6


def smooth(losses: np.ndarray, smoothing: float) -> np.ndarray:
    """A moving average with exponential weights, without its start's bias.

    Args:
        losses: A loss a step.
        smoothing: How much of the average stays from step to step; 0 leaves
            the losses as they are.

    Returns:
        The averages, each the weighted mean of the losses so far.
    """
    average, averages = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = smoothing * average + (1 - smoothing) * loss
        averages.append(average / (1 - smoothing**count))
    return np.array(averages)


def smooth_both_ways(losses: np.ndarray, smoothing: float) -> np.ndarray:
    """The same with the losses that follow, which does not lag behind.

    A rate read off a curve that lags is too high.

    Args:
        losses: A loss a step.
        smoothing: The weight of a neighbour; that of the next one is its
            square, and so on.

    Returns:
        The averages.
    """
    steps = np.arange(len(losses))
    weights = float(smoothing) ** np.abs(steps[:, None] - steps)
    return weights @ losses / weights.sum(axis=1)


def diverged(smoothed: np.ndarray, settling: int = 0) -> bool:
    """Whether the last loss is not finite, or far above the best so far.

    Far is four times the best, as in fastai; by its size where it is
    negative.

    Args:
        smoothed: The moving averages so far.
        settling: How many of the first do not count: of few batches that
            differ, one may be easy. Defaults to `0`.
    """
    if not np.isfinite(smoothed[-1]):
        return True
    best = float(smoothed[settling:].min(initial=np.inf))
    return bool(smoothed[-1] > best + 3 * abs(best))


def before_the_end(losses: np.ndarray) -> np.ndarray:
    """The losses without the last five, in which they explode; as fastai."""
    finite = np.isfinite(losses)
    end = len(losses) if finite.all() else int(finite.argmin())
    return losses[: max(end - 5, 0)]


def suggest(rates: np.ndarray, smoothed: np.ndarray) -> dict[str, float | None]:
    """What each rule makes of a curve; None where nothing falls.

    As in fastai the first tenth is left out: averages settle there.
    """
    start = len(smoothed) // 10
    rates, losses = rates[start : len(smoothed)], smoothed[start:]
    size = np.abs(losses).max(initial=0.0)
    if not len(losses) or np.ptp(losses) <= RESOLUTION * size:
        return dict.fromkeys(RULES)
    return {name: rule(rates, losses) for name, rule in RULES.items()}


def steepest(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """The rate from which on the loss falls fastest, over the rate's log.

    Only what lies before the lowest loss counts: behind it batches that differ
    can make steeper steps than learning did.

    Args:
        rates: Rising learning rates.
        losses: The loss at each.

    Returns:
        The rate where the steepest step begins; None where no step falls.

    References:
        Smith 2015, Cyclical Learning Rates for Training Neural Networks
        (the range test); the rule is fastai's "steep".
    """
    if not len(losses) or not (end := int(losses.argmin())):
        return None
    slopes = np.diff(losses[: end + 1]) / np.diff(np.log(rates[: end + 1]))
    return float(rates[slopes.argmin()])


def valley(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """The rate half way down the longest descent.

    A descent is a run of losses, each below the one before, among which
    others may lie that are not: bumps do not end it.

    Args:
        rates: Rising learning rates.
        losses: The loss at each.

    Returns:
        The rate in the middle between where the descent begins and where it
        ends; None where nothing falls.

    References:
        The rule is fastai's "valley" (ESRI, the authors of arcgis.learn).
    """
    lengths = np.ones(len(losses), dtype=int)
    starts = np.arange(len(losses))
    for here in range(1, len(losses)):
        above = np.flatnonzero(losses[:here] > losses[here])
        if len(above):
            # Of equally long ones that which begins last, where it is steeper.
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
