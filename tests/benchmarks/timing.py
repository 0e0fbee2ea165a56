"""Times training steps of several models side by side."""

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def seconds_in_turns(
    models: Sequence["keras.Model"],
    x: Any,
    y: Any,
    pairs: int,
    steps: int,
) -> list[list[float]]:
    """Measures training steps of the models in turns.

    The machine's noise affects all models alike, so the ratio of two times
    varies less than either time.

    Args:
        models: The compiled models.
        x: A batch of inputs.
        y: The labels of the batch.
        pairs: The number of medians.
        steps: The number of steps for each median.

    Returns:
        A list for each median, with the seconds per step of each model.
    """
    for model in models:
        _seconds(model, x, y)  # compiles
        _seconds(model, x, y)
    times = []
    for _ in range(pairs):
        turns = [_turn(models, x, y, i % 2 == 1) for i in range(steps)]
        own = zip(*turns, strict=True)
        times.append([statistics.median(seconds) for seconds in own])
    return times


def step_row(
    name: str,
    models: Sequence["keras.Model"],
    x: Any,
    y: Any,
    pairs: int,
    steps: int,
) -> dict[str, Any]:
    """Times a training step, which may take a tenth longer than by hand.

    Args:
        name: The name of the case.
        models: Our model, and the one by hand.
        x: As in `seconds_in_turns`.
        y: As in `seconds_in_turns`.
        pairs: As in `seconds_in_turns`.
        steps: As in `seconds_in_turns`.

    Returns:
        The row of the benchmark.
    """
    times = seconds_in_turns(models, x, y, pairs, steps)
    return as_row(f"step MobileNetV3Small, {name}", times, 1.10)


def as_row(
    name: str, times: Sequence[Sequence[float]], bound: float
) -> dict[str, Any]:
    """Returns a benchmark's row for two models.

    Args:
        name: The name of the case.
        times: Pairs of seconds: ours, and the reference's.
        bound: The largest ratio that holds.
    """
    ratio = statistics.median(ours / other for ours, other in times)
    return {
        "name": name,
        "ours_s": statistics.median(ours for ours, _ in times),
        "reference_s": statistics.median(other for _, other in times),
        "ratio": ratio,
        "bound": f"at most {bound:.2f}",
        "holds": ratio <= bound,
    }


def _turn(
    models: Sequence["keras.Model"], x: Any, y: Any, last: bool
) -> list[float]:
    """Returns the seconds of one step of each model.

    Args:
        models: The models.
        x: A batch of inputs.
        y: The labels of the batch.
        last: Whether the last model goes first.
    """
    order = models[::-1] if last else models
    seconds = [_seconds(model, x, y) for model in order]
    return seconds[::-1] if last else seconds


def _seconds(model: "keras.Model", x: Any, y: Any) -> float:
    start = time.perf_counter()
    # It returns numbers, so it waits until the step is done.
    logs: Any = model.train_on_batch(x, y)
    if not np.all(np.isfinite(logs)):
        raise RuntimeError(f"Training gave {logs}.")
    return time.perf_counter() - start
