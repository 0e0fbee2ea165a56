"""Compares range tests with SGD by hand and with theoretical thresholds."""

import json
import random

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade import _keras_compat
from keras_cascade.training.range_test import finder as learning_rate_finder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
Y = (X @ RNG.normal(size=(4, 2)) * 3).astype("float32")
WEIGHTS = RNG.uniform(0.2, 2.0, size=24).astype("float32")
RULES = ("valley", "steepest")


def linear(optimizer=None, trainable=True, loss="mse", **arguments):
    """Returns two linear layers: the loss is quadratic in each of them."""
    keras.utils.set_random_seed(1)
    dense = {"use_bias": False}
    upstream = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="low", **dense)]
    )
    downstream = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, name="out", **dense)]
    )
    cascade = kc.build_cascade(
        upstream,
        downstream,
        adapters=None,
        trainable=trainable,
        optimizer=optimizer or optimizers.SGD(0.01),
        loss=loss,
        **arguments,
    )
    # The same on every backend.
    draw = np.random.default_rng(2).normal
    cascade.set_weights([draw(size=(4, 3)), draw(size=(3, 2))])
    return cascade


def value(variable):
    return np.array(ops.convert_to_numpy(variable))


def kernels(cascade):
    return [value(v).astype("float64") for v in cascade.weights]


def threshold(low, out, block):
    """Returns 2 / the largest eigenvalue of the Hessian of the MSE."""
    size = Y.size

    def largest(matrix):
        return np.linalg.eigvalsh(matrix).max()

    x = X.astype("float64")
    if block == "upstream":
        curvature = largest(x.T @ x) * largest(out @ out.T)
    else:
        curvature = largest((x @ low).T @ (x @ low))
    return 2 / (2 / size * curvature)


@pytest.mark.parametrize("block", ["upstream", "downstream"])
def test_suggestions_are_a_little_below_the_rate_at_which_sgd_diverges(block):
    cascade = linear()
    limit = threshold(*kernels(cascade), block)
    found = kc.find_learning_rates(
        cascade,
        (X, Y),
        blocks=[block],
        minimum=1e-5,
        maximum=1e3,
        batch_size=24,
    )
    assert found.tests[block].diverged
    for rule in RULES:
        rate = found.suggestions_by(rule)[block]
        assert 1e-3 * limit < rate < limit, rule
    assert found.suggestions == found.suggestions_by("valley")


