"""Tests that slots are loaded by path, into whatever is trained now."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 5)).astype("float32")
Y = RNG.integers(0, 3, 32)
LOSS = "sparse_categorical_crossentropy"
OPTIMIZERS = {
    "Adam": lambda: optimizers.Adam(0.02),
    "averages": lambda: optimizers.AdamW(
        0.02, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3
    ),
    "accumulation": lambda: optimizers.SGD(
        0.1, momentum=0.9, gradient_accumulation_steps=3
    ),
    "begins at 0.1": lambda: optimizers.Adagrad(0.05),
    "scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.02), initial_scale=8.0, dynamic_growth_steps=7
    ),
    "gaps": lambda: optimizers.Muon(0.02),
}


def build(optimizer="Adam", head="head"):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((5,), name="f")
    x = layers.Dense(4, "tanh", name="d")(x)
    x = layers.Dense(4, "tanh", name="e")(x)
    if head is not None:
        head = layers.Dense(3, "softmax", name=head)
    return kc.build_cascade(
        keras.Model(inputs, x),
        head=head,
        optimizer=OPTIMIZERS[optimizer](),
        trainable={"upstream/e": True},
        loss=LOSS,
    )


def fit(cascade, until, since=0, stage=2, **arguments):
    stages = {stage: "upstream"} if stage < until else None
    cascade.fit(
        *(X, Y, 8, until, 0),
        shuffle=False,
        initial_epoch=since,
        unfreeze=stages,
        **arguments,
    )


def weights(cascade):
    return [ops.convert_to_numpy(v) for v in cascade.variables]


def assert_same(cascade, reference):
    scales = [
        float(ops.convert_to_numpy(x.optimizer.dynamic_scale))
        for x in (cascade, reference)
        if hasattr(x.optimizer, "dynamic_scale")
    ]
    assert scales[1:] == scales[:1]
    for one, other in zip(weights(cascade), weights(reference), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def load(cascade, path):
    """Loads weights as Keras's guide does, and no warning is tolerated."""
    if not cascade.optimizer.built:
        cascade.optimizer.build(cascade.trainable_variables)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cascade.load_weights(path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_file_of_a_later_stage_continues_as_if_nothing_had_happened(
    tmp_path, optimizer
):
    reference, one, other = (build(optimizer) for _ in range(3))
    fit(reference, 5)
    path = tmp_path / "{epoch}.weights.h5"
    saving = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    fit(one, 3, callbacks=[saving])
    load(other, tmp_path / "3.weights.h5")
    fit(other, 5, since=3)
    assert_same(other, reference)
    one.freeze("upstream/d")  # and back to before the stage
    load(one, tmp_path / "1.weights.h5")
    fit(one, 5, since=1)
    assert_same(one, reference)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("a.keras", {}), ("a.weights.json", {"max_shard_size": 1e-6})],
)
def test_other_files_with_slots_continue_too(tmp_path, name, arguments):
    reference, one, other = (build() for _ in range(3))
    fit(reference, 5)
    fit(one, 3)
    save = one.save_weights if arguments else one.save
    save(tmp_path / name, **arguments)
    load(other, tmp_path / name)
    fit(other, 5, since=3)
    assert_same(other, reference)


def test_as_many_slots_of_other_layers_are_not_mistaken(tmp_path):
    """A file in which `d` trained says nothing of `e`, of the same shape."""
    one, other, fresh = (build() for _ in range(3))
    one.freeze("upstream/e").unfreeze("upstream/d")
    fit(one, 2, stage=9)
    fit(other, 2, stage=9)
    one.save_weights(tmp_path / "a.weights.h5")
    load(other, tmp_path / "a.weights.h5")
    fresh.set_weights(one.get_weights())
    step = ops.convert_to_numpy(one.optimizer.iterations)
    assert ops.convert_to_numpy(other.optimizer.iterations) == step
    for cascade in (other, fresh):
        cascade.freeze("head")
        fit(cascade, 1, stage=9)
    # `e` begins as with a new Adam, whose first step has the full rate.
    assert_same(other, fresh)


def test_layers_that_are_not_there_are_named(tmp_path):
    one, other = build(head="first"), build(head=None)
    fit(one, 1, stage=9)
    one.save_weights(tmp_path / "a.weights.h5")
    other.optimizer.build(other.trainable_variables)
    with pytest.warns(UserWarning, match=r"slots of 'head/first/kernel'"):
        other.load_weights(tmp_path / "a.weights.h5")
    # Without its head, the cascade gives no probabilities.
    fit(other, 2, since=1, stage=9, check_values=False)


def test_an_optimizer_that_is_not_built_says_so(tmp_path):
    one, other = build(), build()
    fit(one, 1, stage=9)
    one.save_weights(tmp_path / "a.weights.h5")
    with pytest.warns(UserWarning, match="optimizer\\.build"):
        other.load_weights(tmp_path / "a.weights.h5")
