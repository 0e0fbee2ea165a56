"""Compares PCAAdapter with scikit-learn's IncrementalPCA: time and memory."""

import os
import statistics
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np

WIDTH, COMPONENTS = 1280, 64
PAIRS = 3


def run() -> list[dict]:
    """Returns a row for each bound.

    Returns:
        Rows with `name`, `ours_s`, `reference_s`, `ratio` (ours / reference),
        its `bound` as text, and whether it `holds`. In the row on memory the
        two are MiB at 20,000 and at 5,000 rows.
    """
    return [_time_row(), _memory_row()]


def _time_row() -> dict:
    features = _features(20_000, np.random.default_rng(0))
    pairs = [(_ours(features), _reference(features)) for _ in range(PAIRS)]
    ratio = statistics.median(ours / other for ours, other in pairs)
    return {
        "name": "pca 20,000 x 1,280 -> 64 by IncrementalPCA(512)",
        "ours_s": statistics.median(ours for ours, _ in pairs),
        "reference_s": statistics.median(other for _, other in pairs),
        "ratio": ratio,
        "bound": "at most 1/6",
        "holds": ratio <= 1 / 6,
    }


def _memory_row() -> dict:
    many, few = _peak_mib(20_000), _peak_mib(5_000)
    return {
        "name": "pca peak MiB, 20,000 by 5,000 rows",
        "ours_s": many,
        "reference_s": few,
        "ratio": many / few,
        "bound": "at most 1.02",
        "holds": many / few <= 1.02,
    }


def _ours(features: np.ndarray) -> float:
    from keras_cascade.adapters import PCAAdapter

    start = time.perf_counter()
    PCAAdapter(COMPONENTS).adapt(features)
    return time.perf_counter() - start


def _reference(features: np.ndarray) -> float:
    from sklearn.decomposition import IncrementalPCA

    start = time.perf_counter()
    IncrementalPCA(n_components=COMPONENTS, batch_size=512).fit(features)
    return time.perf_counter() - start


def _peak_mib(rows: int) -> float:
    """Returns the peak of allocated memory while adapting to a stream."""
    from keras_cascade.adapters import PCAAdapter

    tracemalloc.start()
    PCAAdapter(COMPONENTS).adapt(_stream(rows))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def _stream(rows: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(rows // 500):
        yield _features(500, rng)


def _features(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Returns features of falling variance along the axes, with a mean."""
    spread = np.geomspace(1.0, 0.01, WIDTH, dtype="float32")
    normal = rng.standard_normal((rows, WIDTH), dtype="float32")
    return normal * spread + np.float32(3.0)


def main() -> None:
    """Prints the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "ours", "reference", "ratio", "bound", "holds")
    for row in run():
        figures = [row[key] for key in ("ours_s", "reference_s", "ratio")]
        table.add_row(
            row["name"],
            *(f"{figure:.3f}" for figure in figures),
            row["bound"],
            "yes" if row["holds"] else "no",
        )
    Console().print(table)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
