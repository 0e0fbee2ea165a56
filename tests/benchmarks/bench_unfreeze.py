"""Compares a step in each stage of a fit with a cascade of those flags."""

import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

STEP = runpy.run_path(str(Path(__file__).with_name("bench_step.py")))
# The patterns that are unfrozen by then, besides adapters and downstream.
STAGES = {
    "the upstream frozen": [],
    "its last blocks joined": ["upstream/expanded_conv_8_*.."],
    "all of it joined": ["upstream"],
}


def run(
    stages: Mapping[str, list[str]] = STAGES,
    pairs: int = 7,
    steps: int = 5,
    batch_size: int = 32,
    size: int = 96,
) -> list[dict]:
    """Returns a row for each stage.

    Args:
        stages: The unfrozen patterns of each stage, by name. Defaults to
            `STAGES`.
        pairs: The number of pairs of times. Defaults to `7`.
        steps: The number of training steps of which a time is the median.
            Defaults to `5`.
        batch_size: The number of images in a step. Defaults to `32`.
        size: Height and width of the images. Defaults to `96`.

    Returns:
        Rows as `bench_step` gives them.
    """
    x, y = STEP["batch"](batch_size, size)
    staged = STEP["models"](size, False, None)[0]
    rows = []
    for name, patterns in stages.items():
        _reach(staged, patterns, x, y)
        pair = staged, _built_with(staged, patterns)
        rows.append(STEP["step_row"](name, pair, x, y, pairs, steps))
    return rows


def _reach(cascade: "keras.Model", patterns: list[str], x, y) -> None:
    """Trains the cascade for two epochs; the second is in the stage.

    Its optimizer has the slots of all stages from the beginning.
    """
    later = {1: patterns, 2: "upstream"} if patterns else {2: "upstream"}
    if patterns == ["upstream"]:
        later = {1: "upstream"}
    cascade.freeze("upstream")
    stop = _stop_after(2)
    cascade.fit(
        x, y, len(x), epochs=3, unfreeze=later, callbacks=[stop], verbose=0
    )


def _stop_after(epochs: int) -> "keras.callbacks.Callback":
    import keras

    def stop(epoch: int, logs: object) -> None:
        if epoch + 1 == epochs:
            callback.model.stop_training = True

    callback = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    return callback


def _built_with(staged: "keras.Model", patterns: list[str]) -> "keras.Model":
    """Returns a cascade of the same graph and weights, built with the flags."""
    return staged.rebuild(trainable=dict.fromkeys(patterns, True) or None)


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
