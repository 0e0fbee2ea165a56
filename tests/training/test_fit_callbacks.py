"""Checks the rates in the logs, and stages with other settings."""

import csv

import keras
import numpy as np
import pytest
from keras import callbacks, layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.training.rates.blockwise_optimizer import find_blockwise

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 5)).astype("float32")
Y = RNG.normal(size=(32, 2)).astype("float32")
RATES = {"upstream": 1e-3, "head": 2e-2}
UPSTREAM, HEAD = "learning_rate/upstream", "learning_rate/head"


def cascade_of(optimizer=None, rates=RATES, **arguments):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, activation="tanh", name="low"),
            layers.Dense(4, activation="tanh", name="high"),
        ]
    )
    return kc.build_cascade(
        network,
        head=layers.Dense(2, name="out"),
        optimizer=optimizer or optimizers.Adam(0.01),
        loss="mse",
        learning_rates=rates,
        **arguments,
    )


def fit(cascade, epochs=4, **arguments):
    arguments = {"verbose": 0, "batch_size": 16, **arguments}
    return cascade.fit(X, Y, epochs=epochs, **arguments).history


def test_the_history_has_the_rate_of_each_block_and_0_while_it_is_frozen():
    history = fit(cascade_of(), unfreeze={2: "upstream"})
    assert list(history) == ["loss", UPSTREAM, HEAD]
    np.testing.assert_allclose(history[UPSTREAM], [0, 0, 1e-3, 1e-3])
    np.testing.assert_allclose(history[HEAD], [2e-2] * 4, rtol=1e-6)


def test_without_rates_and_stages_the_history_is_that_of_keras():
    assert list(fit(cascade_of(rates=None), 1)) == ["loss"]


def test_the_parts_of_a_divided_block_are_named_by_their_patterns():
    rates = {"upstream/low": 1e-4, "head": 1e-3}
    history = fit(cascade_of(rates=rates, trainable=True), 1)
    assert history["learning_rate/upstream/low"] == pytest.approx([1e-4])
    assert history[UPSTREAM] == pytest.approx([1e-2])
    assert history[HEAD] == pytest.approx([1e-3])


def test_a_decayed_block_shows_the_rate_of_its_top():
    rates = {"upstream": kc.LayerwiseDecay(1e-3, 0.1)}
    history = fit(cascade_of(rates=rates, trainable=True), 1)
    assert history[UPSTREAM] == pytest.approx([1e-3])


def test_learning_rate_scheduler_scales_what_the_history_shows():
    scheduler = callbacks.LearningRateScheduler(lambda epoch: 0.01 / 2**epoch)
    history = fit(cascade_of(trainable=True), 3, callbacks=[scheduler])
    assert history[UPSTREAM] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    assert history[HEAD] == pytest.approx([2e-2, 1e-2, 5e-3])
    assert history["learning_rate"] == pytest.approx([0.01, 0.005, 0.0025])


def test_reduce_on_plateau_scales_them_from_the_next_epoch():
    plateau = callbacks.ReduceLROnPlateau(
        "loss", factor=0.1, patience=1, min_delta=10.0, min_lr=0.0
    )
    history = fit(cascade_of(trainable=True), 4, callbacks=[plateau])
    assert history[UPSTREAM] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_csv_logger_writes_a_column_for_each_block(tmp_path):
    logger = callbacks.CSVLogger(tmp_path / "log.csv")
    fit(cascade_of(), unfreeze={2: "upstream"}, callbacks=[logger])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row[UPSTREAM]) for row in rows] == pytest.approx(
        [0, 0, 1e-3, 1e-3]
    )


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="Keras's TensorBoard needs TensorFlow"
)
def test_tensorboard_gets_a_curve_for_each_block(tmp_path):
    """Reads TFRecords, whose payloads are protocol buffers."""
    import tensorflow as tf

    board = callbacks.TensorBoard(tmp_path, write_graph=False)
    fit(cascade_of(trainable=True), 2, callbacks=[board])
    files = [str(file) for file in (tmp_path / "train").glob("events*")]
    tags = {
        value.tag
        for record in tf.data.TFRecordDataset(files)
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
    }
    assert {f"epoch_{UPSTREAM}", f"epoch_{HEAD}"} <= tags


def test_a_callback_list_of_the_user_works_too():
    cascade = cascade_of(trainable=True)
    given = callbacks.CallbackList([], add_history=True, model=cascade)
    for _ in range(2):
        assert fit(cascade, 1, callbacks=given)[UPSTREAM][-1:] == pytest.approx(
            [1e-3]
        )
    assert len(given.callbacks) == 4


