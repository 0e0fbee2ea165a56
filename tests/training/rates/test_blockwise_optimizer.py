"""Compares learning rates per block with NumPy and plain optimizers."""

import itertools
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import optimizers
from keras.optimizers import schedules

from keras_cascade.training.rates.block_rates import (
    resolve_reference_rate,
    validate_rate,
)
from keras_cascade.training.rates.blockwise_optimizer import (
    BlockwiseOptimizer,
    find_blockwise,
    with_block_rates,
)

BLOCKS = ("front", "back")
# fmt: off
ALL_OPTIMIZERS = [
    "SGD", "Adam", "AdamW", "Lion", "RMSprop", "Adagrad", "Adadelta", "Adamax",
    "Nadam", "Ftrl", "Adafactor", "Lamb", "Muon", "ScheduleFreeAdamW",
]
# fmt: on
X = np.random.default_rng(1).normal(size=(32, 5)).astype("float32")
Y = np.random.default_rng(2).normal(size=(32, 3)).astype("float32")


def _network(dtype=None):
    """Returns two linear blocks, whose gradients are easy by hand."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, name="front", dtype=dtype),
            keras.layers.Dense(3, name="back", dtype=dtype),
        ]
    )


def _compiled(optimizer, rates, dtype=None):
    model = _network(dtype)
    optimizer = with_block_rates(optimizer, rates)
    _route(model, optimizer)
    model.compile(optimizer, "mse")
    return model


def _route(model, optimizer):
    blockwise = find_blockwise(optimizer)
    blockwise.route({n: model.get_layer(n).variables for n in blockwise.rates})


def _fit(model, epochs=2, **kwargs):
    kwargs = {"batch_size": 8, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(X, Y, epochs=epochs, **kwargs)


def _gradients_by_hand(weights):
    """Returns the gradients of the mean squared error of the two blocks."""
    front, front_bias, back, back_bias = (w.astype("float64") for w in weights)
    hidden = X @ front + front_bias
    error = 2 * (hidden @ back + back_bias - Y) / Y.size
    of_hidden = error @ back.T
    return [X.T @ of_hidden, of_hidden.sum(0), hidden.T @ error, error.sum(0)]


def _variables(shapes=((4, 3), (3,), (3, 2), (2,))):
    draw = np.random.default_rng(4).normal
    return [keras.Variable(draw(size=s).astype("float32")) for s in shapes]


def _gradient_steps(variables, steps=12):
    draw = np.random.default_rng(5).normal
    return [
        [draw(size=tuple(v.shape)).astype("float32") for v in variables]
        for _ in range(steps)
    ]


def _values(variables):
    return [np.array(v.numpy()) for v in variables]


def _apply_steps(optimizer, variables, steps):
    for gradients in steps:
        tensors = [keras.ops.convert_to_tensor(g) for g in gradients]
        optimizer.apply(tensors, variables)
    return _values(variables)


def _on_variables(optimizer, rates):
    """Returns an optimizer of four variables, two for each of two blocks."""
    variables = _variables()
    blockwise = BlockwiseOptimizer(optimizer, rates)
    groups = {"front": variables[:2], "back": variables[2:]}
    blockwise.route({name: groups[name] for name in rates})
    return blockwise, variables


def _numpy_adamw(
    values, steps, rates_at, decay, global_clipnorm=None, accumulate=1
):
    """Runs AdamW in float64 at the rates that `rates_at(step)` returns."""
    values = [v.astype("float64") for v in values]
    m = [np.zeros_like(v) for v in values]
    v2 = [np.zeros_like(v) for v in values]
    chunks = [
        steps[i : i + accumulate] for i in range(0, len(steps), accumulate)
    ]
    for t, chunk in enumerate(chunks, 1):
        mean = [np.mean(g, axis=0) for g in zip(*chunk, strict=True)]
        mean = [g.astype("float64") for g in mean]
        if global_clipnorm is not None:
            norm = np.sqrt(sum((g**2).sum() for g in mean))
            mean = [g * min(1.0, global_clipnorm / norm) for g in mean]
        rates = rates_at(t * accumulate - 1)
        for i, (g, rate) in enumerate(zip(mean, rates, strict=True)):
            values[i] -= rate * decay * values[i]
            m[i] = 0.9 * m[i] + 0.1 * g
            v2[i] = 0.999 * v2[i] + 0.001 * g**2
            m_hat, v_hat = m[i] / (1 - 0.9**t), v2[i] / (1 - 0.999**t)
            # Keras adds epsilon before the bias correction.
            epsilon = 1e-7 / np.sqrt(1 - 0.999**t)
            values[i] -= rate * m_hat / (np.sqrt(v_hat) + epsilon)
    return values


def _assert_is_adamw(optimizer, rates, rates_at, **case):
    blockwise, variables = _on_variables(optimizer, rates)
    initial, steps = _values(variables), _gradient_steps(variables)
    expected = _numpy_adamw(initial, steps, rates_at, **case)
    result = _apply_steps(blockwise, variables, steps)
    for value, by_hand, start in zip(result, expected, initial, strict=True):
        assert np.abs(by_hand - start).max() > 2e-3
        np.testing.assert_allclose(value, by_hand, rtol=0, atol=2e-6)


def test_with_sgd_each_block_moves_by_its_rate_times_its_gradient():
    rates = {"front": 1e-3, "back": 2e-2}
    model = _compiled(optimizers.SGD(0.1), rates)
    before = model.get_weights()
    _fit(model, epochs=1, batch_size=32)
    gradients = _gradients_by_hand(before)
    moved = zip(before, model.get_weights(), gradients, strict=True)
    expected = [rates["front"]] * 2 + [rates["back"]] * 2
    for (old, new, gradient), rate in zip(moved, expected, strict=True):
        np.testing.assert_allclose(old - new, rate * gradient, atol=2e-7)


def test_a_block_without_a_rate_has_the_optimizers_own():
    model = _compiled(optimizers.SGD(0.1), {"front": 0.0})
    before = model.get_weights()
    _fit(model, epochs=1, batch_size=32)
    after, gradients = model.get_weights(), _gradients_by_hand(before)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(
        before[2] - after[2], 0.1 * gradients[2], atol=2e-7
    )


def test_twelve_steps_equal_a_numpy_adamw_with_decay():
    _assert_is_adamw(
        optimizers.AdamW(1e-2, weight_decay=0.1),
        {"front": 1e-3, "back": 2e-2},
        lambda step: [1e-3, 1e-3, 2e-2, 2e-2],
        decay=0.1,
    )


def test_the_optimizers_schedule_scales_every_block():
    def rates_at(step):
        scale = 0.5 ** (step / 4)
        return [1e-3 * scale] * 2 + [1e-2 * scale] * 2

    schedule = schedules.ExponentialDecay(1e-2, 4, 0.5)
    _assert_is_adamw(
        optimizers.AdamW(schedule, weight_decay=0.1),
        {"front": 1e-3},
        rates_at,
        decay=0.1,
    )


def test_a_blocks_own_schedule_follows_the_global_step():
    def rates_at(step):
        return [1e-3] * 2 + [5e-2 * 0.5 ** (step / 4)] * 2

    _assert_is_adamw(
        optimizers.AdamW(1e-2, weight_decay=0.1),
        {"front": 1e-3, "back": schedules.ExponentialDecay(5e-2, 4, 0.5)},
        rates_at,
        decay=0.1,
    )


def test_a_blocks_own_schedule_ignores_the_optimizers_schedule():
    def rates_at(step):
        own = 1e-2 * 0.9 ** (step / 3)
        return [5e-2 * 0.5 ** (step / 4)] * 2 + [own] * 2

    _assert_is_adamw(
        optimizers.AdamW(schedules.ExponentialDecay(1e-2, 3, 0.9)),
        {"front": schedules.ExponentialDecay(5e-2, 4, 0.5)},
        rates_at,
        decay=0.004,
    )


def test_one_global_clipnorm_counts_all_blocks_together():
    _assert_is_adamw(
        optimizers.AdamW(1e-2, weight_decay=0.1, global_clipnorm=1.5),
        {"front": 1e-3, "back": 2e-2},
        lambda step: [1e-3, 1e-3, 2e-2, 2e-2],
        decay=0.1,
        global_clipnorm=1.5,
    )


def test_gradients_accumulate_and_schedules_count_every_batch():
    def rates_at(step):
        return [1e-3] * 2 + [5e-2 * 0.5 ** (step / 4)] * 2

    _assert_is_adamw(
        optimizers.AdamW(
            1e-2,
            weight_decay=0.1,
            gradient_accumulation_steps=3,
            global_clipnorm=1.0,
        ),
        {"front": 1e-3, "back": schedules.ExponentialDecay(5e-2, 4, 0.5)},
        rates_at,
        decay=0.1,
        accumulate=3,
        global_clipnorm=1.0,
    )


@pytest.mark.parametrize("scale", [1, 0.5])
@pytest.mark.parametrize("name", ALL_OPTIMIZERS)
def test_equal_rates_train_like_the_plain_optimizer(name, scale):
    plain_class = getattr(optimizers, name)
    plain, plain_variables = plain_class(1e-3 * scale), _variables()
    steps = _gradient_steps(plain_variables, 4)
    expected = _apply_steps(plain, plain_variables, steps)
    rates = dict.fromkeys(BLOCKS, 1e-3 * scale)
    blockwise, variables = _on_variables(plain_class(1e-3), rates)
    result = _apply_steps(blockwise, variables, steps)
    for value, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_every_keras_optimizer_is_among_those_tested():
    composed = {
        "Optimizer",
        "LossScaleOptimizer",
        "MultiOptimizer",
        "OptimizerMap",
    }
    exported = {
        name
        for name, value in vars(optimizers).items()
        if isinstance(value, type)
    }
    assert exported - composed == set(ALL_OPTIMIZERS)


@pytest.mark.parametrize(
    "settings",
    [
        {"clipnorm": 0.3},
        {"clipvalue": 0.1},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
        {"use_ema": True, "ema_momentum": 0.5},
        {"loss_scale_factor": 8.0},
        {"weight_decay": 0.1, "gradient_accumulation_steps": 2},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_the_settings_of_the_optimizer_apply_in_fit(settings):
    plain = _network()
    plain.compile(optimizers.Adam(0.01, **settings), "mse")
    _fit(plain)
    model = _compiled(
        optimizers.Adam(0.02, **settings), dict.fromkeys(BLOCKS, 0.01)
    )
    _fit(model)
    for value, other in zip(
        model.get_weights(), plain.get_weights(), strict=True
    ):
        np.testing.assert_allclose(value, other, atol=1e-6)


def test_momentum_and_nesterov_keep_the_rate_of_each_block():
    blockwise, variables = _on_variables(
        optimizers.SGD(0.1, momentum=0.9, nesterov=True), {"front": 0.01}
    )
    expected, steps = _values(variables), _gradient_steps(variables)
    velocities = [np.zeros_like(v) for v in expected]
    for gradients in steps:
        rates = [0.01, 0.01, 0.1, 0.1]
        for i, (g, rate) in enumerate(zip(gradients, rates, strict=True)):
            velocities[i] = 0.9 * velocities[i] - rate * g
            expected[i] = expected[i] + 0.9 * velocities[i] - rate * g
    result = _apply_steps(blockwise, variables, steps)
    for value, by_hand in zip(result, expected, strict=True):
        np.testing.assert_allclose(value, by_hand, rtol=1e-5, atol=1e-6)


def test_a_muon_decays_each_block_by_its_rate():
    muon = optimizers.Muon(0.1, weight_decay=0.5, adam_weight_decay=0.5)
    blockwise, variables = _on_variables(muon, {"front": 0.01})
    before = _values(variables)
    zeros = [[np.zeros_like(v) for v in before]]
    after = _apply_steps(blockwise, variables, zeros)
    rates = [0.01, 0.01, 0.1, 0.1]
    for old, new, rate in zip(before, after, rates, strict=True):
        np.testing.assert_allclose(new, old * (1 - 0.5 * rate), rtol=1e-5)


def test_variables_that_the_user_excluded_do_not_decay():
    variables = _variables()
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(variables[2:])
    blockwise = BlockwiseOptimizer(optimizer, {"front": 0.01, "back": 0.02})
    blockwise.route({"front": variables[:1], "back": variables[1:]})
    before = _values(variables)
    zeros = [[np.zeros_like(v) for v in before]]
    after = _apply_steps(blockwise, variables, zeros)
    np.testing.assert_allclose(after[0], before[0] * 0.995, rtol=1e-5)
    np.testing.assert_allclose(after[1], before[1] * 0.99, rtol=1e-5)
    np.testing.assert_array_equal(after[2], before[2])


def test_a_rate_scheduler_scales_all_blocks():
    rates = {"front": 1e-3, "back": schedules.ExponentialDecay(0.04, 1, 1.0)}
    model = _compiled(optimizers.SGD(0.1), rates)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05)
    before = model.get_weights()
    _fit(model, epochs=1, batch_size=32, callbacks=[scheduler])
    gradients, after = _gradients_by_hand(before), model.get_weights()
    np.testing.assert_allclose(
        before[0] - after[0], 5e-4 * gradients[0], atol=2e-7
    )
    np.testing.assert_allclose(
        before[2] - after[2], 0.02 * gradients[2], atol=2e-7
    )


def test_reduce_on_plateau_scales_all_blocks():
    model = _compiled(optimizers.SGD(0.1), {"front": 1e-3, "back": 2e-2})
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.5, patience=1, min_delta=100.0
    )
    _fit(model, epochs=3, callbacks=[plateau])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)
    assert model.optimizer.effective_rates() == pytest.approx(
        {"front": 2.5e-4, "back": 5e-3}
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.AdamW(0.01, global_clipnorm=0.5),
        lambda: optimizers.Nadam(schedules.ExponentialDecay(0.01, 3, 0.9)),
        lambda: optimizers.Adam(0.01, gradient_accumulation_steps=3),
    ],
    ids=["adamw", "nadam-schedule", "accumulation"],
)
def test_training_continues_bit_by_bit_after_save_and_load(optimizer, tmp_path):
    rates = {"front": 1e-3, "back": schedules.ExponentialDecay(0.05, 4, 0.5)}
    model = _compiled(optimizer(), rates)
    _fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    _route(loaded, loaded.optimizer)
    for slot, other in zip(
        _values(model.optimizer.variables),
        _values(loaded.optimizer.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(slot, other)
    _fit(model)
    _fit(loaded)
    for value, other in zip(
        model.get_weights(), loaded.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, other)


def test_rates_stay_relative_to_the_initial_rate_after_load(tmp_path):
    model = _compiled(optimizers.SGD(0.1), {"front": 1e-3})
    model.optimizer.learning_rate = 0.05
    _fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert loaded.effective_rates() == pytest.approx({"front": 5e-4})
    loaded.learning_rate = 0.1
    assert loaded.effective_rates() == pytest.approx({"front": 1e-3})


def test_exclusions_from_decay_survive_save_and_load(tmp_path):
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = _compiled(optimizer, {"front": 0.01})
    _fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    _route(loaded, loaded.optimizer)
    _fit(model)
    _fit(loaded)
    for value, other in zip(
        model.get_weights(), loaded.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, other)


def test_the_saved_file_contains_every_slot_once(tmp_path):
    """It also contains for each variable the step at which it began."""
    plain, model = _network(), _compiled("adam", {"front": 0.01})
    plain.compile("adam", "mse")
    sizes = []
    for name, network in {"plain": plain, "rates": model}.items():
        _fit(network)
        network.save(tmp_path / f"{name}.keras")
        with zipfile.ZipFile(tmp_path / f"{name}.keras") as file:
            (tmp_path / name).mkdir()
            file.extract("model.weights.h5", tmp_path / name)
        with h5py.File(tmp_path / name / "model.weights.h5") as weights:
            sizes.append(_sizes(weights["optimizer"]))
    assert sorted(sizes[1]) == sorted([*sizes[0], len(model.weights)])


def _sizes(group):
    found = []
    group.visititems(
        lambda _, item: (
            found.append(item.size) if isinstance(item, h5py.Dataset) else None
        )
    )
    return found


def test_the_config_names_only_public_optimizer_classes():
    config = BlockwiseOptimizer(optimizers.AdamW(), {"front": 0.01})
    inner = config.get_config()["inner_optimizer"]
    assert inner["module"] == "keras.optimizers"
    assert inner["class_name"] == "AdamW"


def test_the_rates_are_right_under_mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        # A scale of its own is what LossScaleOptimizer takes the place of.
        sgd = optimizers.SGD(0.1, loss_scale_factor=4.0)
        model = _compiled(sgd, {"front": 0.0, "back": 0.02})
        before = model.get_weights()
        _fit(model, epochs=1, batch_size=32)
        assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
        gradients, after = _gradients_by_hand(before), model.get_weights()
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(
        before[2] - after[2], 0.02 * gradients[2], atol=2e-4
    )


def test_a_loss_scale_optimizer_is_wrapped_inside():
    optimizer = optimizers.LossScaleOptimizer(
        optimizers.SGD(0.1, loss_scale_factor=4.0), initial_scale=16.0
    )
    model = _compiled(optimizer, {"front": 1e-3})
    before = model.get_weights()
    _fit(model, epochs=1, batch_size=32)
    gradients, after = _gradients_by_hand(before), model.get_weights()
    assert model.optimizer.initial_scale == 16.0
    np.testing.assert_allclose(
        before[0] - after[0], 1e-3 * gradients[0], atol=2e-7
    )


def test_a_custom_loop_trains_as_fit_does():
    rates = {"front": 1e-3, "back": 2e-2}
    fitted = _compiled(optimizers.AdamW(1e-2, weight_decay=0.1), rates)
    looped = _compiled(optimizers.AdamW(1e-2, weight_decay=0.1), rates)
    _fit(fitted, epochs=3, batch_size=32)
    for _ in range(3):
        _CUSTOM_STEPS[keras.backend.backend()](looped)
    for value, other in zip(
        looped.get_weights(), fitted.get_weights(), strict=True
    ):
        np.testing.assert_allclose(value, other, atol=1e-6)


def _custom_step_tensorflow(model):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=Y, y_pred=model(X, training=True))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    model.optimizer.apply_gradients(zip(gradients, variables, strict=True))


def _custom_step_torch(model):
    model.zero_grad()
    y = keras.ops.convert_to_tensor(Y)
    model.compute_loss(y=y, y_pred=model(X, training=True)).backward()
    gradients = [v.value.grad for v in model.trainable_variables]
    model.optimizer.apply(gradients, model.trainable_variables)


def _custom_step_jax(model):
    import jax

    def loss_of(trainable, fixed):
        y_pred, _ = model.stateless_call(trainable, fixed, X, training=True)
        return keras.ops.mean(keras.ops.square(y_pred - Y))

    optimizer, variables = model.optimizer, model.trainable_variables
    optimizer.build(variables)
    values = [v.value for v in variables]
    fixed = [v.value for v in model.non_trainable_variables]
    state = [v.value for v in optimizer.variables]
    gradients = jax.grad(loss_of)(values, fixed)
    values, state = jax.jit(optimizer.stateless_apply)(state, gradients, values)
    for variable, value in itertools.chain(
        zip(variables, values, strict=True),
        zip(optimizer.variables, state, strict=True),
    ):
        variable.assign(value)


_CUSTOM_STEPS = {
    "tensorflow": _custom_step_tensorflow,
    "jax": _custom_step_jax,
    "torch": _custom_step_torch,
}


def test_the_optimizer_passed_in_stays_as_it_is():
    optimizer = optimizers.AdamW(0.1)
    config, variables = optimizer.get_config(), len(optimizer.variables)
    _fit(_compiled(optimizer, {"front": 1e-3}))
    assert optimizer.get_config() == config
    assert len(optimizer.variables) == variables
    assert not optimizer.built
    assert int(optimizer.iterations) == 0


def test_the_effective_rates_are_known_before_training():
    rates = {"front": 1e-3, "back": schedules.ExponentialDecay(0.04, 4, 0.5)}
    blockwise = BlockwiseOptimizer(optimizers.Adam(0.1), rates)
    assert blockwise.effective_rates() == pytest.approx(
        {"front": 1e-3, "back": 0.04}
    )


def test_new_rates_replace_those_an_optimizer_had():
    first = with_block_rates("adam", {"front": 1e-3})
    second = with_block_rates(first, {"back": 1e-4})
    assert second.rates == {"back": 1e-4}
    assert first.rates == {"front": 1e-3}
    assert find_blockwise(second) is second
    assert find_blockwise(optimizers.Adam()) is None


@pytest.mark.parametrize(
    ("learning_rate", "reference"),
    [
        (0.25, 0.25),
        (schedules.ExponentialDecay(0.1, 10, 0.5), 0.1),
        (
            schedules.CosineDecay(0.0, 100, warmup_target=0.3, warmup_steps=10),
            0.3,
        ),
        (schedules.CosineDecay(0.2, 100), 0.2),
        (schedules.PiecewiseConstantDecay([5], [0.4, 0.1]), 0.4),
        (lambda: 0.7, 0.7),
    ],
)
def test_the_reference_is_the_initial_rate_or_the_warm_ups_target(
    learning_rate, reference
):
    assert resolve_reference_rate(learning_rate) == pytest.approx(reference)


@keras.saving.register_keras_serializable(package="keras_cascade_tests")
class _Halving(schedules.LearningRateSchedule):
    """A user's schedule without public attributes."""

    def __call__(self, step):
        return 0.6 * 0.5 ** keras.ops.cast(step, "float32")

    def get_config(self):
        return {}


