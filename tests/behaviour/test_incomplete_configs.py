"""Frozen stays frozen after loading, whatever a layer's config leaves out."""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.incomplete_layers import (
    Ignoring,
    WithoutBase,
    describe,
    make_layer,
)


def cascade_of(kind):
    """Builds a cascade with the layer in every part of it."""
    inputs = keras.Input((4, 5))
    steps = keras.layers.TimeDistributed(make_layer(kind, "inner"), name="each")
    x = make_layer(kind, "trained")(steps(inputs))
    network = keras.Model(inputs, make_layer(kind, "frozen")(x))
    return kc.build_cascade(
        network,
        adapters=make_layer(kind, "adapter"),
        head=[make_layer(kind, "scores"), keras.layers.Dense(2)],
        trainable={"upstream/trained": True},
        learning_rates={"upstream/trained": 1e-2, "head/scores": 1e-4},
        loss="mse",
    )


@pytest.mark.parametrize("kind", [WithoutBase, Ignoring])
def test_loading_and_rebuilding_keep_flags_rates_and_slots(kind, tmp_path):
    cascade = cascade_of(kind)
    x = np.random.default_rng(0).normal(size=(8, 4, 5)).astype("float32")
    cascade.fit(x, np.ones((8, 4, 2)), verbose=0)
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    for other in (again, again.rebuild()):
        assert describe(other) == describe(cascade)
        assert other.learning_rates() == cascade.learning_rates()
    slots = [
        keras.ops.convert_to_numpy(variable)
        for model in (cascade, again)
        for variable in model.optimizer.variables
    ]
    half = len(slots) // 2
    for one, other in zip(slots[:half], slots[half:], strict=True):
        np.testing.assert_array_equal(one, other)
    before = [x.copy() for x in again.blocks["upstream"].get_weights()]
    again.fit(x, np.ones((8, 4, 2)), verbose=0)
    after = again.blocks["upstream"].weights
    moved = [
        variable.path
        for variable, old in zip(after, before, strict=True)
        if not np.array_equal(keras.ops.convert_to_numpy(variable), old)
    ]
    assert moved == ["upstream/trained/w"]
