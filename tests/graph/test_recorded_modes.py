"""Calls that record `training`, such as those of Monte Carlo dropout."""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.graph.flattening import as_program

layers = keras.layers
ONES = np.ones((4, 500), "float32")


def dropping():
    """A network that drops in every plain call."""
    inputs = keras.Input((500,))
    outputs = layers.Dropout(0.5, name="drop")(inputs, training=True)
    return keras.Model(inputs, outputs, name="dropping")


def calling(mode, inner):
    """A network that calls another one in a mode."""
    inputs = keras.Input((500,))
    return keras.Model(inputs, inner(inputs, training=mode), name="around")


def plain_dropout():
    inputs = keras.Input((500,))
    return keras.Model(inputs, layers.Dropout(0.5, name="drop")(inputs))


NETWORKS = {
    "recorded": dropping,
    "nested": lambda: calling(None, dropping()),
    "nested, recorded outside": lambda: calling(True, plain_dropout()),
    "nested, recorded otherwise": lambda: calling(False, dropping()),
    "not recorded": plain_dropout,
}
MODES = {"plain call": {}, "on": {"training": True}, "off": {"training": False}}


def drops(model, **mode):
    """Whether a call drops: each value is then 0 or 2."""
    found = keras.ops.convert_to_numpy(model(ONES, **mode))
    assert set(np.unique(found)) in ({0.0, 2.0}, {1.0})
    return 0.0 in found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_frozen_drops_as_the_network_does(network, mode):
    network = NETWORKS[network]()
    cascade = kc.build_cascade(network, adapters=None, trainable=True)
    expected = drops(network, **MODES[mode])
    assert drops(cascade, **MODES[mode]) == expected


def test_a_file_and_every_copy_drop_as_well(tmp_path):
    cascade = kc.build_cascade(dropping(), adapters=None, trainable=True)
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    copies = again, again.rebuild(), again.to_plain(), kc.truncate(again, "-1")
    assert all(map(drops, copies))


@pytest.mark.parametrize("network", NETWORKS)
def test_frozen_does_not_drop(network):
    network = NETWORKS[network]()
    cascade = kc.build_cascade(network, adapters=None)
    for model in (cascade, cascade.to_plain(), kc.truncate(cascade, "-1")):
        assert not drops(model)
    assert not drops(cascade, training=True)
    assert drops(cascade.rebuild(trainable=True)) == drops(network)


def test_an_exported_program_does_not_drop():
    cascade = kc.build_cascade(dropping(), adapters=None, trainable=True)
    (found,) = as_program(cascade)(keras.ops.convert_to_tensor(ONES)).values()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), ONES)


def drop_between_layers():
    inputs = keras.Input((500,))
    x = layers.Dense(500, kernel_initializer="identity")(inputs)
    x = layers.Dropout(0.5, name="drop")(x, training=True)
    x = layers.Dense(500, kernel_initializer="identity")(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("mode", MODES)
def test_the_trainable_part_drops_as_the_cascade_does(mode):
    cascade = kc.build_cascade(
        drop_between_layers(), adapters=None, trainable={"upstream/drop": True}
    )
    expected = drops(cascade, **MODES[mode])
    frozen, trainable = kc.split(cascade)
    features = frozen(ONES)
    (found,) = features.values()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), ONES)
    found = keras.ops.convert_to_numpy(trainable(features, **MODES[mode]))
    assert (0.0 in found) == expected == (mode != "off")


def test_frozen_features_do_not_drop_where_they_are_cached():
    cascade = kc.build_cascade(
        drop_between_layers(),
        head=[layers.Dense(500, kernel_initializer="identity")],
    )
    frozen, _ = kc.split(cascade)
    (found,) = frozen(ONES).values()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), ONES)


def test_augmentation_does_not_run_in_a_plain_call():
    # Keras records its default, which the network's author did not write.
    inputs = keras.Input((4, 4, 1))
    outputs = layers.RandomTranslation(0.5, 0.5, "constant")(inputs)
    network = keras.Model(inputs, outputs)
    cascade = kc.build_cascade(network, adapters=None, trainable=True)
    images = np.random.default_rng(0).normal(size=(8, 4, 4, 1))
    images = images.astype("float32")
    found = keras.ops.convert_to_numpy(cascade(images))
    np.testing.assert_array_equal(found, images)
    (found,) = as_program(cascade)(
        keras.ops.convert_to_tensor(images), training=None
    ).values()
    found = keras.ops.convert_to_numpy(found)
    np.testing.assert_array_equal(found, images)
