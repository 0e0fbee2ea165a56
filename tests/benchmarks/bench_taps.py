"""Times list_taps: every tap of a network with its cost, in one walk."""

import sys
import time
from collections.abc import Mapping

# The seconds of processor time that each network may take.
BOUNDS = {"MobileNetV3Small": 0.3, "ResNet152": 0.5, "chain of 1600": 2.0}
# Keras itself walks a chain by recursion.
_RECURSION = 20_000


def run(bounds: Mapping[str, float] = BOUNDS) -> list[dict]:
    """Returns a row for each network.

    Args:
        bounds: The bound of each network: a Keras application, or `chain of`
            a number of operations. Defaults to `BOUNDS`.

    Returns:
        Rows with `name`, the processor time `ours_s`, its bound
        `reference_s`, their `ratio`, its `bound` as text, and whether it
        `holds`.
    """
    import keras_cascade as kc

    sys.setrecursionlimit(_RECURSION)
    rows = []
    for name, bound in bounds.items():
        network = _network(name)
        start = time.process_time()
        taps = kc.list_taps(network)
        seconds = time.process_time() - start
        rows.append(
            {
                "name": f"list_taps, {name}: {len(taps)} taps",
                "ours_s": seconds,
                "reference_s": bound,
                "ratio": seconds / bound,
                "bound": "at most 1",
                "holds": seconds <= bound,
            }
        )
    return rows


def _network(name: str) -> object:
    import keras

    if not name.startswith("chain of "):
        return getattr(keras.applications, name)(weights=None)
    x = inputs = keras.Input((4,))
    for _ in range(int(name.removeprefix("chain of "))):
        x = keras.ops.add(x, 1.0)
    return keras.Model(inputs, x)


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    main()
