"""Cached training on several devices is training on them without a cache."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

# Trains twice on two devices, which a processor is told to stand for. Prints
# the losses and answers without and with a cache, and the rows computed.
CHILD = """
import json, warnings
import keras
import numpy as np
from keras import layers
import keras_cascade as kc
from keras_cascade.cache.compiled import CompiledModel

warnings.filterwarnings("error", message="cache_features")
draw = np.random.default_rng(0)
images = draw.normal(size=(44, 8, 8, 1)).astype("float32")
labels = np.digitize(images.mean(axis=(1, 2, 3)), [-0.05, 0.05])

def cascade():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.BatchNormalization(momentum=0.0, name="norm")(x)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    network = keras.Model(inputs, x)
    network(images, training=True)
    return kc.build_cascade(
        network, head=3, loss="sparse_categorical_crossentropy",
        optimizer=keras.optimizers.SGD(0.5, momentum=0.9),
    )

given, call = [], CompiledModel.__call__
def counted(self, inputs):
    found = call(self, inputs)
    given.append([len(x) for x in (*inputs.values(), *found.values())])
    return found
CompiledModel.__call__ = counted

def train(cached):
    model = cascade()
    history = model.fit(
        images, labels, validation_data=(images[:10], labels[:10]),
        batch_size=12, epochs=3, shuffle=False, verbose=0, **cached,
    )
    answers = model.predict(images, batch_size=12, verbose=0, **cached)
    return {**history.history, "answers": answers.tolist()}

def both():
    return [train({}), train({"cache_features": True})]

if keras.config.backend() == "tensorflow":
    import tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    alone = cascade
    def cascade():
        with strategy.scope():
            return alone()
    found = both()
    with strategy.scope():
        found += both()
else:
    import jax
    assert len(jax.devices()) == 2
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    found = both()
print(json.dumps([found, given]))
"""


@pytest.mark.large
@pytest.mark.skipif(
    keras.config.backend() == "torch",
    reason="Keras distributes nothing on torch",
)
def test_on_two_devices():
    run = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    trainings, given = json.loads(run.stdout.splitlines()[-1])
    first = trainings[0]
    assert np.std(first["answers"]) > 1e-2
    for found in trainings[1:]:
        assert found.keys() == first.keys()
        for name, expected in first.items():
            np.testing.assert_allclose(
                found[name], expected, rtol=1e-5, atol=1e-5, err_msg=name
            )
    # The devices shared the rows of each batch: none was computed by both.
    assert given
    assert all(len(set(rows)) == 1 for rows in given)
