"""Features are read if nothing changed, and computed again if anything did."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

EVERYTHING = 44


@pytest.fixture
def fitted(tmp_path, compiled, images, labels, computed):
    """Function: fits on a folder; gives how many rows were computed."""

    def fitted(cascade=None, x=images, y=labels, **arguments):
        before = sum(computed)
        (cascade or compiled()).fit(
            x,
            y,
            batch_size=8,
            verbose=0,
            cache_features=str(tmp_path / "features"),
            **arguments,
        )
        return sum(computed) - before

    return fitted


@pytest.fixture
def known(fitted):
    """The same, where everything is there already."""
    assert fitted() == EVERYTHING
    assert fitted() == 0
    return fitted


def test_a_changed_weight(known, compiled):
    cascade = compiled()
    weight = cascade.blocks["upstream"].get_layer("conv2").kernel
    weight.assign(weight + 1e-6)
    assert known(cascade) == EVERYTHING


def test_a_changed_moment_of_batch_normalization(known, compiled):
    cascade = compiled()
    layer = cascade.blocks["upstream"].get_layer("norm2")
    layer.moving_mean.assign(layer.moving_mean + 1e-3)
    assert known(cascade) == EVERYTHING


def test_a_weight_after_the_cut_changes_nothing(known, compiled):
    cascade = compiled()
    kernel = cascade.blocks["downstream"].get_layer("hidden").kernel
    kernel.assign(kernel * 2)
    assert known(cascade) == 0


def test_a_changed_argument_of_a_layer(fitted, compiled, network, head):
    def cascade(slope):
        x = inputs = keras.Input((8, 8, 1), name="image")
        x = network().get_layer("conv1")(x)
        x = layers.LeakyReLU(slope, name="leaky")(x)
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return compiled(keras.Model(inputs, x, name="network"), head(4))

    assert fitted(cascade(0.1)) == EVERYTHING
    assert fitted(cascade(0.1)) == 0
    assert fitted(cascade(0.2)) == EVERYTHING


def test_a_changed_preprocessing(known, compiled):
    def cascade(scale):
        return compiled(preprocess={"upstream": layers.Rescaling(scale)})

    assert known(cascade(0.5)) == EVERYTHING
    assert known(cascade(0.5)) == 0
    assert known(cascade(0.25)) == EVERYTHING


def test_changed_samples_alone_are_computed(known, images):
    changed = images.copy()
    changed[3, 0, 0, 0] += 1e-6
    changed[17] *= 2
    assert known(x=changed) == 2


@pytest.mark.parametrize("shuffle", [False, True])
def test_another_order_is_the_same(known, compiled, images, labels, shuffle):
    order = np.random.default_rng(7).permutation(len(images))
    still = {"trainable": {"downstream/drop": False}}
    cascade, other = compiled(**still), compiled(**still)
    assert known(cascade, images[order], labels[order], shuffle=shuffle) == 0
    keras.utils.set_random_seed(0)
    other.fit(
        images[order], labels[order], batch_size=8, verbose=0, shuffle=shuffle
    )
    if not shuffle:
        for one, same in zip(cascade.weights, other.weights, strict=True):
            np.testing.assert_allclose(one, same, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        *(
            c.predict(images, verbose=0, cache_features=f)
            for c, f in ((cascade, False), (cascade, True))
        ),
        atol=1e-6,
    )


def test_another_dtype_policy(known, compiled, network, head):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        cascade = compiled(network(), head(6))
    finally:
        keras.config.set_dtype_policy("float32")
    assert known(cascade) == EVERYTHING


def test_features_in_another_dtype(known, compiled, images, labels, tmp_path):
    cache = kc.FeatureCache(tmp_path / "features", dtype="float16")
    assert known() == 0
    sizes = folder_bytes(tmp_path)
    compiled().fit(images, labels, verbose=0, cache_features=cache)
    assert folder_bytes(tmp_path) > sizes


def folder_bytes(folder):
    return sum(x.stat().st_size for x in folder.rglob("*.npy"))


def test_other_names_are_the_same(known, compiled, network):
    assert known(compiled(network(name="other"))) == 0


def test_another_network_of_the_same_kind(known, compiled, network):
    assert known(compiled(network(seed=9))) == EVERYTHING


class Scaled(layers.Layer):
    """Has an argument that its config lacks, and counts its calls."""

    factor, calls = 2.0, 0

    def call(self, x):
        self.calls += 1
        return x * self.factor


@pytest.fixture
def scaled(compiled, head):
    """The same cascade, with the layer `scaled` in its network."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.GlobalAveragePooling2D()(Scaled(name="scaled")(inputs))
    cascade = compiled(keras.Model(inputs, x, name="network"), head(1))
    return cascade, cascade.blocks["upstream"].get_layer("scaled")


