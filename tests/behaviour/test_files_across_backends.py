"""Tests that a file saved on one backend loads and trains on the others."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("tensorflow", "jax", "torch")
pytestmark = pytest.mark.interop

SETTING = """
import sys
import keras
import numpy as np
from keras import layers, ops
import keras_cascade as kc

draw = np.random.default_rng(0).normal
data = {
    "inputs": draw(size=(32, 8, 8, 1)).astype("float32"),
    "side": draw(size=(32, 2)).astype("float32"),
}
y = np.arange(32) % 3

def results(model, name):
    np.save(f"{name}_predictions.npy", model.predict(data, verbose=0))

def train(model):
    model.fit(data, y, batch_size=8, shuffle=False, verbose=0)

def slots(model, name):
    values = [ops.convert_to_numpy(v) for v in model.optimizer.variables]
    np.savez(f"{name}_slots.npz", *values)
"""

SAVE = """
x = inputs = keras.Input((8, 8, 1))
x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
x = layers.BatchNormalization(name="norm")(x)
x = layers.GlobalAveragePooling2D(name="pool")(x * 2.0)
upstream = keras.Model(inputs, layers.Dense(8, name="features")(x))
downstream = keras.Sequential([
    keras.Input((9,)), layers.Dense(3, "softmax", name="out")
], name="expert")
cascade = kc.build_cascade(
    upstream,
    downstream,
    taps={"map": "norm", "vector": "features"},
    adapters={"map": kc.adapters.PCAAdapter(3, whiten=True), "vector": 4},
    extra_inputs={"side": (2,)},
    trainable={
        "upstream/conv": kc.LoRA(2, alpha=8),
        "upstream/features": True,
    },
    learning_rates={
        "upstream": 1e-3,
        "downstream": keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5),
    },
    retention={
        "upstream": kc.EWC(1.0, data["inputs"]),
        "downstream": kc.LwF(0.5),
    },
    optimizer=keras.optimizers.AdamW(1e-2, global_clipnorm=1.0),
    loss="sparse_categorical_crossentropy",
).adapt(data, verbose=False)
train(cascade)
name = keras.backend.backend()
cascade.save(f"{name}.keras")
cascade.to_plain().save(f"{name}_plain.keras")
results(cascade, name)
slots(cascade, name)
train(cascade)
results(cascade, f"{name}_trained_on")
"""

LOAD = """
for source in sys.argv[1:]:
    name = f"{source}_on_{keras.backend.backend()}"
    loaded = keras.models.load_model(f"{source}.keras")
    results(loaded, name)
    slots(loaded, name)
    rates = loaded.learning_rates()
    assert abs(rates["upstream/features/kernel"] - 1e-3) < 1e-9, rates
    assert abs(rates["adapters/vector/kernel"] - 1e-2) < 1e-9, rates
    late = rates["downstream/out/kernel"]
    assert abs(late - 0.05 * 0.5 ** (4 / 3)) < 1e-7, rates
    train(loaded)
    results(loaded, f"{name}_trained_on")
    plain = keras.models.load_model(f"{source}_plain.keras")
    results(plain, f"{name}_plain")
"""


def run(backend: str, folder: Path, code: str, *arguments: str):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", SETTING + code, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns the folder of each backend's files and the others' results."""
    folder = tmp_path_factory.mktemp("files")
    for backend in BACKENDS:
        run(backend, folder, SAVE)
    for backend in BACKENDS:
        run(backend, folder, LOAD, *(b for b in BACKENDS if b != backend))
    return folder


PAIRS = [(a, b) for a in BACKENDS for b in BACKENDS if a != b]


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("plain", ["", "_plain"])
def test_a_file_gives_the_same_predictions(folder, source, target, plain):
    expected = np.load(folder / f"{source}_predictions.npy")
    found = folder / f"{source}_on_{target}{plain}_predictions.npy"
    spread = expected.std(axis=0).max()
    assert spread > 1e-2
    np.testing.assert_allclose(np.load(found), expected, atol=1e-5 * spread)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_optimizers_state_is_restored(folder, source, target):
    expected = np.load(folder / f"{source}_slots.npz")
    found = np.load(folder / f"{source}_on_{target}_slots.npz")
    assert len(expected.files) == len(found.files) > 10
    for name in expected.files:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_training_goes_on_as_on_the_backend_that_saved(folder, source, target):
    before = np.load(folder / f"{source}_predictions.npy")
    expected = np.load(folder / f"{source}_trained_on_predictions.npy")
    found = np.load(folder / f"{source}_on_{target}_trained_on_predictions.npy")
    spread = expected.std(axis=0).max()
    assert np.abs(expected - before).max() > 0.1 * spread
    np.testing.assert_allclose(found, expected, atol=1e-4 * spread)
