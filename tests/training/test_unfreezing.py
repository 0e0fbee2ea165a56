"""Compares fit(unfreeze=...) with the same stages done by hand.

By hand means stock Keras: a model that is compiled again for each stage, its
slots carried over, with one Adam a stage, so that what joins late starts with
an Adam of its own.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = RNG.integers(0, 3, 48)
BATCH = 16
RATE = 2e-2
# Epoch to what starts to train then, by the names of layers in the network.
TWO = {2: ["high"]}
THREE = {1: ["high"], 3: ["low", "norm", "drop"]}


def network():
    """Returns a network with weights, moments and random states."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, name="low")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation("tanh", name="act")(x)
    x = layers.Dropout(0.25, seed=3, name="drop")(x)
    x = layers.Dense(5, activation="tanh", name="high")(x)
    return keras.Model(inputs, x, name="encoder")


def cascade_of(optimizer=None, **arguments):
    keras.utils.set_random_seed(2)
    return kc.build_cascade(
        network(),
        head=3,
        optimizer=optimizer or optimizers.Adam(RATE),
        loss="sparse_categorical_crossentropy",
        **arguments,
    )


def patterns(stages):
    return {
        epoch: [f"upstream/{name}" for name in names]
        for epoch, names in stages.items()
    }


def fit(model, epochs, initial_epoch=0, **arguments):
    return model.fit(
        X,
        Y,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        epochs=epochs,
        initial_epoch=initial_epoch,
        **arguments,
    ).history["loss"]


class InItsMode(layers.Layer):
    """A frozen layer in inference mode, as the library promises."""

    def __init__(self, layer):
        super().__init__(name=f"frozen_{layer.name}")
        self.layer = layer

    def call(self, inputs, training=None):
        return self.layer(inputs, training=bool(training) and self.trains)


def by_hand(cascade, stages, epochs):
    """Returns the losses of stock models with one Adam for each stage."""
    model, wrapped = stock_model(cascade)
    starts = [0, *stages]
    joined = [["head"], *stages.values()]
    adams, losses = [], []
    for number, start in enumerate(starts):
        end = [*starts[1:], epochs][number]
        set_flags(
            wrapped, [name for some in joined[: number + 1] for name in some]
        )
        adams = [carried_over(adam) for adam in adams] + [
            (optimizers.Adam(RATE), None)
        ]
        compile_stage(model, adams, joined)
        losses += fit(model, end, start)
    return losses


def stock_model(cascade):
    encoder = network()
    wrapped = {x.name: InItsMode(x) for x in encoder.layers[1:]}
    wrapped["head"] = InItsMode(
        layers.Dense(3, activation="softmax", name="head")
    )
    x = inputs = keras.Input((6,))
    for layer in wrapped.values():
        layer.trains = False
        x = layer(x)
    head = cascade.blocks["head"].weights
    wrapped["head"].layer.set_weights([ops.convert_to_numpy(w) for w in head])
    return keras.Model(inputs, x), wrapped


def set_flags(wrapped, names):
    for name, layer in wrapped.items():
        layer.trains = layer.layer.trainable = name in names
        layer.trainable = name in names


def carried_over(adam):
    """Returns a new Adam, and the state that it needs."""
    old, _ = adam
    return optimizers.Adam(RATE), [
        np.array(ops.convert_to_numpy(v)) for v in old.variables
    ]


def compile_stage(model, adams, joined):
    chosen = {
        f".*{name}/.*": adam
        for (adam, _), names in zip(adams, joined, strict=False)
        for name in names
    }
    routed = optimizers.OptimizerMap(adams[0][0], chosen)
    optimizer = optimizers.MultiOptimizer(routed)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    optimizer.build(model.trainable_variables)
    for adam, state in adams:
        if state is not None:
            for variable, value in zip(adam.variables, state, strict=True):
                variable.assign(value)


@pytest.fixture(scope="module")
def references():
    """Returns the losses by hand, and weights and slots of one fit."""
    found = {}
    for name, stages in {"two": TWO, "three": THREE}.items():
        cascade = cascade_of()
        expected = by_hand(cascade, stages, 5)
        losses = fit(cascade, 5, unfreeze=patterns(stages))
        found[name] = expected, losses, state_of(cascade)
    return found


