"""Folded programs answer as the model does, in fewer steps."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers

from keras_cascade.exporting.folding.rules import fold
from keras_cascade.graph.flattening import as_program


def weights(program):
    """The number of weights of a program."""
    return sum(layer.count_params() for layer in program.layers)


def line(shape, *made):
    """A model of one layer after the other."""
    x = y = keras.Input(shape, name="x")
    for layer in made:
        y = layer(y)
    return keras.Model(x, y)


@pytest.mark.parametrize(
    ("scale", "center"), [(True, False), (False, True), (False, False)]
)
def test_a_batch_normalization_without_scale_or_center(folded, scale, center):
    norm = layers.BatchNormalization(scale=scale, center=center)
    _, kinds = folded(line((4,), layers.Dense(3, use_bias=False), norm))
    assert kinds == ["Dense"]


def test_a_batch_normalization_becomes_part_of_the_mixing_layer_after_it(
    folded,
):
    for shape, layer in [
        ((4,), layers.Dense(3, activation="relu")),
        ((5, 5, 4), layers.Conv2D(3, 1, activation="gelu")),
        ((5, 4), layers.Conv1D(3, 1, padding="same", use_bias=False)),
    ]:
        norm = layers.BatchNormalization()
        counts, kinds = folded(line(shape, norm, layer))
        assert counts == {"normalization into the layer after it": 1}
        assert kinds == [type(layer).__name__]


def test_consecutive_linear_layers_become_one(folded):
    for shape, *made in [
        ((8,), layers.Dense(4), layers.Dense(3, activation="tanh")),
        ((5, 5, 2), layers.Conv2D(4, 3, strides=2), layers.Conv2D(4, 1)),
        ((9, 4), layers.Conv1D(4, 3, dilation_rate=2), layers.Conv1D(3, 1)),
        ((5, 5, 8), layers.Dense(4), layers.Dense(4), layers.Dense(2)),
    ]:
        counts, kinds = folded(line(shape, *made))
        assert counts == {"linear layer into the layer after it": len(made) - 1}
        assert kinds == [type(made[0]).__name__]


def test_layers_that_do_nothing_in_inference_are_dropped(folded):
    made = [
        layers.Dropout(0.5),
        layers.GaussianNoise(1.0),
        layers.Dense(3, activation="relu"),
        layers.Identity(),
        layers.ActivityRegularization(1.0),
    ]
    counts, kinds = folded(line((4,), *made))
    assert counts == {"no-op in inference left out": 4}
    assert kinds == ["Dense"]


def test_a_dropout_between_an_input_and_an_output_stays(folded):
    _, kinds = folded(line((4,), layers.Dropout(0.5)))
    assert kinds == ["Dropout"]


def test_folding_goes_on_until_no_rule_applies(folded):
    made = [
        layers.Dense(4),
        layers.Dropout(0.5),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(3),
        layers.BatchNormalization(),
        layers.Activation("relu"),
    ]
    counts, kinds = folded(line((8,), *made))
    assert sum(counts.values()) == 5
    assert kinds == ["Dense", "Activation"]


def test_a_layer_whose_output_is_needed_twice_is_not_folded(folded):
    x = keras.Input((4,), name="x")
    y = layers.Dense(3)(x)
    norm = layers.BatchNormalization()(y)
    counts, _ = folded(keras.Model(x, layers.Add()([y, norm])))
    assert counts == {}


def test_a_layer_that_is_an_output_is_not_folded(folded):
    x = keras.Input((4,), name="x")
    y = layers.Dense(3)(x)
    norm = layers.BatchNormalization()(y)
    counts, _ = folded(keras.Model(x, {"y": y, "norm": norm}))
    assert counts == {}


def test_an_integer_input_is_not_given_to_a_convolution(answers):
    x = keras.Input((3, 3, 4), dtype="int32", name="x")
    norm = layers.Normalization(mean=[1.0] * 4, variance=[2.0] * 4)(x)
    model = keras.Model(x, layers.Conv2D(2, 1)(norm))
    program = as_program(model)
    after = fold(program, {"normalization": 0.7})
    values = np.arange(36, dtype="int32").reshape(1, 3, 3, 4)
    own, found = answers(program, values), answers(after.program, values)
    np.testing.assert_allclose(found["conv2d"], own["conv2d"], rtol=1e-5)


def test_a_shared_layer_is_not_doubled(folded):
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="shared")
    first = layers.BatchNormalization()(dense(x))
    second = layers.BatchNormalization()(dense(keras.ops.tanh(x)))
    model = keras.Model(x, layers.Add()([first, second]))
    _, kinds = folded(model)
    assert kinds.count("Dense") == 2
    assert weights(fold(as_program(model), {}).program) <= weights(
        as_program(model)
    )


def test_a_network_that_is_called_twice_is_folded_in_both_calls(folded):
    given = keras.Input((4, 4, 3), name="given")
    y = layers.Conv2D(3, 3, padding="same")(given)
    y = layers.Activation("relu")(layers.BatchNormalization()(y))
    inner = keras.Model(given, y, name="inner")
    x = keras.Input((4, 4, 3), name="x")
    model = keras.Model(x, layers.Subtract()([inner(inner(x)), x]))
    _, kinds = folded(model)
    assert kinds == ["Conv2D", "Activation"] * 2 + ["Subtract"]
    after = fold(as_program(model), {}).program
    assert weights(after) == 3 * 3 * 3 * 3 + 3


def test_a_layer_that_is_normalised_after_one_call_only_stays(folded):
    x = keras.Input((4,), name="x")
    dense, norm = layers.Dense(4), layers.BatchNormalization()
    both = [norm(dense(x)), layers.ReLU()(dense(layers.ReLU()(x)))]
    counts, _ = folded(keras.Model(x, layers.Subtract()(both)))
    assert counts == {}


def test_a_shared_normalization_becomes_part_of_both(folded):
    x = keras.Input((4,), name="x")
    norm = layers.BatchNormalization()
    both = [norm(layers.Dense(4)(x)), norm(layers.Dense(4)(x))]
    counts, kinds = folded(keras.Model(x, layers.Subtract()(both)))
    assert counts == {"BatchNormalization into the layer before it": 2}
    assert "BatchNormalization" not in kinds


@pytest.mark.parametrize(
    ("mean", "kinds"),
    [(3.0, ["Dense"]), (1000.0, ["subtract_mean", "Dense"])],
    ids=["near", "far"],
)
def test_a_mean_far_from_zero_is_still_subtracted(settle, answers, mean, kinds):
    random = np.random.default_rng(0)
    mean = mean + random.normal(size=64)
    deviation = random.uniform(0.5, 2.0, 64)
    norm = layers.Normalization(mean=mean, variance=deviation**2, name="norm")
    model = settle(line((64,), norm, layers.Dense(16, name="dense")))
    after = fold(as_program(model), {"norm": (mean / deviation).mean()})
    assert [
        getattr(x.operation, "__name__", type(x.operation).__name__)
        for x in after.program.steps
    ] == kinds
    rows = (mean + deviation * random.normal(size=(50, 64))).astype("float32")
    kernel, bias = (x.astype("float64") for x in model.layers[-1].get_weights())
    stored = mean.astype("float32"), (deviation**2).astype("float32")
    centred = (rows.astype("float64") - stored[0]) / np.sqrt(stored[1])
    truth = centred @ kernel + bias
    found = answers(after.program, rows)["dense"]
    assert np.abs(found - truth).max() <= 1e-5 * truth.std(axis=0).mean()


def test_an_unknown_mean_counts_as_far_from_zero(settle):
    norm = layers.Normalization(mean=[0.1] * 4, variance=[1.0] * 4)
    model = settle(line((4,), norm, layers.Dense(3)))
    assert len(fold(as_program(model), {}).program.steps) == 2


# Keras says so of every nested model, and hands the mask to its layers.
@pytest.mark.filterwarnings("ignore:Layer 'reader' .* was passed an input with")
def test_a_mask_is_not_lost_with_a_normalization(answers, own_answers):
    given = keras.Input((4, 3), name="given")
    reader = keras.Model(given, layers.LSTM(2)(given), name="reader")
    x = keras.Input((4, 3), name="x")
    y = layers.Masking()(x)
    y = layers.Normalization(mean=[2.0] * 3, variance=[3.0] * 3)(y)
    model = keras.Model(x, reader(layers.Dense(3)(y)))
    series = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")
    series[:, 2:] = 0
    program = fold(as_program(model), {}).program
    kinds = {type(step.operation) for step in program.steps}
    assert layers.Normalization not in kinds
    found = next(iter(answers(program, series).values()))
    own = own_answers(model, series)[0]
    np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "pair",
    [
        lambda: (layers.Dense(4), layers.Conv1D(3, 1)),
        lambda: (layers.Conv1D(4, 1), layers.Dense(3)),
    ],
    ids=["before it", "after it"],
)
def test_a_dense_and_a_convolution_become_one_that_hands_no_mask_on(
    folded, pair
):
    x = keras.Input((5, 4), name="x")
    first, second = pair()
    counts, kinds = folded(keras.Model(x, second(first(x))))
    assert counts == {"linear layer into the layer after it": 1}
    assert kinds == ["Conv1D"]


def test_a_dense_on_a_map_becomes_part_of_the_convolution_before_it(folded):
    x = keras.Input((7, 7, 4), name="x")
    y = layers.Conv2D(6, 3, strides=2, padding="same")(x)
    _, kinds = folded(keras.Model(x, layers.Dense(3, "relu")(y)))
    assert kinds == ["Conv2D"]


@st.composite
def plans(draw):
    """Layers, each on one or two of those before it."""
    count = draw(st.integers(1, 10))
    numbers = st.integers(0, 100)
    return [
        (
            draw(st.sampled_from(sorted(MADE))),
            draw(st.integers(1, 3)),
            draw(numbers),
            draw(st.integers(1, 4)),
            # An activation that saturates leaves no spread to compare with.
            draw(st.sampled_from(["linear", "linear", "leaky_relu"])),
            draw(st.booleans()),
        )
        for _ in range(count)
    ]


MADE = {
    "dense": lambda y, z, n, f: layers.Dense(n, activation=f)(y),
    "point": lambda y, z, n, f: layers.Conv2D(n, 1, activation=f)(y),
    "conv": lambda y, z, n, f: layers.Conv2D(n, 2, padding="same")(y),
    "depth": lambda y, z, n, f: layers.DepthwiseConv2D(2, padding="same")(y),
    "norm": lambda y, z, n, f: layers.BatchNormalization()(y),
    "other": lambda y, z, n, f: layers.BatchNormalization(axis=1)(y),
    "drop": lambda y, z, n, f: layers.Dropout(0.5)(y),
    "join": lambda y, z, n, f: layers.Concatenate()([y, z]),
    "joined": lambda y, z, n, f: layers.Concatenate(axis=3)([z, y, y]),
}


def network_of(plan):
    x = keras.Input((3, 3, 2), name="x")
    tensors, outputs = [x], []
    for kind, back, other, width, activation, is_output in plan:
        y, z = tensors[-min(back, len(tensors))], tensors[other % len(tensors)]
        tensors.append(MADE[kind](y, z, width, activation))
        # Some, so that most can be folded.
        outputs += [tensors[-1]] * (is_output and other % 3 == 0)
    return keras.Model(x, [*outputs, tensors[-1]])


@settings(
    # JAX compiles each.
    max_examples=4 if keras.config.backend() == "jax" else 12,
    deadline=None,
    derandomize=True,
    # Shrinking an example would build a network in each try.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(plan=plans())
def test_any_folded_network_answers_alike_with_no_more_weights(
    folded, settle, plan
):
    model = network_of(plan)
    # Some networks vary less than they round, such as those of width one.
    folded(model, bound=1e-4, rounding=1e-5)
    before = as_program(settle(model))
    assert weights(fold(before, {}).program) <= weights(before)


@pytest.mark.large
@settings(
    max_examples=300, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(plan=plans())
def test_many_folded_networks_answer_alike(folded, settle, plan):
    model = network_of(plan)
    # Some networks vary less than they round, such as those of width one.
    folded(model, bound=1e-4, rounding=1e-5)
    before = as_program(settle(model))
    assert weights(fold(before, {}).program) <= weights(before)