class Batches(keras.utils.PyDataset):
    """Batches of 8 in their order, with sample weights."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.stop_at, self.read = stop_at, 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.read += 1
        if self.read == self.stop_at:
            raise KeyboardInterrupt
        rows = slice(8 * index, 8 * index + 8)
        return X[rows], Y[rows], WEIGHTS[rows]


def sgd_by_hand(low, out, rates, block, accumulated):
    """Returns the losses before each update, in float64."""
    losses, number = [], 0
    for rate in rates:
        found, gradients = [], []
        for _ in range(accumulated):
            x, y, w = (a.astype("float64") for a in Batches()[number % 3])
            number += 1
            error = x @ low @ out - y
            # Keras weighs the mean over outputs of each sample.
            found.append((w[:, None] * error**2).mean())
            slope = 2 * w[:, None] * error / error.size
            gradients.append(
                x.T @ slope @ out.T
                if block == "upstream"
                else (x @ low).T @ slope
            )
        losses.append(np.mean(found))
        step = rate * np.mean(gradients, axis=0)
        low, out = (
            (low - step, out) if block == "upstream" else (low, out - step)
        )
    return np.array(losses)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_losses_are_those_of_sgd_by_hand(accumulated):
    """Rates rise by equal factors; no other block moves; weights count."""
    steps = None if accumulated == 1 else accumulated
    cascade = linear(optimizers.SGD(0.3, gradient_accumulation_steps=steps))
    before = kernels(cascade)
    found = kc.find_learning_rates(
        cascade, Batches(), minimum=1e-4, maximum=1e2, steps=61
    )
    assert list(found.tests) == ["upstream", "downstream"]
    for block, test in found.tests.items():
        assert test.diverged
        np.testing.assert_allclose(
            test.rates,
            1e-4 * 10 ** (np.arange(len(test.rates)) / 10),
            rtol=1e-6,
        )
        count = len(test.losses)
        expected = sgd_by_hand(*before, test.rates, block, accumulated)
        # It learns before it diverges: the third batch, again and again.
        assert expected[2:count:3].min() < 0.7 * expected[2]
        np.testing.assert_allclose(test.losses, expected, rtol=1e-4)


def test_the_optimizer_is_of_the_cascades_class_with_empty_slots():
    """The first steps of Adam are of the size of the rate."""
    cascade = linear(optimizers.Adam(0.5))
    cascade.fit(X, Y, verbose=0)
    low, out = kernels(cascade)
    found = kc.find_learning_rates(
        cascade,
        All(),
        blocks="downstream",
        minimum=1e-3,
        maximum=2e-3,
        steps=20,
    )
    x, y = (a.astype("float64") for a in (X, Y))
    gradient = (x @ low).T @ (x @ low @ out - y)
    after = out - 1e-3 * np.sign(gradient)
    expected = ((x @ low @ after - y) ** 2).mean()
    losses = found.tests["downstream"].losses
    assert abs(losses[0] - losses[1]) > 1e-4
    assert losses[1] == pytest.approx(expected, rel=1e-5)


class All(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, Y


def noisy(**arguments):
    """Returns a cascade with moments, seeds, slots, accumulators, metrics."""
    keras.utils.set_random_seed(3)
    upstream = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, name="low"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.4, name="drop"),
            layers.Dense(3, name="high"),
        ]
    )
    cascade = kc.build_cascade(
        upstream,
        adapters=4,
        head=[layers.Dropout(0.3, seed=5), layers.Dense(2)],
        trainable={"upstream/low": False, "upstream/high": True},
        learning_rates={"upstream": 1e-3},
        **arguments,
    )
    cascade.compile(
        optimizers.AdamW(1e-2, gradient_accumulation_steps=2),
        "mse",
        metrics=["mae"],
        # TensorFlow takes long for it.
        jit_compile=keras.backend.backend() == "jax",
    )
    return cascade


def state(cascade):
    """Returns the values of everything that training changes."""
    optimizer = cascade.optimizer
    groups = {
        "variables": cascade.variables,
        "metrics": cascade.metrics_variables,
        "optimizer": optimizer.variables,
    }
    values = {k: [value(v) for v in group] for k, group in groups.items()}
    flags = [layer.trainable for layer in cascade._flatten_layers()]
    objects = (
        id(optimizer),
        id(cascade.train_function),
        id(cascade.test_function),
        optimizer.built,
        cascade.stop_training,
        id(cascade.history) if hasattr(cascade, "history") else None,
    )
    return values, flags, objects, cascade.learning_rates()


def random_states():
    states = [
        random.getstate(),
        np.random.get_state()[1].tolist(),
        _keras_compat.global_seed(),
    ]
    if keras.backend.backend() == "torch":
        import torch

        states.append(torch.get_rng_state().tolist())
    return states


def assert_same(before, after):
    for name, group in before[0].items():
        assert len(group) == len(after[0][name]), name
        for old, new in zip(group, after[0][name], strict=True):
            np.testing.assert_array_equal(new, old, err_msg=name)
    assert after[1:] == before[1:]


def fit(cascade, epochs=1):
    return cascade.fit(X, Y, batch_size=8, epochs=epochs, verbose=0).history


def search(cascade, data=(X, Y), **arguments):
    arguments = {"steps": 20, "batch_size": 8, "verbose": False, **arguments}
    return kc.find_learning_rates(cascade, data, **arguments)


@pytest.mark.parametrize(
    ("trained", "blocks"), [(False, ["head"]), (True, None)]
)
def test_everything_is_as_before_to_the_bit_and_fit_continues_alike(
    trained, blocks
):
    control, cascade = noisy(), noisy()
    histories = []
    for one, searches in ((control, False), (cascade, True)):
        keras.utils.set_random_seed(9)
        if trained:
            fit(one)
        keras.random.normal((2,))
        before, states = state(one), random_states()
        if searches:
            tests = search(one, blocks=blocks).tests
            assert list(tests) == (blocks or ["upstream", "adapters", "head"])
        assert_same(before, state(one))
        for old, new in zip(states, random_states(), strict=True):
            np.testing.assert_equal(new, old)
        histories.append(fit(one, epochs=2))
    assert histories[0] == histories[1]
    for one, other in zip(control.variables, cascade.variables, strict=True):
        np.testing.assert_array_equal(value(one), value(other))


def test_an_interrupt_leaves_everything_as_before():
    cascade = noisy()
    fit(cascade)
    before, states = state(cascade), random_states()
    with pytest.raises(KeyboardInterrupt):
        search(cascade, Batches(stop_at=12))
    assert_same(before, state(cascade))
    for old, new in zip(states, random_states(), strict=True):
        np.testing.assert_equal(new, old)


def test_dropout_and_moments_are_those_of_training():
    """Two searches draw the same masks, and see what training would see."""
    cascade = noisy()
    first, second = (search(cascade, blocks="head") for _ in range(2))
    losses = first.tests["head"].losses
    if keras.backend.backend() != "torch":
        np.testing.assert_array_equal(losses, second.tests["head"].losses)
    assert np.ptp(losses[:5]) > 1e-4


def test_suggestions_can_be_compiled_with_as_they_are():
    cascade = linear()
    found = search(cascade, rule="steepest")
    assert list(found.suggestions) == ["upstream", "downstream"]
    cascade.compile("adam", "mse", learning_rates=found.suggestions)
    rates = cascade.learning_rates()
    assert rates["upstream/low/kernel"] == pytest.approx(
        found.suggestions["upstream"]
    )
    assert linear(learning_rates=found.suggestions).learning_rates()[
        "downstream/out/kernel"
    ] == pytest.approx(found.suggestions["downstream"])


def test_frozen_blocks_get_no_suggestion():
    found = search(linear(trainable=None))
    assert list(found.tests) == list(found.suggestions) == ["downstream"]


def test_a_pattern_is_tested_like_a_block():
    cascade = noisy()
    found = search(cascade, blocks=["upstream/hi*"])
    assert list(found.suggestions) == ["upstream/hi*"]
    cascade.compile("adam", "mse", learning_rates=found.suggestions)


def test_a_loss_function_and_a_data_set_work():
    def loss(y, y_pred):
        return ops.mean(ops.square(y - y_pred))

    found = search(linear(loss=loss), All())
    expected = search(linear(), All())
    for block, test in expected.tests.items():
        np.testing.assert_allclose(
            found.tests[block].losses, test.losses, rtol=1e-5
        )


def test_no_rate_is_suggested_if_the_loss_cannot_fall():
    cascade = linear(loss=lambda y, y_pred: ops.mean(y_pred * 0.0 + 1.0))
    found = search(cascade)
    assert found.suggestions == {}
    assert str(found).count("does not fall") == 4


def test_under_mixed_float16_rates_are_those_of_real_updates():
    """Steps that loss scaling skips are no steps of the test."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        cascade = linear(trainable=None)
        low, out = kernels(cascade)
        found = search(
            cascade, All(), minimum=1e-4, maximum=1e-1, blocks="downstream"
        )
    finally:
        keras.config.set_dtype_policy("float32")
    test = found.tests["downstream"]
    assert len(test.rates) == 20
    np.testing.assert_allclose(
        test.rates, np.geomspace(1e-4, 1e-1, 20), rtol=1e-5
    )
    x, y = X.astype("float64"), Y.astype("float64")
    for rate, loss in zip(test.rates, test.losses, strict=True):
        error = x @ low @ out - y
        assert loss == pytest.approx((error**2).mean(), rel=2e-2)
        out = out - rate * 2 / error.size * (x @ low).T @ error