def test_an_attribute_that_is_set_on_a_layer(fitted, scaled):
    cascade, layer = scaled
    assert fitted(cascade) == EVERYTHING
    calls = layer.calls
    assert fitted(cascade) == 0
    layer.factor = 5.0
    assert fitted(cascade) == EVERYTHING
    del layer.factor
    assert fitted(cascade) == 0
    assert layer.calls > calls > 0


def test_an_attribute_that_a_callback_sets_is_an_error(fitted, scaled):
    cascade, layer = scaled

    def change(epoch, logs=None):
        layer.factor += 1.0

    callback = keras.callbacks.LambdaCallback(on_epoch_end=change)
    with pytest.raises(RuntimeError, match="A callback changed"):
        fitted(cascade, epochs=3, callbacks=[callback])


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="lookups are TensorFlow's"
)
def test_a_changed_vocabulary(fitted, compiled, head):
    x = inputs = keras.Input((3,), dtype="int32", name="numbers")
    x = layers.IntegerLookup(vocabulary=[7, 8, 9], name="lookup")(x)
    x = layers.Embedding(9, 4, name="embed")(x)
    network = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    cascade = compiled(network, head(4))
    lookup = cascade.blocks["upstream"].get_layer("lookup")
    data = {"x": np.arange(3 * EVERYTHING).reshape(-1, 3)}
    for words in ([7, 8, 9], [9, 8, 7]):
        lookup.set_vocabulary(words)
        assert fitted(cascade, **data) == EVERYTHING
        assert fitted(cascade, **data) == 0


CHILD = """
import json, sys
import keras
import numpy as np
import keras_cascade as kc

folder, model, data = sys.argv[1:]
cascade = keras.saving.load_model(model)
from keras_cascade.cache.frozen_part import FrozenPart
rows, compute = [], FrozenPart.compute
def counted(self, inputs, size):
    rows.append(len(next(iter(inputs.values()))))
    return compute(self, inputs, size)
FrozenPart.compute = counted
with np.load(data) as arrays:
    x, y = arrays["x"], arrays["y"]
cascade.fit(x, y, batch_size=8, verbose=0, cache_features=folder)
print(json.dumps(sum(rows)))
"""


def in_a_process(tmp_path, cascade, images, labels, backend=None):
    """How many rows another process computes, on some backend."""
    cascade.save(tmp_path / "cascade.keras")
    np.savez(tmp_path / "data.npz", x=images, y=labels)
    names = ("features", "cascade.keras", "data.npz")
    files = [str(tmp_path / name) for name in names]
    found = subprocess.run(
        [sys.executable, "-c", CHILD, *files],
        env={**os.environ, "KERAS_BACKEND": backend or keras.config.backend()},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


def test_another_process_reads_it_at_once(
    known, compiled, images, labels, tmp_path
):
    assert in_a_process(tmp_path, compiled(), images, labels) == 0


@pytest.mark.interop
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_another_backend(known, compiled, images, labels, tmp_path, backend):
    expected = 0 if backend == keras.config.backend() else EVERYTHING
    cascade = compiled()
    found = in_a_process(tmp_path, cascade, images, labels, backend)
    assert found == expected
