"""Times training steps of two models side by side, as the benchmarks do."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def seconds_in_turns(
    models: Sequence[keras.Model],
    x: Any,
    y: Any,
    pairs: int,
    steps: int,
) -> list[list[float]]:
    """Seconds a training step of each model: medians of steps taken in turns.

    Noise of the machine meets all of them alike, which is why a ratio of two
    is worth more than two times taken apart.

    Args:
        models: The models, compiled.
        x: A batch of inputs.
        y: Its labels.
        pairs: How many medians are taken.
        steps: How many steps a median is of.

    Returns:
        A list a pair, with the seconds of each model.
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


def as_row(
    name: str, times: Sequence[Sequence[float]], bound: float
) -> dict[str, Any]:
    """A benchmark's row for two models.

    Args:
        name: What was measured.
        times: Pairs of seconds: ours, and the reference's.
        bound: What the ratio may be at most.
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
    models: Sequence[keras.Model], x: Any, y: Any, last: bool
) -> list[float]:
    """A step of each model, the last one first if asked for."""
    order = models[::-1] if last else models
    seconds = [_seconds(model, x, y) for model in order]
    return seconds[::-1] if last else seconds


def _seconds(model: keras.Model, x: Any, y: Any) -> float:
    start = time.perf_counter()
    # Its logs are numbers: it waits for the step to be done.
    logs: Any = model.train_on_batch(x, y)
    if not np.all(np.isfinite(logs)):
        raise RuntimeError(f"Training gave {logs}.")
    return time.perf_counter() - start