@pytest.fixture(scope="module")
def found():
    return kc.find_learning_rates(
        linear(), (X, Y), steps=40, batch_size=24, maximum=1e4
    )


def test_results_print_as_a_table_and_convert_to_plain_values(found):
    text = str(found)
    for block, rate in found.suggestions.items():
        (line,) = [x for x in text.splitlines() if f" {block} " in x]
        assert f"{rate:.2g}" in line
        assert "diverged" in line
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["suggestions"] == found.suggestions
    assert plain["tests"]["upstream"]["losses"] == list(
        found.tests["upstream"].losses
    )


def test_the_plot_has_a_panel_for_each_block_with_its_suggestions(found):
    pytest.importorskip("matplotlib")
    figure = found.plot()
    assert [axis.get_title() for axis in figure.axes] == [
        "upstream",
        "downstream",
    ]
    for axis, (block, test) in zip(
        figure.axes, found.tests.items(), strict=True
    ):
        assert axis.get_xscale() == "log"
        assert axis.get_xlabel() == "learning rate"
        lines = {x.get_label(): x for x in axis.get_lines()}
        assert list(lines["loss"].get_ydata()) == list(test.losses)
        for rule in RULES:
            rate = found.suggestions_by(rule)[block]
            assert lines[f"{rule}: {rate:.2g}"].get_xdata()[0] == rate
        assert axis.get_legend() is not None


