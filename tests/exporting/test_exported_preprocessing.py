"""Preprocessing in exported files is that of keras.applications."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="SavedModel and .tflite are written by TensorFlow",
)
# A module for each mode; efficientnet's networks do their own.
MODULES = ["mobilenet_v2", "densenet", "resnet", "efficientnet"]
PIXELS = (
    np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype("float32")
)


def network(size):
    x = keras.Input((size, size, 3), name="image")
    y = layers.Conv2D(4, 3, activation="tanh", name="conv")(x)
    return keras.Model(x, layers.GlobalAveragePooling2D(name="pool")(y))


@pytest.fixture(scope="module")
def networks():
    # Other weights may saturate each tanh of a network that takes raw pixels.
    keras.utils.set_random_seed(0)
    return {module: network(12) for module in MODULES} | {"small": network(8)}


@pytest.fixture(scope="module")
def cascade(networks):
    """Networks that disagree, and one of another size, share one image."""
    return kc.build_cascade(
        networks,
        taps={name: f"{name}/pool" for name in networks},
        inputs=dict.fromkeys(networks, "pixels"),
        preprocess={name: name for name in MODULES} | {"small": None},
        fusion=None,
    )


@pytest.fixture(scope="module")
def expected(networks):
    """Answers of each network to the pixels as its module preprocesses them."""
    found = {}
    for module in MODULES:
        applications = importlib.import_module(f"keras.applications.{module}")
        prepared = applications.preprocess_input(PIXELS.copy())
        found[module] = networks[module].predict(prepared, verbose=0)
    resized = keras.ops.image.resize(PIXELS, (8, 8), antialias=True)
    found["small"] = networks["small"].predict(resized, verbose=0)
    return found


def saved_model(cascade, path):
    import tensorflow as tf

    path = path.with_suffix("")
    cascade.export(path, verbose=False)
    loaded = tf.saved_model.load(str(path))
    results = loaded.signatures["serving_default"](pixels=tf.constant(PIXELS))
    return {name: x.numpy() for name, x in results.items()}


def litert(cascade, path):
    from ai_edge_litert.interpreter import Interpreter

    cascade.export(path, verbose=False)
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    return runner(pixels=PIXELS)


@pytest.mark.parametrize("write_and_run", [saved_model, litert])
def test_a_file_preprocesses_as_the_applications_do(
    write_and_run, cascade, expected, tmp_path
):
    found = write_and_run(cascade, tmp_path / "file.tflite")
    for name, values in expected.items():
        spread = values.std(axis=0).max()
        assert spread > 1e-2
        assert np.abs(found[name] - values).max() < 1e-4 * spread, name
