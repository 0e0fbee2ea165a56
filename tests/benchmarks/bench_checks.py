"""Compares the look at the first batch, `check_values`, with an epoch."""

import os
import runpy
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import numpy as np

STEP = runpy.run_path(str(Path(__file__).with_name("bench_step.py")))
SHARE = 0.01
# A difference of two times may be nothing, of which there is no ratio.
LEAST = 1e-6


def run(
    samples: int = 4096, pairs: int = 11, batch_size: int = 32, size: int = 96
) -> list[dict]:
    """Returns a row for each kind of training.

    Fits of one step over all data are timed with the look and without it, in
    turns: their difference is what the look takes. Labels are looked at as a
    whole, so all of them are there.

    Args:
        samples: The number of images in an epoch. Defaults to `4096`.
        pairs: The number of pairs of times. Defaults to `11`.
        batch_size: The number of images in a step. Defaults to `32`.
        size: Height and width of the images. Defaults to `96`.

    Returns:
        Rows with `name`, the seconds of the look `ours_s` (the median of the
        pairs' differences), those of an epoch without it `reference_s`,
        `ratio`, its `bound` as text, and whether it `holds`.
    """
    x, y = STEP["batch"](samples, size)
    rows = []
    for name, trains in (("frozen upstream", False), ("all trains", True)):
        model, _ = STEP["models"](size, trains, None)
        rows.append(_row(name, model, x, y, pairs, batch_size))
    return rows


def _row(
    name: str,
    model: "keras.Model",
    x: "np.ndarray",
    y: "np.ndarray",
    pairs: int,
    batch_size: int,
) -> dict:
    def seconds(look: bool, steps: int | None) -> float:
        start = time.perf_counter()
        model.fit(
            x,
            y,
            batch_size=batch_size,
            steps_per_epoch=steps,
            check_values=look,
            verbose=0,
        )
        return time.perf_counter() - start

    seconds(True, 1)  # compiles
    found = [seconds(True, 1) - seconds(False, 1) for _ in range(pairs)]
    look, epoch = max(statistics.median(found), LEAST), seconds(False, None)
    return {
        "name": f"first batch MobileNetV3Small, {name}",
        "ours_s": look,
        "reference_s": epoch,
        "ratio": look / epoch,
        "bound": f"at most {SHARE}",
        "holds": look <= SHARE * epoch,
    }


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
