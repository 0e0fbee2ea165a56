"""Measures the memory of a training that caches features on a disk."""

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

    import keras_cascade as kc

TITLE = "Anonymous memory in GB, above that of the model after one batch"
COLUMNS = {
    "peak": "{peak_gb:.3f}",
    "features": "{features_gb:.3f}",
    "bound": "{bound}",
}
STATUS = Path("/proc/self/status")
GB = 10**9
# A map of 1 MiB a sample in float32.
SIDE, CHANNELS = 64, 64
SAMPLE_BYTES = SIDE * SIDE * CHANNELS * 4
BOUND_GB = 1.5
# Room for the other files in the folder, and for the rest of the disk.
SPARE = 1.05
INTERVAL_S = 0.005


def run(
    gigabytes: float = 4.0,
    batch_size: int = 32,
    epochs: int = 2,
    directory: str = tempfile.gettempdir(),
) -> list[dict]:
    """Returns a row for each epoch.

    The data are computed batch by batch and take no memory. Memory-mapped
    files are not anonymous memory: the system may free them at any time.

    Args:
        gigabytes: The least size of the features. Defaults to `4.0`.
        batch_size: The number of samples in a step. Defaults to `32`.
        epochs: The number of epochs; the first writes features, the others
            read them. Defaults to `2`.
        directory: The folder in which a folder for the features is made and
            removed. Defaults to the system's folder for temporary files.

    Returns:
        Rows with `name`; `peak_gb`, the peak of anonymous memory up to the end
        of that epoch, less that after one batch; `features_gb`, the size of
        the files; `bound` as text, and whether it `holds`.

    Raises:
        RuntimeError: If the system does not report anonymous memory, or the
            files have another size than the features.
        OSError: If the disk has no room for the features.
    """
    _check_told()
    batches = math.ceil(gigabytes * GB / SAMPLE_BYTES / batch_size)
    needed = batches * batch_size * SAMPLE_BYTES
    _check_room(directory, needed)
    data = _data(batches, batch_size)
    cascade = _cascade()
    cascade.train_on_batch(*data[0])
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        peaks = _fit(cascade, data, folder, epochs)
        written = _bytes_in(Path(folder))
    if written < needed:
        raise RuntimeError(
            f"{written:,} bytes were written, and {needed:,} were to be."
        )
    return [_row(epoch, peak, written) for epoch, peak in enumerate(peaks)]


# The measurements


def _fit(
    cascade: "kc.Cascade",
    data: "keras.utils.PyDataset",
    folder: str,
    epochs: int,
) -> list[int]:
    """Trains, and returns the peak in bytes up to the end of each epoch."""
    import keras

    import keras_cascade as kc

    peaks: list[int] = []
    before = _anonymous()
    with _peak() as peak:

        def note(epoch: int, logs: object) -> None:
            peaks.append(peak[0] - before)

        cascade.fit(
            data,
            epochs=epochs,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note)],
            cache_features=kc.FeatureCache(folder),
            verbose=0,
        )
    return peaks


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Yields a list whose one entry is the peak so far, kept by a thread."""
    peak, done = [_anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL_S):
            peak[0] = max(peak[0], _anonymous())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _anonymous() -> int:
    """Returns the anonymous memory of this process, in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} does not tell of anonymous memory.")


def _bytes_in(folder: Path) -> int:
    return sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())


def _row(epoch: int, peak: int, features: int) -> dict:
    what = "writes" if epoch == 0 else "reads"
    return {
        "name": f"up to the end of epoch {epoch + 1}, which {what} features",
        "peak_gb": peak / GB,
        "features_gb": features / GB,
        "bound": f"below {BOUND_GB}",
        "holds": peak < BOUND_GB * GB,
    }


# The model, and the data


def _cascade() -> "kc.Cascade":
    """Returns a cascade of a frozen convolution and a small trainable head."""
    import keras

    import keras_cascade as kc

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Conv2D(CHANNELS, 3, padding="same", activation="relu"),
        ]
    )
    return kc.build_cascade(
        network,
        adapters=keras.layers.Conv2D(4, 8, strides=8),
        head=10,
        preprocess=None,
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
    )


def _data(batches: int, batch_size: int) -> "keras.utils.PyDataset":
    import keras

    class Made(keras.utils.PyDataset):
        """Batches that are computed from their indices."""

        @property
        def num_batches(self) -> int:
            return batches

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            rng = np.random.default_rng(index)
            shape = (batch_size, SIDE, SIDE, 3)
            x = rng.random(shape, dtype="float32")
            return x, rng.integers(0, 10, batch_size).astype("int32")

    return Made()


# Requirements


def _check_told() -> None:
    if not STATUS.is_file():
        raise RuntimeError(
            f"Anonymous memory is read from {STATUS}, which Linux alone has."
        )


def _check_room(directory: str, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < SPARE * needed:
        raise OSError(
            f"{needed / GB:.3g} GB of features are written in '{directory}', "
            f"whose disk has {free / GB:.3g} GB free. Ask for fewer gigabytes, "
            "or name a directory with more room."
        )


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
