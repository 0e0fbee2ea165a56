"""Times rank_taps: every tap of MobileNetV2 beside one plain pass."""

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import psutil

if TYPE_CHECKING:
    import keras

TITLE = "Seconds, or GB of memory; the ratio is ours / reference"
COLUMNS = {
    "ours": "{ours_s:.4g}",
    "reference": "{reference_s:.4g}",
    "ratio": "{ratio:.3g}",
    "bound": "{bound}",
}
BATCH_SIZE = 32
CLASSES = 10
# Of all taps, so many have a pass of their own, at equal distances.
SINGLE = 8
BOUND_GB = 2.0
INTERVAL_S = 0.01


def run(
    samples: int = 512,
    size: int = 96,
    streamed: int = 2560,
    streamed_size: int = 32,
) -> list[dict]:
    """Returns a row for each bound.

    Args:
        samples: The number of images. Defaults to `512`.
        size: Height and width of the images. Defaults to `96`.
        streamed: The number of images that are streamed, and then twice as
            many: more than are kept. Defaults to `2560`.
        streamed_size: The size of those. Defaults to `32`.
    """
    import keras_cascade as kc

    network, (x, y) = settled(size), images(samples, size)
    # The first pass compiles.
    network.predict(x, BATCH_SIZE, verbose=0)
    plain = _seconds(lambda: network.predict(x, BATCH_SIZE, verbose=0))
    with _Peak() as peak:
        start = time.perf_counter()
        ranking = kc.rank_taps(network, (x, y), preprocess=None)
        every = time.perf_counter() - start
    paths = [row.path for row in ranking.rows]
    some = paths[:: max(len(paths) // SINGLE, 1)]
    single = sum(
        _seconds(
            lambda p=p: kc.rank_taps(network, (x, y), [p], preprocess=None)
        )
        for p in some
    )
    name = f"all {len(paths)} taps, {samples} images"
    few = _streamed_gb(streamed, streamed_size)
    many = _streamed_gb(2 * streamed, streamed_size)
    return [
        _row(f"{name}, by 2 plain passes + 10 s", every, 2 * plain + 10, 1.0),
        _row(
            f"{name}, by a pass a tap, from {len(some)} of them",
            every,
            single / len(some) * len(paths),
            1 / 20,
        ),
        _row(f"{name}: peak memory, GB", peak.gb, BOUND_GB, 1.0),
        _row(
            f"{2 * streamed} streamed by {streamed}: peak memory, GB",
            many,
            few,
            1.1,
        ),
    ]


def _row(name: str, ours: float, reference: float, bound: float) -> dict:
    return {
        "name": name,
        "ours_s": ours,
        "reference_s": reference,
        "ratio": ours / reference,
        "bound": f"at most {bound:g}",
        "holds": ours / reference <= bound,
    }


def _seconds(call: object) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _streamed_gb(samples: int, size: int) -> float:
    """Returns the peak of memory while a stream of images is ranked."""
    import keras_cascade as kc

    network = settled(size)

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for seed in range(-(-samples // BATCH_SIZE)):
            yield images(BATCH_SIZE, size, seed)

    with _Peak() as peak:
        kc.rank_taps(network, stream(), scores=["knn"], preprocess=None)
    return peak.gb


class _Peak:
    """The peak of this process's memory.

    All of it: what an earlier call returned may be taken again.
    """

    def __enter__(self) -> "_Peak":
        self._process = psutil.Process()
        self._peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def gb(self) -> float:
        """The peak in GB."""
        return self._peak / 1e9

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL_S):
            self._peak = max(self._peak, self._process.memory_info().rss)


def settled(size: int) -> "keras.Model":
    """Returns MobileNetV2 with random weights, settled on images.

    One pass in training mode makes the moving statistics those of the images:
    else features would hardly depend on them. It keeps all that is computed,
    so it takes few images: what they take would count as ranking's memory.
    """
    import keras

    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2((size, size, 3), weights=None)
    kind = keras.layers.BatchNormalization
    norms = [layer for layer in network.layers if isinstance(layer, kind)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    network(images(BATCH_SIZE // 2, size)[0], training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return network


def images(
    count: int, size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images in [-1, 1], and their classes."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(-1, 1, (count, size, size, 3)).astype("float32")
    return x, np.arange(count) % CLASSES
