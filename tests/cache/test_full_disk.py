"""A real disk that is full, before a training and in the middle of one."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.cache.fingerprint import row_ids
from keras_cascade.cache.records import Record
from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.files import checked_text, read_checked

# Trains with nothing cached; on a disk that is full; that fills up; that has
# room again. Prints the losses, and what was warned of.
CHILD = """
import json, os, sys, warnings
from pathlib import Path
import keras
import numpy as np
import keras_cascade

folder, path, data = map(Path, sys.argv[1:])
images, labels = np.load(data)["x"], np.load(data)["y"]
ballast = folder / "ballast"

def fill(but=0):
    left = os.statvfs(folder)
    ballast.write_bytes(bytes(left.f_bavail * left.f_frsize - but))

class Fills(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1 and not ballast.exists():
            fill(but=100_000)

def fit(callbacks=(), cache=folder / "features"):
    cascade = keras.models.load_model(path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = cascade.fit(
            images, labels, batch_size=32, epochs=2, shuffle=False, verbose=0,
            callbacks=[*callbacks], cache_features=cache,
        )
    said = [str(w.message) for w in warned]
    said = [text for text in said if "cache_features" in text]
    files = [x.name for x in folder.rglob("*") if x.suffix in (".npy", ".tmp")]
    print(json.dumps([found.history["loss"], said, files]))

fit(cache=False)
fill()
fit()
ballast.unlink()
fit([Fills()])
ballast.unlink()
fit()
"""


@pytest.mark.large
def test_training_goes_on_when_the_disk_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    cascade, images, labels = large_features()
    cascade.save(tmp_path / "cascade.keras")
    np.savez(tmp_path / "data.npz", x=images, y=labels)
    files = [tmp_path / "cascade.keras", tmp_path / "data.npz"]
    mount = f"mount -t tmpfs -o size=8m tmpfs {disk} || exit 77; "
    done = subprocess.run(
        [
            *("unshare", "--mount", "--map-root-user", "sh", "-c"),
            f'{mount} exec "$@"',
            *("sh", sys.executable, "-c", CHILD, disk, *files),
        ],
        env={**os.environ, "KERAS_BACKEND": keras.config.backend()},
        capture_output=True,
        text=True,
    )
    if done.returncode in (77, 127) or "unshare" in done.stderr:
        pytest.skip(f"no small file system here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    live, full, filled, again = map(json.loads, done.stdout.splitlines())
    for losses, _, _ in (full, filled, again):
        assert losses == pytest.approx(live[0], rel=1e-5)
    assert "0 bytes are free on its disk" in " ".join(full[1])
    assert "Training goes on without the cache" in " ".join(filled[1])
    assert not full[2]
    assert not [x for x in filled[2] if x.endswith(".tmp")]
    assert not again[1]
    assert again[2]


def large_features():
    """A cascade whose features take 9 kB a sample, and 256 samples."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    network = keras.Model(inputs, layers.Conv2D(64, 3)(inputs))
    cascade = kc.build_cascade(
        network,
        taps="-1",
        adapters=layers.Flatten(),
        head=3,
        preprocess=None,
        optimizer="sgd",
        loss="sparse_categorical_crossentropy",
    )
    draw = np.random.default_rng(0)
    images = draw.normal(size=(256, 8, 8, 1)).astype("float32")
    return cascade, images, np.arange(256) % 3


def test_a_folder_that_is_removed_while_it_is_written(
    tmp_path, same_training, compiled, images, labels
):
    """The training goes on without it, after a warning."""
    folder = tmp_path / "features"

    class Removes(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                shutil.rmtree(folder, ignore_errors=True)

    with pytest.warns(UserWarning, match="was removed.*goes on without"):
        same_training(
            lambda: compiled(trainable={"downstream/drop": False}),
            *(images, labels),
            cache=folder,
            callbacks=[Removes()],
        )


@pytest.mark.parametrize("value", [3, [], {"a": 1}, {"pool2": [[-1], "x"]}])
def test_values_that_another_wrote_are_made_again(
    tmp_path, compiled, images, labels, computed, value
):
    folder = tmp_path / "features"
    for _ in range(2):
        compiled().fit(images, labels, verbose=0, cache_features=folder)
        for path in folder.glob("values/parts/*.json"):
            path.write_bytes(checked_text(value))
    assert sum(computed) == len(images)


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": [10**12]},
        {"sizes": [-1, 45]},
        {"sizes": 3},
        {"inputs": [3]},
        {"leaves": []},
        {"kinds": []},
        {"kinds": {"label 0": [[-1], "object"]}},
        {"key": "../../outside"},
        {"key": None},
    ],
)
def test_a_record_that_another_wrote_is_made_again(tmp_path, change):
    store = DiskStore(tmp_path)
    x, y = np.ones((4, 2), "float32"), np.arange(4)
    batch = (None, y, None)
    record = Record(store, ["x"], [])
    with store.writing():
        record.add({"x": row_ids(x)}, {}, batch)
        record.complete()
        record.save("records/a")
    assert Record.load(DiskStore(tmp_path), "records/a", batch).rows == 4
    path = tmp_path / "values/records/a.json"
    path.write_bytes(checked_text({**read_checked(path), **change}))
    assert Record.load(DiskStore(tmp_path), "records/a", batch) is None