def state_of(cascade):
    variables = [*cascade.variables, *cascade.optimizer.variables]
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def assert_same(state, other):
    for value, wanted in zip(state, other, strict=True):
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("name", ["two", "three"])
def test_the_losses_are_those_of_the_stages_by_hand(references, name):
    expected, losses, _ = references[name]
    assert np.ptp(losses) > 0.05
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-6)


class KilledError(Exception):
    """Ends a process in the middle of an epoch."""


class Killer(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.when, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.when:
            raise KilledError


@pytest.mark.parametrize(
    ("name", "stages", "killed"),
    [("two", TWO, (3, 1)), ("three", THREE, (2, 0))],
)
def test_a_fit_killed_in_the_second_stage_resumes_to_the_same_result(
    references, name, stages, killed, tmp_path
):
    expected, _, state = references[name]
    backup = {
        "backup_dir": str(tmp_path / "backup"),
        "delete_checkpoint": False,
    }
    with pytest.raises(KilledError):
        fit(
            cascade_of(),
            5,
            unfreeze=patterns(stages),
            callbacks=[
                keras.callbacks.BackupAndRestore(**backup),
                Killer(*killed),
            ],
        )
    resumed = cascade_of()
    losses = fit(
        resumed,
        5,
        unfreeze=patterns(stages),
        callbacks=[keras.callbacks.BackupAndRestore(**backup)],
    )
    assert len(losses) == 5 - killed[0]
    np.testing.assert_allclose(losses, expected[killed[0] :], rtol=0, atol=1e-6)
    if name == "two":  # Where nothing random trained on in the killed epoch.
        assert_same(state_of(resumed), state)


def test_a_file_saved_between_stages_continues_bit_by_bit(references, tmp_path):
    """One stage is past and one is to come."""
    cascade = cascade_of(learning_rates={"upstream": 3e-3})
    path = tmp_path / "epoch_{epoch}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    stages = patterns(THREE)
    fit(cascade, 2, unfreeze={1: stages[1]}, callbacks=[checkpoint])
    loaded = keras.saving.load_model(tmp_path / "epoch_2.keras")
    losses = [fit(x, 5, 2, unfreeze={3: stages[3]}) for x in (cascade, loaded)]
    assert losses[0] == losses[1]
    assert_same(state_of(loaded), state_of(cascade))
    assert loaded.rates == {"upstream": 3e-3}


def test_a_file_saved_between_stages_reaches_the_losses_by_hand(
    references, tmp_path
):
    expected, stages = references["three"][0], patterns(THREE)
    cascade = cascade_of()
    fit(cascade, 2, unfreeze={1: stages[1]})
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    losses = fit(loaded, 5, 2, unfreeze={3: stages[3]})
    np.testing.assert_allclose(losses, expected[2:], rtol=0, atol=1e-6)


def test_a_custom_training_loop_continues_after_unfreezing():
    """The optimizer is extended without a fit in between."""
    cascade = cascade_of(optimizers.SGD(0.5))
    fit(cascade, 1)
    cascade.unfreeze("upstream/high")
    variables = cascade.trainable_variables
    before = [np.array(ops.convert_to_numpy(v)) for v in variables]
    gradients = [ops.ones(v.shape) for v in variables]
    cascade.optimizer.apply(gradients, variables)
    for old, new in zip(before, variables, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(new), old - 0.5)


def test_frozen_variables_do_not_move_to_the_bit_in_any_stage():
    cascade = cascade_of()
    frozen = {
        v.path: np.array(ops.convert_to_numpy(v))
        for v in cascade.blocks["upstream"].variables
    }
    assert "upstream/drop/seed_generator/seed_generator_state" in frozen
    moved = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            moved.append(
                {
                    v.path
                    for v in cascade.blocks["upstream"].variables
                    if (ops.convert_to_numpy(v) != frozen[v.path]).any()
                }
            )

    fit(cascade, 4, unfreeze=patterns(THREE), callbacks=[Watch()])
    high = {"upstream/high/kernel", "upstream/high/bias"}
    assert moved[:3] == [set(), high, high]
    assert moved[3] == set(frozen)


def adam_step(t, m, v):
    return np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)


def adamax_step(t, m, u):
    return m / ((1 - 0.9**t) * (u + 1e-7))


