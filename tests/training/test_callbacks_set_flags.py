"""Tests that flags which callbacks set count from the next step or epoch on.

The reference is a stock model that is trained in two fits, compiled again
between them; plain SGD has no slots that this would lose.
"""

import keras
import numpy as np
import pytest
from keras import ops

import keras_cascade as kc
from tests.small_training import LOSS, X, Y, small_head, small_network

EPOCHS, CHANGED = 4, 2


def build(trainable, **arguments):
    return kc.build_cascade(
        small_network(),
        head=small_head(),
        optimizer=keras.optimizers.SGD(0.1),
        loss=LOSS,
        trainable={"upstream": trainable},
        **arguments,
    )


def stock(trainable):
    body = small_network()
    top = small_head()
    for layer in body.layers:
        layer.trainable = trainable
    return keras.Model(body.input, top(body.output))


def fit(model, until=EPOCHS, since=0, **arguments):
    if not isinstance(model, kc.Cascade):
        model.compile(keras.optimizers.SGD(0.1), LOSS)
    return model.fit(
        *(X, Y, 8, until, 0),
        shuffle=False,
        initial_epoch=since,
        **arguments,
    )


def assert_same(cascade, reference):
    for variable in reference.variables:
        path = variable.path  # a cascade's begins with the block
        own = next(v for v in cascade.variables if v.path.endswith(path))
        np.testing.assert_allclose(
            ops.convert_to_numpy(own),
            ops.convert_to_numpy(variable),
            atol=1e-6,
            err_msg=path,
        )


def layer_flags(value):
    def act(cascade):
        for layer in cascade.blocks["upstream"].layers:
            layer.trainable = value

    return act


def block_flag(value):
    def act(cascade):
        cascade.blocks["upstream"].trainable = value

    return act


def unfreeze(cascade):
    cascade.unfreeze("upstream")


def freeze(cascade):
    cascade.freeze("upstream")


class Acts(keras.callbacks.Callback):
    """Does something once, in a hook of the epoch before the change."""

    def __init__(self, act, hook):
        super().__init__()
        self.act, self.epoch = act, -1
        setattr(self, hook, self.now)
        self.due = CHANGED if hook == "on_epoch_begin" else CHANGED - 1
        self.hook = hook

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def now(self, epoch=None, logs=None):
        if self.hook == "on_epoch_begin":
            self.epoch = epoch
        if self.act is not None and self.epoch == self.due:
            self.act(self.model)
            self.act = None


HOOKS = [
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_epoch_end",
]
CASES = [
    *((unfreeze, False, hook) for hook in HOOKS),
    (freeze, True, "on_train_batch_end"),
    (layer_flags(True), False, "on_train_batch_end"),
    (layer_flags(False), True, "on_epoch_begin"),
    (block_flag(False), True, "on_train_batch_begin"),
    (block_flag(False), True, "on_epoch_end"),
]


@pytest.mark.filterwarnings("ignore:cache_features. nothing")
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("act", "trainable", "hook"), CASES)
def test_flags_count_from_an_epoch_on(act, trainable, hook, cached):
    cascade, reference = build(trainable), stock(trainable)
    validation = {"validation_data": (X, Y)} if "test" in hook else {}
    callbacks = [Acts(act, hook)]
    fit(cascade, callbacks=callbacks, cache_features=cached, **validation)
    fit(reference, CHANGED)
    for layer in reference.layers[:-1]:
        layer.trainable = not trainable
    fit(reference, since=CHANGED)
    assert_same(cascade, reference)
    fit(cascade, EPOCHS + 1, since=EPOCHS)  # which trains by the same flags
    fit(reference, EPOCHS + 1, since=EPOCHS)
    assert_same(cascade, reference)


def test_what_is_set_before_training_counts_for_its_first_epoch():
    cascade, reference = build(False), build(True)

    class Begins(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.unfreeze("upstream")

    fit(cascade, 2, callbacks=[Begins()])
    fit(reference, 2)
    assert_same(cascade, reference)


def test_the_last_of_several_changes_counts():
    """Layers have the flags of the step while an epoch runs."""
    cascade, reference = build(False), build(False)
    seen = []

    class Changes(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pattern = "upstream/high" if batch else "upstream"
            change = (unfreeze, freeze, unfreeze)[batch]
            change(self.model)
            self.model.freeze(pattern) if batch == 2 else None
            seen.append(len(self.model.trainable_variables))

    fit(cascade, 1, callbacks=[Changes()])
    fit(reference, 1)
    assert seen == [2, 2, 2]
    assert_same(cascade, reference)
    names = {v.path for v in cascade.trainable_variables}
    assert {"upstream/low/kernel", "upstream/norm/gamma"} < names
    assert "upstream/high/kernel" not in names
    fit(cascade, 1)


@pytest.mark.filterwarnings("ignore:unfreeze.2. = 'upstream' changes nothing")
def test_a_stage_that_follows_still_unfreezes():
    """What a callback froze is what a stage of the same epoch unfreezes."""
    cascade, reference = build(True), build(True)
    fit(
        cascade,
        3,
        callbacks=[Acts(freeze, "on_train_batch_end")],
        unfreeze={CHANGED: "upstream"},
    )
    fit(reference, 3)
    assert_same(cascade, reference)
    names = {v.path for v in cascade.trainable_variables}
    assert "upstream/high/kernel" in names


def test_low_rank_updates_stay_alone_in_what_trains():
    cascade = build(kc.LoRA(2))
    names = [v.path for v in cascade.trainable_variables]
    fit(cascade, 3, callbacks=[Acts(freeze, "on_train_batch_end")])
    assert [v.path for v in cascade.trainable_variables] == names[-2:]
    fit(cascade, 3, callbacks=[Acts(unfreeze, "on_train_batch_end")])
    assert {v.path for v in cascade.trainable_variables} >= set(names)
    assert "upstream/low/kernel" not in names


def test_an_optimizer_that_cannot_take_up_weights_says_so():
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    )
    cascade = build(False)
    cascade.compile(optimizer, LOSS)
    with pytest.raises(ValueError, match="Compile again"):
        fit(cascade, callbacks=[Acts(unfreeze, "on_train_batch_end")])
