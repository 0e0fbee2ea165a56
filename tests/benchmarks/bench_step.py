"""Compares a training step of a cascade with the same graph by hand."""

import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

TIMING = runpy.run_path(str(Path(__file__).with_name("timing.py")))
step_row = TIMING["step_row"]
MIDDLE = "expanded_conv_7_add"
CLASSES = 10
UNITS = 64
RATES = {"upstream": 1e-4, "adapters": 1e-3, "downstream": 5e-4}


# Whether the upstream trains, and the learning rates.
VARIANTS = {
    "frozen upstream": (False, None),
    "all trains": (True, None),
    "all trains, a rate a block": (True, RATES),
}


def run(
    variants: Mapping[str, tuple[bool, dict | None]] = VARIANTS,
    pairs: int = 7,
    steps: int = 5,
    batch_size: int = 32,
    size: int = 96,
) -> list[dict]:
    """Returns a row for each variant.

    Args:
        variants: Whether the upstream trains, and the learning rates of the
            blocks, by name. Defaults to `VARIANTS`.
        pairs: The number of pairs of times. Defaults to `7`.
        steps: The number of training steps of which a time is the median. The
            models take turns, so that noise affects both alike. Defaults to
            `5`.
        batch_size: The number of images in a step. Defaults to `32`.
        size: Height and width of the images. Defaults to `96`.

    Returns:
        Rows with `name`, the medians of the seconds per step `ours_s` and
        `reference_s`, `ratio` (the median of the pairs' ratios), its `bound`
        as text, and whether it `holds`.
    """
    x, y = batch(batch_size, size)
    rows = []
    for name, (trainable, rates) in variants.items():
        built = models(size, trainable, rates)
        rows.append(step_row(name, built, x, y, pairs, steps))
    return rows


def models(
    size: int, trainable: bool, rates: dict | None
) -> tuple["keras.Model", "keras.Model"]:
    """Returns a cascade and the same graph by hand, with equal weights."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    ours = _cascade(network, trainable, rates)
    reference = _by_hand(network, trainable)
    _check_same_work(ours, reference)
    return ours, reference


def _cascade(
    network: "keras.Model", trainable: bool, rates: dict | None
) -> "keras.Model":
    import keras

    import keras_cascade as kc

    downstream = keras.Sequential(
        [
            keras.Input((2 * UNITS,)),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    return kc.build_cascade(
        network,
        downstream,
        taps={"middle": MIDDLE, "last": "-1"},
        trainable=trainable or None,
        preprocess=None,
        learning_rates=rates,
        optimizer=keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )


def _by_hand(network: "keras.Model", trainable: bool) -> "keras.Model":
    import keras

    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    taps = [clone.get_layer(MIDDLE).output, clone.output]
    features = keras.Model(clone.input, taps)
    features.trainable = trainable
    inputs = keras.Input(network.input_shape[1:])
    vectors = [
        keras.layers.Dense(UNITS)(keras.layers.GlobalAveragePooling2D()(tap))
        for tap in features(inputs)
    ]
    merged = keras.layers.Concatenate()(vectors)
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(merged)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def _check_same_work(ours: "keras.Model", reference: "keras.Model") -> None:
    def shapes(model: "keras.Model") -> list[tuple]:
        return sorted(tuple(v.shape) for v in model.trainable_variables)

    if shapes(ours) != shapes(reference):
        raise RuntimeError(
            "The cascade and the model written by hand train different "
            f"weights: {len(shapes(ours))} and {len(shapes(reference))}."
        )


def batch(batch_size: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (batch_size, size, size, 3)).astype("float32")
    return x, rng.integers(0, CLASSES, batch_size).astype("int32")


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