@pytest.mark.parametrize(
    ("optimizer", "slots", "step_by_hand"),
    [
        (optimizers.Adam(RATE), "_momentums _velocities", adam_step),
        (optimizers.AdamW(RATE, 0.0), "_momentums _velocities", adam_step),
        (optimizers.Adamax(RATE), "_m _u", adamax_step),
    ],
    ids=["Adam", "AdamW", "Adamax"],
)
def test_the_first_steps_of_a_late_block_are_at_its_rate(
    optimizer, slots, step_by_hand
):
    """The bias is corrected from its own first step, t = 1, 2, 3.

    At t = 1 the corrected moments of a gradient are the gradient itself, so
    every weight moves by the rate. By the count of the whole training it would
    be 0.52 of that here, and 3.15 times as much after some thousand steps.
    """
    rate = 3e-3
    cascade = cascade_of(optimizer, learning_rates={"upstream": rate})
    for _ in range(20):
        cascade.train_on_batch(X, Y)
    cascade.unfreeze("upstream/high")
    kernel = cascade.blocks["upstream"].get_layer("high").kernel
    for t in (1, 2, 3):
        before = np.array(ops.convert_to_numpy(kernel))
        cascade.train_on_batch(X, Y)
        step = before - ops.convert_to_numpy(kernel)
        wanted = rate * step_by_hand(t, *moments_of(cascade, kernel, slots))
        np.testing.assert_allclose(
            step, wanted, rtol=0, atol=1e-6 * rate + 6e-8
        )
        if t == 1:
            np.testing.assert_allclose(np.median(np.abs(step)), rate, rtol=1e-3)


def moments_of(cascade, variable, slots):
    known = cascade.optimizer.known_variables
    index = next(i for i, v in enumerate(known) if v is variable)
    inner = cascade.optimizer.inner_optimizer
    found = [getattr(inner, name)[index] for name in slots.split()]
    return [ops.convert_to_numpy(v).astype("float64") for v in found]


def test_callbacks_see_one_training():
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append("begin")

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(epoch)

        def on_train_end(self, logs=None):
            seen.append("end")

    cascade = cascade_of()
    stopping = keras.callbacks.EarlyStopping("loss", min_delta=10, patience=2)
    losses = fit(
        cascade, 9, unfreeze=patterns(TWO), callbacks=[Spy(), stopping]
    )
    assert seen == ["begin", 0, 1, 2, "end"]
    assert len(losses) == 3


def test_stages_before_the_first_epoch_apply_at_once():
    cascade = cascade_of()
    fit(cascade, 3, 2, unfreeze={0: "upstream/high", 1: "upstream/norm"})
    trained = {v.path for v in cascade.trainable_variables}
    assert {"upstream/high/kernel", "upstream/norm/gamma"} <= trained
    assert "upstream/low/kernel" not in trained


def test_slots_are_kept_through_freezing_and_unfreezing():
    """SGD with momentum by hand: a frozen weight keeps its velocity."""
    cascade = cascade_of(optimizers.SGD(0.1, momentum=0.9), trainable=True)
    fit(cascade, 1)
    slots = slots_of(cascade)
    cascade.freeze("upstream")
    fit(cascade, 1)
    for path, slot in slots_of(cascade).items():
        same = np.array_equal(slot, slots[path])
        assert same is path.startswith("upstream"), path
    cascade.unfreeze(["upstream/high", "upstream/low"])
    kernel = cascade.blocks["upstream"].get_layer("high").kernel
    before = np.array(ops.convert_to_numpy(kernel))
    velocity = slots["upstream/high/kernel"]
    cascade.train_on_batch(X, Y)
    moved = ops.convert_to_numpy(kernel) - before
    after = slots_of(cascade)["upstream/high/kernel"]
    gradient = (0.9 * velocity - after) / 0.1
    np.testing.assert_allclose(
        moved, 0.9 * velocity - 0.1 * gradient, atol=1e-6
    )
    assert np.abs(gradient).max() > 1e-3


def slots_of(cascade):
    optimizer = cascade.optimizer
    slots = optimizer.inner_optimizer.momentums
    return {
        v.path: np.array(ops.convert_to_numpy(slot))
        for v, slot in zip(optimizer.known_variables, slots, strict=True)
    }


def test_flags_changed_by_hand_take_effect_at_the_next_fit():
    cascade = cascade_of()
    fit(cascade, 1)
    layer = cascade.blocks["upstream"].get_layer("high")
    layer.trainable = True
    before = np.array(ops.convert_to_numpy(layer.kernel))
    cascade.train_on_batch(X, Y)
    between = np.array(ops.convert_to_numpy(layer.kernel))
    assert (before != between).any()
    layer.trainable = False
    fit(cascade, 2)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), between)


