"""Times epochs on cached maps, read from a disk and from memory."""

import os
import runpy
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

    import keras_cascade as kc

# Its cascade, turns and rows are used here too.
CACHE = runpy.run_path(str(Path(__file__).with_name("bench_cache.py")))
TITLE, COLUMNS = CACHE["TITLE"], CACHE["COLUMNS"]
# The network is as small as possible: reading is measured, not computing.
SIDE, STRIDE, CHANNELS = 28, 4, 96


def run(
    samples: int = 4096,
    batch_size: int = 32,
    repetitions: int = 5,
    epochs: int = 3,
) -> list[dict]:
    """Returns one row.

    Before the measurement both caches are filled and both trainings compiled,
    so that an epoch only reads.

    Args:
        samples: The number of maps. Defaults to `4096`.
        batch_size: The number of maps in a step. Defaults to `32`.
        repetitions: The number of turns. Defaults to `5`.
        epochs: The number of epochs of which a time is the median. Defaults
            to `3`.

    Returns:
        A row as `bench_cache` gives them.
    """
    import keras_cascade as kc

    network = _network()
    x, y = CACHE["images"](samples, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        caches = {
            "disk": kc.FeatureCache(folder, dtype="float16"),
            "memory": kc.FeatureCache(dtype="float16"),
        }
        trainings = {
            name: _Training(network, cache, x, y, batch_size)
            for name, cache in caches.items()
        }
        ways = {
            name: lambda training=training: training.seconds(epochs)
            for name, training in trainings.items()
        }
        times = CACHE["in_turns"](ways, repetitions)
    shape = " × ".join(map(str, network.outputs[0].shape[1:]))
    name = f"an epoch on {samples:,} maps of {shape}, float16, by memory"
    return [CACHE["as_row"](name, times["disk"], times["memory"], 3.0)]


class _Training:
    """A cascade that trains a convolution on maps from a cache.

    Args:
        network: The network that computes the maps.
        cache: The cache of the maps, which is filled here.
        x: The images.
        y: The labels.
        batch_size: The number of maps in a step.
    """

    def __init__(
        self,
        network: "keras.Model",
        cache: "kc.FeatureCache",
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int,
    ):
        import keras

        self._cascade = CACHE["cascade"](
            network,
            adapters=keras.layers.Conv2D(16, 1, activation="relu"),
        )
        self._arguments: dict[str, Any] = {
            "x": x,
            "y": y,
            "batch_size": batch_size,
            "cache_features": cache,
            "verbose": 0,
        }
        self._cascade.fit(epochs=2, **self._arguments)

    def seconds(self, epochs: int) -> float:
        """Returns the median of the seconds of an epoch."""
        import keras

        begins: list[float] = []
        ends: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: begins.append(
                time.perf_counter()
            ),
            on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()),
        )
        self._cascade.fit(epochs=epochs, callbacks=[clock], **self._arguments)
        return float(np.median(np.subtract(ends, begins)))


def _network() -> "keras.Model":
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(
                CHANNELS, STRIDE, strides=STRIDE, activation="relu"
            ),
        ]
    )


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
