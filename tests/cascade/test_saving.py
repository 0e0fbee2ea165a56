"""Tests that files of cascades are the old ones or the new ones."""

import os
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc

X, Y = np.ones((8, 6), "float32"), np.ones((8, 2), "float32")
POSIX = pytest.mark.skipif(os.name == "nt", reason="of POSIX file systems")


@pytest.fixture
def cascade():
    network = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="h")])
    return kc.build_cascade(network, head=2, optimizer="adam", loss="mse")


class Halts(layers.Layer):
    """Stops a save after the layers before it were written."""

    error: BaseException | None = None

    def call(self, inputs):
        return inputs

    def save_own_variables(self, store):
        if self.error is not None:
            raise self.error


def names(folder):
    return {path.name for path in folder.iterdir()}


def save(cascade, path):
    cascade.save(path)


def save_weights(cascade, path):
    cascade.save_weights(path)


def checkpoint(cascade, path):
    weights = path.suffix == ".h5"
    callback = keras.callbacks.ModelCheckpoint(path, save_weights_only=weights)
    cascade.fit(X, Y, verbose=0, callbacks=[callback])


def back_up(cascade, path):
    callback = keras.callbacks.BackupAndRestore(
        path.parent, delete_checkpoint=False
    )
    epochs = 1 + steps(cascade)  # more than those that it resumes after
    cascade.fit(X, Y, epochs=epochs, verbose=0, callbacks=[callback])


def steps(cascade):
    return int(ops.convert_to_numpy(cascade.optimizer.iterations))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (save, "one.keras"),
        (save_weights, "one.weights.h5"),
        (checkpoint, "one.keras"),
        (checkpoint, "one.weights.h5"),
        (back_up, "latest.weights.h5"),
    ],
)
@pytest.mark.parametrize("error", [OSError(28, "No space left"), SystemExit()])
def test_a_save_that_is_cut_short_leaves_the_earlier_file(
    tmp_path, write, name, error
):
    x = inputs = keras.Input((6,))
    x = layers.Dense(5, name="h")(x)
    halts = Halts(name="z")
    cascade = kc.build_cascade(
        keras.Model(inputs, halts(x)),
        copy=False,
        head=2,
        optimizer="sgd",
        loss="mse",
    )
    path = tmp_path / "files" / name
    write(cascade, path)
    before = path.read_bytes()
    halts.error = error
    with pytest.raises(type(error)):
        write(cascade, path)
    # An open one would crash the process in the end.
    open_files = h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE)
    assert not [x for x in open_files if b"WeightsFile" in x.name]
    assert path.read_bytes() == before
    halts.error = None
    write(cascade, path)
    assert names(path.parent) - {"training_metadata.json"} == {name}


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits a file's size"
)
@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_a_system_that_refuses_the_bytes_leaves_the_earlier_file(
    tmp_path, cascade, name
):
    import resource

    write = save_weights if name.endswith(".h5") else save
    write(cascade, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            write(cascade, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / name).read_bytes() == before
    assert names(tmp_path) == {name}


def test_weights_in_several_files_are_replaced_and_load(tmp_path, cascade):
    path = tmp_path / "w.weights.json"
    cascade.save_weights(path, max_shard_size=2e-7)
    cascade.fit(X, Y, verbose=0)
    cascade.save_weights(path, max_shard_size=2e-7)
    assert len(names(tmp_path)) > 2
    wanted = cascade.get_weights()
    cascade.set_weights([np.zeros_like(w) for w in wanted])
    cascade.load_weights(path)
    for one, other in zip(cascade.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@POSIX
def test_a_link_stays_a_link_and_its_file_keeps_its_mode(tmp_path, cascade):
    real, link = tmp_path / "epoch_1", tmp_path / "latest.keras"
    real.write_text("old")
    real.chmod(0o604)
    link.symlink_to(real)
    cascade.save(link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o604
    loaded = keras.saving.load_model(link)
    wanted, found = (ops.convert_to_numpy(x(X)) for x in (cascade, loaded))
    np.testing.assert_array_equal(found, wanted)


@POSIX
def test_a_device_is_written_to_and_not_replaced(tmp_path, cascade):
    (tmp_path / "full.keras").symlink_to(os.devnull)
    cascade.save(tmp_path / "full.keras")
    assert not Path(os.devnull).is_file()


def test_a_file_is_not_replaced_unless_the_user_agrees(
    tmp_path, cascade, monkeypatch
):
    path = tmp_path / "a.keras"
    path.write_text("old")
    monkeypatch.setattr("builtins.input", lambda _: "n")
    cascade.save(path, overwrite=False)
    assert path.read_text() == "old"
    monkeypatch.setattr("builtins.input", lambda _: "y")
    cascade.save(path, overwrite=False)
    assert path.read_bytes()[:2] == b"PK"


def fit_with_checkpoint(cascade, path):
    cascade.fit(X, Y, callbacks=[keras.callbacks.ModelCheckpoint(path)])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("c.h5", save),
        ("c.hdf5", save),
        ("c", save),
        ("c.tf", save),
        ("c.h5", fit_with_checkpoint),
        ("c.{epoch}.h5", fit_with_checkpoint),
        ("c.h5", lambda x, path: keras.saving.save_model(x, path)),
        ("c.h5", lambda x, path: x.blocks["upstream"].save(path)),
    ],
)
def test_what_could_not_be_loaded_is_refused(tmp_path, cascade, name, write):
    with pytest.raises(ValueError, match=r"\.keras"):
        write(cascade, tmp_path / name)
    if write in (save, fit_with_checkpoint):
        assert names(tmp_path) == set()
        assert steps(cascade) == 0  # before any training