def test_a_rebuilt_cascade_has_the_flags_of_the_old_one():
    cascade = cascade_of().unfreeze("upstream/high").freeze("head")
    again = cascade.rebuild()
    assert [v.path for v in again.trainable_variables] == [
        "upstream/high/kernel",
        "upstream/high/bias",
    ]


def trained_by_epoch(cascade, epochs, recipe):
    found = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                names = [
                    v.path.split("/")[-2] for v in cascade.trainable_variables
                ]
                found.append(list(dict.fromkeys(names)))

    fit(cascade, epochs, unfreeze=recipe, callbacks=[Watch()])
    return found


def test_lp_ft_probes_first_and_trains_all_in_the_second_half():
    cascade = cascade_of(trainable=True)
    stages = trained_by_epoch(cascade, 5, "lp-ft")
    everything = ["low", "norm", "high", stages[0][-1]]
    assert [len(stage) for stage in stages] == [1, 1, 1, 4, 4]
    assert stages[-1] == everything


def test_gradual_unfreezes_from_the_top_with_each_epoch():
    cascade = cascade_of(trainable=True)
    stages = trained_by_epoch(cascade, 4, "gradual")
    head = stages[0][-1]
    assert stages == [
        [head],
        ["high", head],
        ["norm", "high", head],
        ["low", "norm", "high", head],
    ]


def test_gradual_groups_layers_if_there_are_fewer_epochs():
    stages = trained_by_epoch(cascade_of(), 3, "gradual")
    assert [len(stage) for stage in stages] == [1, 3, 4]


@pytest.mark.parametrize(
    ("unfreeze", "epochs", "message"),
    [
        ({5: "upstream"}, 5, "a stage at epoch 5, and training ends before"),
        ({-1: "upstream"}, 5, "epoch -1. Epochs are whole numbers"),
        ({True: "upstream"}, 5, "epoch True. Epochs are whole numbers"),
        ({1: "upstream/hihg"}, 5, "unfreeze\\[1\\] names 'upstream/hihg'"),
        ({2: {"head": False}}, 5, "would set 'head' to False. A stage only"),
        ("lp_ft", 5, "no recipe. There are 'lp-ft', 'gradual'"),
        ("gradual", 1, "needs at least 2 epochs"),
    ],
)
def test_bad_stages_are_refused_before_anything_trains(
    unfreeze, epochs, message
):
    cascade = cascade_of()
    before = state_of(cascade)
    with pytest.raises(ValueError, match=message):
        fit(cascade, epochs, unfreeze=unfreeze)
    assert_same(state_of(cascade), before)


@pytest.mark.parametrize("unfreeze", [["upstream"], {1: 3}, {1: []}])
def test_values_that_are_no_stages_are_refused(unfreeze):
    with pytest.raises(TypeError, match="unfreeze"):
        fit(cascade_of(), 3, unfreeze=unfreeze)


def test_lp_ft_needs_something_new_to_probe_with():
    cascade = kc.build_cascade(network(), optimizer="sgd", loss="mse")
    with pytest.raises(ValueError, match="no weights in adapters, fusion"):
        cascade.fit(X, X[:, :5], epochs=2, unfreeze="lp-ft", verbose=0)


def test_a_stage_that_changes_nothing_is_warned_of():
    with pytest.warns(UserWarning, match=r"unfreeze\[1\] = 'head' changes"):
        fit(cascade_of(), 2, unfreeze={1: "head"})


def test_an_optimizer_of_several_rates_is_refused():
    routed = optimizers.OptimizerMap(optimizers.Adam())
    cascade = cascade_of(optimizers.MultiOptimizer(routed))
    with pytest.raises(ValueError, match="an optimizer with one learning rate"):
        fit(cascade, 2, unfreeze={1: "upstream"})
    fit(cascade, 1)
    cascade.unfreeze("upstream")
    with pytest.raises(ValueError, match="Other weights train now"):
        fit(cascade, 1)


def test_freeze_names_a_pattern_that_matches_nothing():
    with pytest.raises(ValueError, match=r"freeze\(\) names 'downstream'"):
        cascade_of().freeze("downstream")
