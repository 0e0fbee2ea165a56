"""Compares build_cascade with clone_model and set_weights on two networks."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

SIZE = 96
WIDTH = 128
# Two inner maps and the output of each.
TAPS = {
    "MobileNetV3Small": ("expanded_conv_2_add", "expanded_conv_7_add", "-1"),
    "EfficientNetV2B0": ("block2b_add", "block4c_add", "-1"),
    "ResNet50V2": ("conv3_block2_out", "conv4_block3_out", "-1"),
    "VGG16": ("block2_pool", "block4_pool", "-1"),
}


def run(
    taps: Mapping[str, Sequence[str]] = TAPS, pairs: int = 7, size: int = SIZE
) -> list[dict]:
    """Returns a row for each network.

    Args:
        taps: The upstreams, Keras applications, with their taps. Defaults to
            `TAPS`.
        pairs: The number of pairs of times, taken in turns after a pair that
            does not count. Defaults to `7`.
        size: Height and width of the images. Defaults to `SIZE`.

    Returns:
        Rows with `name`, the medians `ours_s` and `reference_s`, `ratio` (the
        median of the pairs' ratios), its `bound` as text, and whether it
        `holds`.
    """
    import keras

    rows = []
    for name, paths in taps.items():
        keras.utils.clear_session()
        upstream = _upstream(name, size)
        downstream = _downstream(WIDTH)
        times = _interleaved(
            lambda up=upstream, down=downstream, at=paths: _build(up, down, at),
            lambda up=upstream, down=downstream: _clone(up, down),
            pairs,
        )
        rows.append(_row(name, times))
    return rows


def _upstream(name: str, size: int) -> "keras.Model":
    import keras

    application = getattr(keras.applications, name)
    return application(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )


def _downstream(width: int) -> "keras.Model":
    import keras

    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ],
        name="downstream",
    )


def _build(
    upstream: "keras.Model", downstream: "keras.Model", paths: Sequence[str]
) -> Any:
    import keras_cascade as kc

    return kc.build_cascade(
        upstream, downstream, taps=list(paths), preprocess=None
    )


def _clone(*networks: "keras.Model") -> list:
    import keras

    clones = []
    for network in networks:
        clone = keras.models.clone_model(network)
        clone.set_weights(network.get_weights())
        clones.append(clone)
    return clones


def _interleaved(
    ours: Callable[[], Any], reference: Callable[[], Any], pairs: int
) -> list[tuple[float, float]]:
    """Times both in turns; each is first in every other pair."""
    times = []
    for number in range(pairs + 1):
        if number % 2:
            other, own = _seconds(reference), _seconds(ours)
        else:
            own, other = _seconds(ours), _seconds(reference)
        times.append((own, other))
    return times[1:]


def _seconds(action: Callable[[], Any]) -> float:
    import keras

    # Collects garbage too, so that neither pays for what the other left.
    keras.utils.clear_session()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _row(name: str, times: Sequence[tuple[float, float]]) -> dict:
    ratio = statistics.median(ours / other for ours, other in times)
    return {
        "name": f"build {name}, 3 taps, by clone_model + set_weights",
        "ours_s": statistics.median(ours for ours, _ in times),
        "reference_s": statistics.median(other for _, other in times),
        "ratio": ratio,
        "bound": "at most 2",
        "holds": ratio <= 2,
    }


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
