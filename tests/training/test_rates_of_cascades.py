"""Compares rates through build_cascade with gradients by hand."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from keras.optimizers import schedules

import keras_cascade as kc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 5)).astype("float32")
Y = RNG.normal(size=(48, 2)).astype("float32")
BATCH = 8
# Kernel and bias of each.
LAYERS = ("upstream/low", "upstream/high", "adapters/high", "downstream/out")
PATHS = [f"{layer}/{kind}" for layer in LAYERS for kind in ("kernel", "bias")]


def linear(rates, optimizer, trainable=True, **arguments):
    """Returns a cascade of four linear layers."""
    keras.utils.set_random_seed(1)
    upstream = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, name="low"),
            layers.Dense(4, name="high"),
        ]
    )
    downstream = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, name="out")], name="expert"
    )
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"high": "high"},
        adapters=3,
        trainable=trainable,
        learning_rates=rates,
        optimizer=optimizer,
        loss="mse",
        **arguments,
    )
    assert [v.path for v in cascade.variables] == PATHS
    return cascade


def fit(cascade, epochs=1, **arguments):
    arguments = {"batch_size": BATCH, "shuffle": False, **arguments}
    cascade.fit(X, Y, epochs=epochs, verbose=0, **arguments)


def values(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def gradients_by_hand(weights, x, y):
    """Returns the gradients of the mean squared error of linear layers."""
    kernels, biases = weights[::2], weights[1::2]
    inputs = [x.astype("float64")]
    for kernel, bias in zip(kernels, biases, strict=True):
        inputs.append(inputs[-1] @ kernel + bias)
    error = 2 * (inputs.pop() - y) / y.size
    gradients = []
    for kernel, given in zip(reversed(kernels), reversed(inputs), strict=True):
        gradients = [given.T @ error, error.sum(0), *gradients]
        error = error @ kernel.T
    return gradients


def batches(epochs):
    starts = range(0, len(X), BATCH)
    one = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in starts]
    return one * epochs


def numpy_adamw(weights, rates_at, epochs, decay, clip, frozen=()):
    """Runs AdamW in float64 with a rate per variable and one global norm."""
    weights = [w.astype("float64") for w in weights]
    m = [np.zeros_like(w) for w in weights]
    v = [np.zeros_like(w) for w in weights]
    for step, (x, y) in enumerate(batches(epochs)):
        gradients = gradients_by_hand(weights, x, y)
        free = [i for i in range(len(weights)) if i not in frozen]
        norm = np.sqrt(sum((gradients[i] ** 2).sum() for i in free))
        t = step + 1
        for i, rate in zip(free, rates_at(step), strict=True):
            g = gradients[i] * min(1.0, clip / norm)
            weights[i] -= rate * decay * weights[i]
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            # Keras adds epsilon before the bias correction.
            root = np.sqrt(v[i]) + 1e-7
            corrected = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weights[i] -= rate * corrected * m[i] / root
    return weights


def assert_equal(result, expected, initial, frozen=()):
    for i, (new, hand, old) in enumerate(
        zip(result, expected, initial, strict=True)
    ):
        if i in frozen:
            np.testing.assert_array_equal(new, old, err_msg=PATHS[i])
            continue
        assert np.abs(hand - old).max() > 1e-3, PATHS[i]
        np.testing.assert_allclose(new, hand, atol=2e-6, err_msg=PATHS[i])


def test_with_sgd_the_update_of_each_block_is_its_rate_times_its_gradient():
    rates = {"upstream": 1e-2, "upstream/high": 3e-2, "downstream": 0.5}
    cascade = linear(rates, optimizers.SGD(0.1))
    before = values(cascade.variables)
    fit(cascade, batch_size=len(X))
    gradients = gradients_by_hand(before, X, Y)
    wanted = np.repeat([1e-2, 3e-2, 0.1, 0.5], 2)
    after = values(cascade.variables)
    for old, new, g, rate, path in zip(
        before, after, gradients, wanted, PATHS, strict=True
    ):
        np.testing.assert_allclose(old - new, rate * g, atol=3e-7, err_msg=path)
        large = np.abs(g) > np.abs(g).max() / 2
        np.testing.assert_allclose(
            ((old - new) / g)[large], rate, rtol=1e-3, err_msg=path
        )


def test_the_later_of_overlapping_patterns_has_the_rate():
    rates = {"upstream/high": 1e-3, "**": 1e-2, "upstream/low": 1e-4}
    cascade = linear(rates, optimizers.SGD(0.1))
    found = cascade.learning_rates()
    assert found == pytest.approx(
        dict.fromkeys(PATHS[:2], 1e-4) | dict.fromkeys(PATHS[2:], 1e-2)
    )


ADAMW = {"weight_decay": 0.1, "global_clipnorm": 0.4}


@pytest.mark.parametrize("frozen", [(), (0, 1)], ids=["all", "low frozen"])
def test_twelve_steps_of_fit_equal_a_numpy_adamw(frozen):
    """With decay, two schedules, and one norm over all blocks."""
    cascade = linear(
        {
            "upstream": 2e-3,
            "downstream": schedules.ExponentialDecay(3e-2, 4, 0.5),
        },
        optimizers.AdamW(schedules.ExponentialDecay(1e-2, 6, 0.5), **ADAMW),
        {"upstream/high": True} if frozen else True,
    )
    initial = values(cascade.variables)

    def rates_at(step):
        own = 1e-2 * 0.5 ** (step / 6)
        ends = [own] * 2 + [3e-2 * 0.5 ** (step / 4)] * 2
        return [own / 5] * (4 - len(frozen)) + ends

    fit(cascade, epochs=2)
    expected = numpy_adamw(initial, rates_at, 2, 0.1, 0.4, frozen)
    assert_equal(values(cascade.variables), expected, initial, frozen)


def test_the_twelve_steps_are_equal_with_a_save_and_load_in_the_middle(
    tmp_path,
):
    rates = {"upstream": 2e-3, "adapters": 5e-3}
    cascade = linear(rates, optimizers.AdamW(1e-2, **ADAMW))
    initial = values(cascade.variables)
    fit(cascade)
    cascade.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert int(loaded.optimizer.iterations) == 6
    fit(loaded)
    wanted = np.repeat([2e-3, 2e-3, 5e-3, 1e-2], 2)
    expected = numpy_adamw(initial, lambda step: wanted, 2, 0.1, 0.4)
    assert_equal(values(loaded.variables), expected, initial)
    fit(cascade)
    for old, new in zip(cascade.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(*values([old, new]))


def test_a_callback_scales_the_rates_of_all_blocks():
    cascade = linear({"upstream": 1e-3}, optimizers.SGD(0.1))
    fit(
        cascade,
        callbacks=[keras.callbacks.LearningRateScheduler(lambda e: 0.05)],
    )
    found = cascade.learning_rates()
    assert found["upstream/low/kernel"] == pytest.approx(5e-4)
    assert found["downstream/out/kernel"] == pytest.approx(0.05)


def test_compiling_again_keeps_the_rates_unless_others_are_given():
    cascade = linear({"upstream": 1e-3}, "sgd")
    cascade.compile(optimizers.SGD(0.5), "mse")
    assert cascade.learning_rates()["upstream/low/kernel"] == pytest.approx(
        1e-3
    )
    cascade.compile(
        optimizers.SGD(0.5), "mse", learning_rates={"adapters": 0.2}
    )
    found = cascade.learning_rates()
    assert found["upstream/low/kernel"] == pytest.approx(0.5)
    assert found["adapters/high/kernel"] == pytest.approx(0.2)


def test_the_optimizer_passed_in_is_not_used_itself():
    optimizer = optimizers.AdamW(1e-2)
    cascade = linear({"upstream": 1e-3}, optimizer)
    fit(cascade)
    assert not optimizer.built
    assert int(optimizer.iterations) == 0


def custom_loop_tensorflow(model):
    import tensorflow as tf

    for x, y in batches(2):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=y, y_pred=model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))


def custom_loop_torch(model):
    for x, y in batches(2):
        model.zero_grad()
        y = ops.convert_to_tensor(y)
        model.compute_loss(y=y, y_pred=model(x, training=True)).backward()
        variables = model.trainable_variables
        gradients = [v.value.grad for v in variables]
        model.optimizer.apply(gradients, variables)


def custom_loop_jax(model):
    import jax

    def loss_of(trainable, fixed, x, y):
        y_pred, fixed = model.stateless_call(trainable, fixed, x, training=True)
        return model.compute_loss(y=y, y_pred=y_pred), fixed

    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
    )
    trainable, fixed, state = ([v.value for v in g] for g in groups)
    step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    update = jax.jit(optimizer.stateless_apply)
    for x, y in batches(2):
        (_, fixed), gradients = step(trainable, fixed, x, y)
        trainable, state = update(state, gradients, trainable)
    for variable, value in zip(
        itertools.chain(*groups), [*trainable, *fixed, *state], strict=True
    ):
        variable.assign(value)


CUSTOM_LOOPS = {
    "tensorflow": custom_loop_tensorflow,
    "torch": custom_loop_torch,
    "jax": custom_loop_jax,
}


def test_a_custom_loop_trains_as_fit_does():
    """Freezing, rates and decay; BatchNormalization on both sides of it."""

    def build():
        keras.utils.set_random_seed(2)
        x = inputs = keras.Input((5,))
        x = layers.Dense(4, name="low")(x)
        x = layers.BatchNormalization(name="low_norm")(x)
        x = layers.Dropout(0.5, name="low_dropout")(x)
        x = layers.Dense(4, name="high", use_bias=False)(x)
        x = layers.BatchNormalization(name="high_norm")(x)
        return kc.build_cascade(
            keras.Model(inputs, x),
            adapters=3,
            head=[layers.Dense(2, name="out")],
            trainable={"upstream/high*": True},
            learning_rates={"upstream": 2e-3, "adapters": 2e-2},
            optimizer=optimizers.AdamW(1e-2, **ADAMW),
            loss="mse",
        )

    fitted, looped = build(), build()
    initial = values(fitted.variables)
    fit(fitted, epochs=2)
    CUSTOM_LOOPS[keras.backend.backend()](looped)
    for variable, other, old in zip(
        fitted.variables, looped.variables, initial, strict=True
    ):
        new, by_loop = values([variable, other])
        if "low" in variable.path:
            np.testing.assert_array_equal(new, old, err_msg=variable.path)
            np.testing.assert_array_equal(by_loop, old, err_msg=variable.path)
        else:
            assert np.abs(new - old).max() > 1e-3, variable.path
            np.testing.assert_allclose(by_loop, new, atol=2e-6)


def test_under_mixed_float16_a_cascade_trains_at_its_rates():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        # The default scale overflows, and is halved, in the first steps.
        optimizer = optimizers.LossScaleOptimizer(
            optimizers.SGD(), initial_scale=64.0
        )
        cascade = linear({"upstream": 0.0, "downstream": 0.2}, optimizer)
        before = values(cascade.variables)
        fit(cascade, batch_size=len(X))
        after = values(cascade.variables)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {w.dtype.name for w in after} == {"float32"}
    gradients = gradients_by_hand(before, X, Y)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(
        before[6] - after[6], 0.2 * gradients[6], atol=1e-3
    )
    assert np.abs(before[6] - after[6]).max() > 1e-2