def uncompiled():
    cascade = linear(loss=None)
    assert not cascade.compiled
    return cascade


def unfitted():
    upstream = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    adapter = kc.adapters.PCAAdapter(2)
    return kc.build_cascade(upstream, adapters=adapter, head=2, loss="mse")


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (uncompiled, {}, ValueError, "is not compiled"),
        (unfitted, {}, ValueError, r"adapt\(data\) before"),
        (lambda: keras.Sequential([]), {}, TypeError, "needs a Cascade"),
        (linear, {"data": X}, ValueError, "no labels"),
        (linear, {"data": iter([(X, Y)])}, ValueError, "read only once"),
        (linear, {"data": (X[:0], Y[:0])}, ValueError, "is empty"),
        (linear, {"data": (X, Y[:5])}, ValueError, r"\[24, 5\]"),
        (linear, {"data": 3}, TypeError, "object of type int"),
        (linear, {"minimum": 0.0}, ValueError, "minimum=0.0"),
        (linear, {"minimum": 1.0, "maximum": 1.0}, ValueError, "rise from"),
        (linear, {"maximum": np.inf}, ValueError, "finite maximum"),
        (linear, {"steps": 5}, ValueError, "at least 20"),
        (linear, {"batch_size": 0}, ValueError, "batch_size=0"),
        (linear, {"smoothing": 1.0}, ValueError, "smoothing=1.0"),
        (linear, {"rule": "slide"}, ValueError, "'valley', 'steepest'"),
        (linear, {"blocks": ["hea"]}, ValueError, "blocks names 'hea'"),
        (
            lambda: linear(trainable=None),
            {"blocks": "upstream"},
            ValueError,
            "'upstream', which covers nothing that trains",
        ),
        (
            lambda: linear(trainable=False),
            {},
            ValueError,
            "Nothing trains in the cascade 'cascade'",
        ),
    ],
)
def test_mistakes_are_explained_before_anything_trains(
    make, arguments, error, message
):
    with pytest.raises(error, match=message):
        kc.find_learning_rates(make(), **{"data": (X, Y), **arguments})


def test_lora_and_retention_apply_in_the_range_test_as_well():
    """The kernel under LoRA must not move, and penalties must stay."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="low")])
    x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
    cascade = kc.build_cascade(
        network,
        head=1,
        trainable={"upstream": kc.LoRA(2)},
        retention={"upstream": kc.L2SP(0.1)},
        loss="mse",
        optimizer="sgd",
    )
    copy = learning_rate_finder._copy(cascade)
    for one, other in zip(cascade.variables, copy.variables, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(
            *(keras.ops.convert_to_numpy(v) for v in (one, other))
        )
    assert [v.path for v in copy.trainable_variables] == [
        v.path for v in cascade.trainable_variables
    ]
    assert "upstream/low/lora_kernel_a" in {
        v.path for v in copy.trainable_variables
    }
    found = kc.find_learning_rates(
        cascade, (x, x[:, :1]), steps=20, verbose=False
    )
    assert set(found.tests) == {"upstream", "head"}
