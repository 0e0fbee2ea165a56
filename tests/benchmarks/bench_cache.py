"""Times training on cached features: all epochs, and the first one."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

    import keras_cascade as kc

TITLE = "Seconds: the median, and the least; the ratio is the pairs' median"
COLUMNS = {
    "ours": "{ours_s:.4g} ({ours_least_s:.4g})",
    "reference": "{reference_s:.4g} ({reference_least_s:.4g})",
    "ratio": "{ratio:.3g}",
    "bound": "{bound}",
}
CLASSES = 10


class Times(NamedTuple):
    """The seconds of a training.

    Attributes:
        total: The seconds of all epochs.
        first: The seconds from the call of `fit` to the end of the first
            epoch.
    """

    total: float
    first: float


def run(
    samples: int = 4096,
    epochs: int = 10,
    size: int = 96,
    batch_size: int = 32,
    repetitions: int = 5,
) -> list[dict]:
    """Returns a row for each bound.

    Every training starts on new models, so that its time includes compiling.
    Trainings that are compared run one after the other, as the machine's speed
    varies over time: cached training between the limit and a live epoch. Live
    training of all epochs takes long and is measured once.

    Args:
        samples: The number of images. Defaults to `4096`.
        epochs: The number of epochs. Defaults to `10`.
        size: Height and width of the images. Defaults to `96`.
        batch_size: The number of images in a step. Defaults to `32`.
        repetitions: The number of times each way is measured. Defaults to `5`.

    Returns:
        Rows with `name`, the medians of the seconds `ours_s` and
        `reference_s`, the least of them `ours_least_s` and
        `reference_least_s`, `ratio` (the median of the repetitions' ratios),
        its `bound` as text, and whether it `holds`.
    """
    network = settled(size)
    x, y = images(samples, size)
    ways = {
        "limit": lambda: _by_hand(network, x, y, batch_size, epochs),
        "cached": lambda: _cached(network, x, y, batch_size, epochs),
        "live": lambda: _live(network, x, y, batch_size, 1),
    }
    times = in_turns(ways, repetitions)
    limit, cached, live = (times[name] for name in ways)
    whole = _live(network, x, y, batch_size, epochs)
    totals = f"{epochs} epochs of {samples:,} images"
    return [
        as_row(
            f"{totals}, by one predict and fit on its arrays",
            [t.total for t in cached],
            [t.total for t in limit],
            1.15,
        ),
        as_row(
            f"{totals}, by fit without a cache",
            [statistics.median(t.total for t in cached)],
            [whole.total],
            1.0,
        ),
        as_row(
            "the first epoch, by one without a cache",
            [t.first for t in cached],
            [t.first for t in live],
            1.10,
        ),
    ]


# The measurements


def _cached(
    network: "keras.Model", x: np.ndarray, y: np.ndarray, size: int, epochs: int
) -> Times:
    return _fit(cascade(network), x, y, size, epochs, cache_features=True)


def _live(
    network: "keras.Model", x: np.ndarray, y: np.ndarray, size: int, epochs: int
) -> Times:
    return _fit(cascade(network), x, y, size, epochs)


def _by_hand(
    network: "keras.Model", x: np.ndarray, y: np.ndarray, size: int, epochs: int
) -> Times:
    """Times the frozen part once, then the head on its features."""
    import keras

    frozen, head = _parts(network)
    start = time.perf_counter()
    features = frozen.predict(x, batch_size=size, verbose=0)
    predicted = time.perf_counter() - start
    model = keras.Sequential([keras.Input(features.shape[1:]), head])
    model.compile(**_compiling())
    times = _fit(model, features, y, size, epochs)
    return Times(predicted + times.total, predicted + times.first)


def _fit(
    model: "keras.Model",
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int,
    epochs: int,
    **arguments: Any,
) -> Times:
    import keras

    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    start = time.perf_counter()
    history = model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        callbacks=[clock],
        verbose=0,
        **arguments,
    )
    total = time.perf_counter() - start
    if not np.all(np.isfinite(history.history["loss"])):
        raise RuntimeError(f"Training gave {history.history['loss']}.")
    return Times(total, ends[0] - start)


# The models


def settled(size: int) -> "keras.Model":
    """Returns MobileNetV3Small without its top, settled on images.

    With random weights its outputs hardly depend on the input, unless the
    moments of its normalizations are those of images.
    """
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    norms = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    network(images(16, size)[0], training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return network


def cascade(network: "keras.Model", **changes: Any) -> "kc.Cascade":
    """Returns a cascade of the frozen network, pooled, and a trainable head.

    Args:
        network: The network.
        **changes: Other arguments of `build_cascade`.
    """
    import keras_cascade as kc

    arguments = {
        "taps": "-1",
        "head": CLASSES,
        "preprocess": None,
        **_compiling(),
    }
    return kc.build_cascade(network, **(arguments | changes))


def _parts(network: "keras.Model") -> tuple["keras.Model", "keras.Layer"]:
    """Returns the same by hand: the frozen model, and the head."""
    import keras

    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    pooled = keras.layers.GlobalAveragePooling2D()(clone.output)
    head = keras.layers.Dense(CLASSES, activation="softmax")
    return keras.Model(clone.input, pooled), head


def _compiling() -> dict[str, Any]:
    import keras

    return {
        "optimizer": keras.optimizers.Adam(1e-3),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }


# The data, and the rows


def images(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random pixels in [0, 255], and labels."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (count, size, size, 3)).astype("float32")
    return x, rng.integers(0, CLASSES, count).astype("int32")


def in_turns(
    ways: Mapping[str, Callable[[], Any]], repetitions: int
) -> dict[str, list[Any]]:
    """Returns the results of each way; every other turn is in reverse.

    The first call in a process takes longer, so the first turn does not count.
    """
    names = list(ways)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for repetition in range(repetitions + 1):
        for name in names if repetition % 2 else names[::-1]:
            found[name].append(ways[name]())
    return {name: given[1:] for name, given in found.items()}


def as_row(
    name: str, ours: Sequence[float], reference: Sequence[float], bound: float
) -> dict:
    """Returns the row of two ways that were measured in turns."""
    pairs = zip(ours, reference, strict=True)
    ratio = statistics.median(own / other for own, other in pairs)
    return {
        "name": name,
        "ours_s": statistics.median(ours),
        "reference_s": statistics.median(reference),
        "ours_least_s": min(ours),
        "reference_least_s": min(reference),
        "ratio": ratio,
        "bound": f"at most {bound:.2f}",
        "holds": ratio <= bound,
    }


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
