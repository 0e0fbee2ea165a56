"""Programs have stock layers, folded where it costs nothing."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.adapters import Adapter, PCAAdapter
from keras_cascade.exporting.inference_program import (
    mean_in_deviations,
    to_inference_program,
    to_stock_layers,
)

WIDTH = 6


def features(offset, rows=300, width=WIDTH):
    """Rows of features whose mean is some deviations from zero."""
    random = np.random.default_rng(0)
    spread = random.normal(size=(rows, width)) * np.linspace(0.5, 2.0, width)
    return (spread + offset * spread.std()).astype("float32")


def upstream(shape=(WIDTH,), dense=False):
    """A network whose features are its inputs, or a Dense of them."""
    x = keras.Input(shape, name="x")
    y = layers.Dense(WIDTH, name="dense")(x) if dense else x
    return keras.Model(x, layers.Activation("linear", name="features")(y))


def cascade_of(adapter, shape=(WIDTH,), dense=False, **arguments):
    return kc.build_cascade(
        upstream(shape, dense),
        taps={"features": "features"},
        adapters={"features": adapter},
        head={"answer": layers.Dense(3, activation="tanh", name="answer")},
        **arguments,
    )


def kinds(program):
    return [
        getattr(x.operation, "__name__", type(x.operation).__name__)
        for x in program.steps
    ]


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("offset", [2.0, 1000.0], ids=["near", "far"])
def test_a_pca_is_folded_and_its_mean_if_it_is_near_zero(
    answers, offset, whiten
):
    rows = features(offset)
    cascade = cascade_of(PCAAdapter(6, whiten=whiten))
    cascade.adapt(rows)
    frozen = to_inference_program(cascade)
    left = [x for x in kinds(frozen.program) if x != "Activation"]
    near = ["Dense"]
    assert left == (near if offset < 10 else ["subtract_mean", "Dense"])
    (found,) = answers(frozen.program, rows).values()
    truth = by_hand(cascade, rows)
    far = np.abs(found - truth).max() / truth.std(axis=0).mean()
    # The inputs of the Dense are exact to 6e-8 of the mean.
    assert far <= 1e-5


def by_hand(cascade, rows):
    """The cascade in float64: centred, projected, whitened, Dense, tanh."""
    (pca,) = cascade.adapters.values()
    mean, components, variance = (
        keras.ops.convert_to_numpy(x).astype("float64")
        for x in (pca.mean, pca.components, pca.explained_variance)
    )
    y = (rows.astype("float64") - mean) @ components.T
    if pca.whiten:
        y = y / np.sqrt(variance)
    kernel, bias = weights_of(cascade, "answer")
    return np.tanh(y @ kernel + bias)


def weights_of(model, name):
    found = {x.path: x for x in model.variables if f"{name}/" in x.path}
    values = [keras.ops.convert_to_numpy(x) for x in found.values()]
    return sorted(values, key=lambda x: -x.ndim)


def test_a_pca_that_pools_a_map_is_folded_after_its_pooling(answers):
    maps = np.random.default_rng(0).normal(1.0, 1.0, (60, 4, 4, WIDTH))
    maps = maps.astype("float32")
    cascade = cascade_of(PCAAdapter(6, pool="avg"), (4, 4, WIDTH))
    cascade.adapt(maps)
    frozen = to_inference_program(cascade)
    left = [x for x in kinds(frozen.program) if x != "Activation"]
    assert left == ["GlobalAveragePooling2D", "Dense"]
    (found,) = answers(frozen.program, maps).values()
    truth = by_hand(cascade, maps.astype("float64").mean((1, 2)))
    assert np.abs(found - truth).max() <= 2e-5 * truth.std(axis=0).mean()


def test_without_folding_every_layer_stays():
    cascade = cascade_of(PCAAdapter(6))
    cascade.adapt(features(1.0))
    frozen = to_inference_program(cascade, folding=False)
    assert frozen.counts == {}
    assert {"Normalization", "Dense"} <= set(kinds(frozen.program))


def test_low_rank_updates_are_merged(answers, own_answers):
    cascade = cascade_of(
        None, dense=True, trainable={"upstream/dense": kc.LoRA(2)}
    )
    for variable in cascade.variables:
        if "lora" in variable.path:
            variable.assign(keras.random.normal(variable.shape))
    rows = features(0.0)
    frozen = to_inference_program(cascade)
    assert not any(
        getattr(layer, "lora_enabled", False) for layer in frozen.program.layers
    )
    (found,) = answers(frozen.program, rows).values()
    (own,) = own_answers(cascade, rows)
    np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-5)


def test_layers_that_only_retention_needs_are_left_out(answers, own_answers):
    x = keras.Input((WIDTH,), name="x")
    tap = layers.Dense(WIDTH, activation="tanh", name="features")(x)
    network = keras.Model(x, layers.Dense(5, "softmax", name="old_head")(tap))
    cascade = kc.build_cascade(
        network,
        taps="features",
        adapters=None,
        head=layers.Dense(3, name="answer"),
        trainable=True,
        retention={"upstream": kc.LwF(1.0, 2.0)},
        optimizer="sgd",
        loss="mse",
    )
    rows = features(0.0)
    cascade.fit(rows, np.zeros((len(rows), 3)), verbose=0)
    frozen = to_inference_program(cascade)
    assert {layer.name for layer in frozen.program.layers} == {
        "features",
        "answer",
    }
    (found,) = answers(frozen.program, rows).values()
    np.testing.assert_allclose(
        found, own_answers(cascade, rows)[0], rtol=1e-4, atol=1e-5
    )


def test_an_adapter_without_stock_layers_runs_as_it_is(answers, own_answers):
    @keras.saving.register_keras_serializable(package="test_freezing")
    class Squared(Adapter):
        def call(self, inputs):
            return keras.ops.square(inputs)

    cascade = cascade_of(Squared())
    assert to_stock_layers(cascade) is cascade
    rows = features(0.5)
    (found,) = answers(to_inference_program(cascade).program, rows).values()
    np.testing.assert_allclose(
        found, own_answers(cascade, rows)[0], rtol=1e-4, atol=1e-5
    )


def test_a_model_of_stock_layers_is_returned():
    model = upstream()
    assert to_stock_layers(model) is model


def test_the_mean_of_each_feature_is_measured_in_its_own_deviations(settle):
    # A feature far from zero by its deviation, beside one of a large one.
    x = keras.Input((2,), name="x")
    norm = layers.Normalization(mean=[1000.0, 0.0], variance=[1.0, 1e12])
    model = settle(keras.Model(x, layers.Dense(3)(norm(x))))
    assert kinds(to_inference_program(model).program) == [
        "subtract_mean",
        "Dense",
    ]
    norm = layers.Normalization(mean=[3.0, 1e3], variance=[1.0, 1e6])
    model = settle(keras.Model(x, layers.Dense(3)(norm(x))))
    assert kinds(to_inference_program(model).program) == ["Dense"]


def test_a_feature_that_never_varies_causes_no_division_by_zero(
    settle, answers
):
    x = keras.Input((2,), name="x")
    norm = layers.Normalization(mean=[0.0, 1.0], variance=[0.0, 4.0])
    model = settle(keras.Model(x, layers.Dense(3, name="y")(norm(x))))
    rows = np.array([[0.0, 1.0], [0.0, 5.0]], "float32")
    kernel, bias = (x.astype("float64") for x in model.layers[-1].get_weights())
    truth = np.array([[0.0, 0.0], [0.0, 2.0]]) @ kernel + bias
    found = answers(to_inference_program(model).program, rows)["y"]
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


def test_a_whitened_mean_is_measured_by_the_faintest_component(answers):
    random = np.random.default_rng(0)
    axes, _ = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))
    spread = random.normal(size=(300, WIDTH)) * np.geomspace(1.0, 1e-3, WIDTH)
    rows = (spread @ axes + 3.0).astype("float32")
    cascade = cascade_of(PCAAdapter(6, whiten=True))
    cascade.adapt(rows)
    (pca,) = cascade.adapters.values()
    exact = rows.astype("float64")
    faintest = np.linalg.eigvalsh(np.cov(exact.T)).min()
    mean = np.sqrt((exact.mean(axis=0) ** 2).mean())
    assert mean_in_deviations(pca) == pytest.approx(
        mean / np.sqrt(faintest), rel=1e-2
    )
    frozen = to_inference_program(cascade)
    assert "subtract_mean" in kinds(frozen.program)
    # Folded into the bias, the mean would cost ten times as much.
    (found,) = answers(frozen.program, rows).values()
    truth = by_hand(cascade, rows)
    assert np.abs(found - truth).max() <= 2e-4 * truth.std(axis=0).mean()


@pytest.mark.parametrize("offset", [0.0, 3.0, 500.0])
def test_the_mean_in_deviations_equals_that_of_numpy(offset):
    rows = features(offset)
    adapter = PCAAdapter(2).adapt(rows)
    exact = rows.astype("float64")
    mean = np.sqrt((exact.mean(axis=0) ** 2).mean())
    deviation = np.sqrt(exact.var(axis=0, ddof=1).mean())
    found = mean_in_deviations(adapter)
    assert found == pytest.approx(mean / deviation, rel=1e-5)


def test_only_the_requested_outputs_are_in_the_program():
    x = keras.Input((2,), name="x")
    y, z = layers.Dense(2, name="y")(x), layers.Dense(2, name="z")(x)
    frozen = to_inference_program(keras.Model(x, {"y": y, "z": z}), ["z"])
    assert list(frozen.program.outputs) == ["z"]
    assert [step.name for step in frozen.program.steps] == ["z"]