def test_the_reference_of_a_users_schedule_is_its_rate_at_step_zero():
    assert resolve_reference_rate(_Halving()) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "rate", [-1e-3, float("nan"), float("inf"), "fast", None, True]
)
def test_a_value_that_is_no_learning_rate_is_refused_by_name(rate):
    with pytest.raises(ValueError, match=r"rate of 'upstream/conv\*' is"):
        validate_rate("upstream/conv*", rate)
    with pytest.raises(ValueError, match="'upstream/conv"):
        with_block_rates("adam", {"upstream/conv*": rate})


def test_numbers_of_any_kind_are_rates():
    assert validate_rate("head", np.float32(0.5)) == 0.5
    assert validate_rate("head", 0) == 0.0


def test_an_optimizer_that_starts_at_zero_cannot_scale_rates():
    with pytest.raises(ValueError, match=r"starts at .* 0.0, .*'front'"):
        BlockwiseOptimizer(optimizers.SGD(0.0), {"front": 1e-3})


def test_an_optimizer_with_several_rates_is_refused():
    multi = optimizers.MultiOptimizer({".*": optimizers.SGD()})
    with pytest.raises(ValueError, match="not a MultiOptimizer"):
        with_block_rates(multi, {"front": 1e-3})


def test_routing_a_group_without_a_rate_names_those_that_have_one():
    blockwise = BlockwiseOptimizer(optimizers.SGD(), {"front": 1e-3})
    with pytest.raises(ValueError, match=r"\['heads'\].*\['front'\]"):
        blockwise.route({"heads": []})


def test_weights_of_an_optimizer_can_be_set():
    """They are slots and the steps at which variables began."""
    optimizer, variables = _on_variables(optimizers.Adam(0.01), {})
    optimizer.extend(variables).activate(variables[:2])
    gradients = [keras.ops.ones(v.shape) for v in variables[:2]]
    optimizer.apply(gradients, variables[:2])
    other, others = _on_variables(optimizers.Adam(0.01), {})
    other.extend(others)
    other.set_weights(_values(optimizer.variables))
    found = _values(other.variables)
    for one, two in zip(_values(optimizer.variables), found, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(found[-1], [0, 0, -1, -1])