def test_a_rate_for_layers_that_never_train_is_warned_of_by_name():
    with pytest.warns(
        UserWarning, match="'upstream' a rate, and nothing of it"
    ):
        fit(cascade_of(), 1)


def test_a_warm_up_reaches_the_rate_of_each_block():
    """The rate by hand is linear over 4 steps, then constant."""
    warm_up = optimizers.schedules.CosineDecay(
        0.0, 10**9, warmup_target=0.01, warmup_steps=4
    )
    cascade = cascade_of(optimizers.SGD(warm_up), trainable=True)
    history = fit(cascade, 3, batch_size=32)
    assert history[UPSTREAM] == pytest.approx([2.5e-4, 5e-4, 7.5e-4], rel=1e-5)
    assert history[HEAD] == pytest.approx([5e-3, 1e-2, 1.5e-2], rel=1e-5)


def first_move(cascade):
    """Returns how far the kernel moves in the step at which it joins."""
    kernel = cascade.blocks["upstream"].get_layer("high").kernel
    before = np.array(ops.convert_to_numpy(kernel))
    moved = []

    class Watch(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            moved.append(np.abs(ops.convert_to_numpy(kernel) - before))

    return moved, Watch()


def test_stages_work_with_loss_scaling():
    """Keras scales the loss, and Adam's first step is its rate."""
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        cascade = cascade_of()
    finally:
        keras.config.set_dtype_policy(with_policy)
    assert find_blockwise(cascade.optimizer) is not cascade.optimizer
    moved, watch = first_move(cascade)
    fit(
        cascade,
        3,
        batch_size=32,
        unfreeze={2: "upstream"},
        callbacks=[watch],
    )
    assert not moved[1].any()
    np.testing.assert_allclose(np.median(moved[2]), 1e-3, rtol=0.01)


def test_stages_work_with_accumulated_gradients():
    """Two batches a step: nothing at the first, the rate at the second."""
    optimizer = optimizers.Adam(0.01, gradient_accumulation_steps=2)
    cascade = cascade_of(optimizer)
    moved, watch = first_move(cascade)
    fit(
        cascade,
        4,
        batch_size=32,
        unfreeze={2: "upstream"},
        callbacks=[watch],
    )
    assert not moved[2].any()
    np.testing.assert_allclose(np.median(moved[3]), 1e-3, rtol=0.01)


def test_stages_work_with_averages_of_weights():
    """With use_ema the weights end as their averages, frozen ones as they were.

    By hand: the average starts at the first value and moves by a tenth.
    """
    optimizer = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    cascade = cascade_of(optimizer, rates=None)
    kernel = cascade.blocks["head"].get_layer("out").kernel
    low = cascade.blocks["upstream"].get_layer("low").kernel
    frozen = np.array(ops.convert_to_numpy(low))
    seen = []

    class Watch(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(np.array(ops.convert_to_numpy(kernel)))

    fit(
        cascade,
        3,
        batch_size=32,
        unfreeze={1: "upstream/high"},
        callbacks=[Watch()],
    )
    average = seen[0]
    for value in seen[1:]:
        average = 0.9 * average + 0.1 * value
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), average, atol=1e-6)
    assert np.abs(seen[-1] - average).max() > 1e-3
    np.testing.assert_array_equal(ops.convert_to_numpy(low), frozen)


def test_a_file_between_stages_keeps_the_scale_of_the_loss(tmp_path):
    """Training continues bit by bit, in float16 as well."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        cascade = cascade_of()
    finally:
        keras.config.set_dtype_policy("float32")
    arguments = {"shuffle": False, "unfreeze": {2: "upstream"}}
    fit(cascade, 2, unfreeze={1: "upstream/high"}, shuffle=False)
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    for model in (cascade, loaded):
        fit(model, 4, initial_epoch=2, **arguments)
    for one, other in [
        *zip(cascade.variables, loaded.variables, strict=True),
        *zip(
            cascade.optimizer.variables, loaded.optimizer.variables, strict=True
        ),
    ]:
        np.testing.assert_array_equal(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other)
        )


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's"
)
def test_stages_work_with_a_distribution_strategy():
    """One replica: the losses of the same fit without a strategy."""
    import tensorflow as tf

    arguments = {"unfreeze": {1: "upstream/high"}, "shuffle": False}
    expected = fit(cascade_of(), 3, **arguments)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        cascade = cascade_of()
    history = fit(cascade, 3, **arguments)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    assert history[UPSTREAM] == expected[UPSTREAM]
