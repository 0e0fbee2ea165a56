"""Compares a training step with many rates to one with a single rate."""

import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Its networks, and the stock model by hand, are used here too.
STEP = runpy.run_path(str(Path(__file__).with_name("bench_step.py")))


def variants() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Returns our learning rates, and the arguments of both optimizers."""
    from keras.optimizers.schedules import CosineDecay

    import keras_cascade as kc

    blocks = {"upstream": 1e-4, "adapters": 1e-3, "downstream": 5e-4}
    decay = {**blocks, "upstream": kc.LayerwiseDecay(1e-4, 0.75)}
    schedules = {name: CosineDecay(rate, 1000) for name, rate in blocks.items()}
    return {
        "a rate a block": (blocks, {}),
        "layer-wise decay in 12 groups": (decay, {}),
        "a schedule a block": (schedules, {}),
        "layer-wise decay, one norm": (decay, {"global_clipnorm": 1.0}),
    }


def run(
    only: Mapping[str, Any] | None = None,
    pairs: int = 7,
    steps: int = 5,
    batch_size: int = 32,
    size: int = 96,
) -> list[dict]:
    """Returns a row for each variant.

    Args:
        only: Some of `variants()`. Defaults to `None`, all of them.
        pairs: The number of pairs of times. Defaults to `7`.
        steps: The number of training steps of which a time is the median.
            Defaults to `5`.
        batch_size: The number of images in a step. Defaults to `32`.
        size: Height and width of the images. Defaults to `96`.

    Returns:
        Rows as `bench_step` gives them.
    """
    x, y = STEP["batch"](batch_size, size)
    rows = []
    for name, (rates, arguments) in (only or variants()).items():
        models = _models(size, rates, arguments)
        rows.append(STEP["step_row"](name, models, x, y, pairs, steps))
    return rows


def _models(
    size: int, rates: dict, arguments: dict
) -> tuple["keras.Model", "keras.Model"]:
    """Returns our model with the rates, and the one by hand; all trains."""
    import keras

    ours, reference = STEP["models"](size, True, rates)
    for model in (ours, reference):
        model.compile(
            keras.optimizers.Adam(1e-3, **arguments),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
    return ours, reference


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
