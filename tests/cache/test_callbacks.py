"""Callbacks see the cascade and one training, whatever is cached."""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.cache.callbacks import SegmentedCallbacks
from keras_cascade.cache.storage.disk import DiskStore


def test_a_checkpoint_is_a_whole_cascade(compiled, images, labels, tmp_path):
    path = tmp_path / "cascade.keras"
    arguments = {"batch_size": 11, "verbose": 0, "shuffle": False}
    saves = keras.callbacks.ModelCheckpoint(path)
    cascade, other = compiled(), compiled()
    cascade.fit(
        images,
        labels,
        epochs=2,
        cache_features=True,
        callbacks=[saves],
        **arguments,
    )
    again = keras.saving.load_model(path)
    assert isinstance(again, kc.Cascade)
    keras.utils.set_random_seed(4)
    going_on = again.fit(images, labels, initial_epoch=2, epochs=4, **arguments)
    # Momentum is among what is saved: without it the losses differ.
    other.fit(images, labels, epochs=2, **arguments)
    keras.utils.set_random_seed(4)
    expected = other.fit(images, labels, initial_epoch=2, epochs=4, **arguments)
    if keras.config.backend() != "torch":  # whose dropout has no state to save
        np.testing.assert_allclose(
            going_on.history["loss"], expected.history["loss"], rtol=1e-4
        )
    slots = [v for v in again.optimizer.variables if "momentum" in v.path]
    assert any(np.abs(slot.numpy()).max() > 0 for slot in slots)


def test_a_checkpoint_in_the_middle_of_an_epoch(
    compiled, images, labels, tmp_path
):
    class Saves(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self.model.save(tmp_path / "middle.keras")

    cascade = compiled()
    cascade.fit(
        images,
        labels,
        batch_size=8,
        epochs=2,
        verbose=0,
        cache_features=True,
        callbacks=[Saves()],
    )
    again = keras.saving.load_model(tmp_path / "middle.keras")
    assert [v.path for v in again.variables] == [
        v.path for v in cascade.variables
    ]


def test_early_stopping_stops_and_restores(compiled, images, labels):
    stops = keras.callbacks.EarlyStopping(
        "loss", patience=1, min_delta=10.0, restore_best_weights=True
    )
    cascade = compiled()
    history = cascade.fit(
        images,
        labels,
        epochs=20,
        verbose=0,
        cache_features=True,
        callbacks=[stops],
    )
    assert len(history.epoch) == 2 and stops.stopped_epoch == 1


def test_training_begins_and_ends_once(compiled, images, labels):
    seen = []

    class Watches(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append("begin")

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(epoch)

        def on_train_end(self, logs=None):
            seen.append("end")

    cascade = compiled()
    cascade.fit(
        images,
        labels,
        epochs=4,
        verbose=0,
        cache_features=True,
        unfreeze={2: "upstream/conv2.."},
        callbacks=[Watches()],
    )
    assert seen == ["begin", 0, 1, 2, 3, "end"]


def test_features_are_of_weights_that_a_callback_loads_first(
    compiled, images, labels, network, computed
):
    other = compiled(network(seed=8))

    class Loads(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.set_weights(other.get_weights())

    cascade, live = compiled(), compiled()
    for one, cache in ((cascade, True), (live, False)):
        keras.utils.set_random_seed(3)
        one.fit(
            images,
            labels,
            batch_size=8,
            epochs=2,
            verbose=0,
            shuffle=False,
            cache_features=cache,
            callbacks=[Loads()],
        )
    for one, same in zip(cascade.weights, live.weights, strict=True):
        np.testing.assert_allclose(
            one.numpy(), same.numpy(), rtol=1e-5, atol=1e-5
        )


class StoppedError(Exception):
    pass


class Interrupts(keras.callbacks.Callback):
    def __init__(self, epoch, batch=None):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise StoppedError

    def on_epoch_end(self, epoch, logs=None):
        if self.at == (epoch, None):
            raise StoppedError


@pytest.mark.parametrize(
    ("save_freq", "at"),
    [
        ("epoch", (2, 3)),
        (2, (1, 3)),
        pytest.param("epoch", (0, 3), marks=pytest.mark.large),
    ],
)
def test_backup_and_restore_resumes(
    compiled, images, labels, tmp_path, save_freq, at
):
    def run(cache, folder):
        arguments = {
            "batch_size": 8,
            "epochs": 5,
            "verbose": 0,
            "shuffle": False,
            "cache_features": cache and str(tmp_path / "features"),
            "unfreeze": {3: "upstream/conv2.."},
        }
        still = {"trainable": {"downstream/drop": False}}
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
        with pytest.raises(StoppedError):
            compiled(**still).fit(
                images,
                labels,
                callbacks=[backup, Interrupts(*at)],
                **arguments,
            )
        cascade = compiled(**still)
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
        history = cascade.fit(images, labels, callbacks=[backup], **arguments)
        return cascade, history

    live, expected = run(False, tmp_path / "live")
    cached, found = run(True, tmp_path / "cached")
    assert found.epoch == expected.epoch
    np.testing.assert_allclose(
        found.history["loss"], expected.history["loss"], rtol=1e-5
    )
    for one, same in zip(cached.weights, live.weights, strict=True):
        np.testing.assert_allclose(
            one.numpy(), same.numpy(), rtol=1e-5, atol=1e-5
        )


CHILD = """
import json, os, signal, sys
import keras
import numpy as np
import keras_cascade as kc
from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.frozen_part import FrozenPart

folder, model, data, after = sys.argv[1:]
cascade = keras.saving.load_model(model)
rows, compute = [], FrozenPart.compute
def counted(self, inputs, size):
    if after != "never" and len(rows) == int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    rows.append(len(next(iter(inputs.values()))))
    return compute(self, inputs, size)
FrozenPart.compute = counted
import keras_cascade.cache.feature_cache as feature_cache
import functools
# Small shards: some are finished when the process is killed.
feature_cache.DiskStore = functools.partial(
    feature_cache.DiskStore, shard_bytes=400
)
with np.load(data) as arrays:
    x, y = arrays["x"], arrays["y"]
keras.utils.set_random_seed(3)
history = cascade.fit(
    x, y, batch_size=8, epochs=2, verbose=0, cache_features=folder,
    shuffle=False,
)
print(json.dumps([sum(rows), history.history["loss"]]))
"""


def fit_in_a_process(folder, tmp_path, after="never"):
    names = [folder, tmp_path / "cascade.keras", tmp_path / "data.npz", after]
    return subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, names)],
        env={**os.environ, "KERAS_BACKEND": keras.config.backend()},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.large
def test_a_killed_fit_continues_from_its_finished_shards(
    compiled, images, labels, tmp_path
):
    compiled().save(tmp_path / "cascade.keras")
    np.savez(tmp_path / "data.npz", x=images, y=labels)
    undisturbed = fit_in_a_process(tmp_path / "whole", tmp_path)
    rows, losses = json.loads(undisturbed.stdout.splitlines()[-1])
    assert rows == len(images)
    for after in (3, 2):
        killed = fit_in_a_process(tmp_path / "killed", tmp_path, after)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        finished = snapshot(tmp_path / "killed")
        assert finished
    last = fit_in_a_process(tmp_path / "killed", tmp_path)
    assert last.returncode == 0, last.stderr
    again, found = json.loads(last.stdout.splitlines()[-1])
    assert found == pytest.approx(losses, rel=1e-6)
    assert 0 < again < rows
    assert finished.items() <= snapshot(tmp_path / "killed").items()


def snapshot(folder):
    """The finished shards, by name: when they were written, and what."""
    return {
        x: (x.stat().st_mtime_ns, x.read_bytes())
        for x in folder.rglob("*.npy")
        if x.with_name(x.name.split(".")[0] + ".json").exists()
    }


@pytest.mark.large
def test_two_processes_share_a_folder(compiled, images, labels, tmp_path):
    compiled().save(tmp_path / "cascade.keras")
    np.savez(tmp_path / "data.npz", x=images, y=labels)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "both")]
    names = [tmp_path / "cascade.keras", tmp_path / "data.npz", "never"]
    both = [
        subprocess.Popen(
            [*command, *map(str, names)],
            env={**os.environ, "KERAS_BACKEND": keras.config.backend()},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    found = [json.loads(x.communicate()[0].splitlines()[-1]) for x in both]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)
    assert sorted(rows for rows, _ in found) == [0, len(images)]


@pytest.mark.large
def test_a_process_that_only_reads_does_not_wait(
    compiled, images, labels, tmp_path
):
    folder = tmp_path / "read"
    cascade = compiled()
    cascade.save(tmp_path / "cascade.keras")
    np.savez(tmp_path / "data.npz", x=images, y=labels)
    cascade.fit(images, labels, batch_size=8, verbose=0, cache_features=folder)
    with DiskStore(folder).writing():
        found = fit_in_a_process(folder, tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1])[0] == 0


ON_JAX = keras.config.backend() == "jax"


class Loss:
    """Stands for what a step of JAX gives: it tells if it was waited for."""

    def __init__(self) -> None:
        self.waited_for = False

    def block_until_ready(self) -> "Loss":
        self.waited_for = True
        return self


@pytest.mark.skipif(not ON_JAX, reason="the others run no step behind Python")
def test_a_step_is_waited_for_when_four_have_begun_after_it():
    callbacks = SegmentedCallbacks([], model=keras.Sequential())
    losses = [Loss() for _ in range(10)]

    callbacks.on_train_begin()
    for step, loss in enumerate(losses):
        callbacks.on_train_batch_end(step, {"loss": loss})
    callbacks.end_training()

    assert [loss.waited_for for loss in losses] == [True] * 6 + [False] * 4
