"""How far two answers are apart, by hand, and metrics as Keras has them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_cascade.exporting.checking.parity import (
    compare,
    has_metrics,
    metric_names,
    model_answers,
    score,
)
from keras_cascade.exporting.samples import store_samples
from keras_cascade.graph.flattening import as_program

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(10, 4)).astype("float32")
CLASSES = RANDOM.integers(0, 3, 10)


def pair(expected, found):
    expected = np.asarray(expected, "float32")
    return compare({"y": expected}, {"y": np.asarray(found, "float32")})["y"]


def test_differences_are_in_deviations_over_the_samples():
    expected = RANDOM.normal(size=(50, 2, 3)) * [1.0, 10.0, 100.0]
    found = expected + RANDOM.normal(size=(50, 2, 3))
    expected, found = expected.astype("float32"), found.astype("float32")
    parity = pair(expected, found)
    wanted, given = expected.astype("float64"), found.astype("float64")
    spread = np.mean([wanted[:, i, j].std() for i in (0, 1) for j in range(3)])
    assert parity.spread == pytest.approx(spread)
    worst = max(abs(given.flat[i] - wanted.flat[i]) for i in range(300))
    assert parity.maximum == pytest.approx(worst / spread)
    mean = sum(abs(given - wanted).flat) / 300
    assert parity.mean == pytest.approx(mean / spread)


def test_equal_answers_are_not_apart():
    parity = pair(ROWS, ROWS)
    assert (parity.maximum, parity.mean, parity.agreement) == (0.0, 0.0, 1.0)


def test_of_a_single_sample_the_spread_is_that_of_its_values():
    parity = pair([[1.0, 3.0]], [[1.0, 3.5]])
    assert (parity.spread, parity.maximum) == (1.0, 0.5)


def test_where_nothing_spreads_differences_are_as_they_are():
    parity = pair([[2.0], [2.0]], [[2.0], [2.25]])
    assert (parity.spread, parity.maximum) == (1.0, 0.25)


def test_integers_and_booleans_are_compared():
    whole = np.array([[1, 200], [3, 4]], "uint8")
    found = np.array([[2, 199], [3, 4]], "uint8")
    parity = compare({"y": whole}, {"y": found})["y"]
    assert parity.maximum * parity.spread == pytest.approx(1.0)
    assert compare({"y": whole > 2}, {"y": whole > 2})["y"].maximum == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_is_infinitely_far(value):
    found = ROWS.copy()
    found[3, 1] = value
    parity = pair(ROWS, found)
    assert parity.maximum == parity.mean == np.inf
    assert parity.spread == pytest.approx(ROWS.std(axis=0).mean(), rel=1e-5)


def test_nan_is_no_top_answer():
    expected = np.array([[3.0, 1.0], [3.0, 1.0]])
    assert pair(expected, [[np.nan, 1.0], [3.0, 1.0]]).agreement == 0.5


def test_the_file_has_to_have_the_models_infinities():
    expected = np.array([[0.0, -np.inf], [2.0, 1.0], [1.0, np.nan]])
    parity = pair(expected, expected)
    assert (parity.maximum, parity.agreement) == (0.0, 1.0)
    # The deviation of (0, 2, 1), and of the one number beside it.
    assert parity.spread == pytest.approx(np.std([0.0, 2.0, 1.0]) / 2)
    assert pair(expected, np.zeros((3, 2))).maximum == np.inf
    assert pair(expected, -expected).maximum == np.inf


def test_a_model_that_answers_only_nan():
    empty = np.full((2, 3), np.nan)
    assert pair(empty, empty).maximum == 0.0
    assert pair(empty, np.zeros((2, 3))).maximum == np.inf


@pytest.mark.parametrize(
    ("expected", "found", "share"),
    [
        ([[0.1, 0.9], [0.8, 0.2]], [[0.4, 0.6], [0.3, 0.7]], 0.5),
        ([[0.4], [0.6], [0.9]], [[0.3], [0.4], [0.7]], 2 / 3),
        ([0.4, 0.6], [0.6, 0.6], 0.5),
        ([[-2.0], [0.5]], [[-2.0], [0.5]], None),
        ([[0.5], [1.5]], [[0.5], [1.5]], None),
    ],
    ids=["classes", "sigmoid", "flat", "negative", "large"],
)
def test_the_agreement_is_the_share_of_equal_top_answers(
    expected, found, share
):
    assert pair(expected, found).agreement == share


def test_another_shape_or_name_is_an_error():
    expected = {"y": ROWS}
    with pytest.raises(ValueError, match=r"'y' as \(10, 3\).*\(10, 4\)"):
        compare(expected, {"y": ROWS[:, :3]})
    with pytest.raises(ValueError, match="output 'y' as None"):
        compare(expected, {"z": ROWS})


def network(outputs=lambda y, z: y):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    both = layers.Add()([a, b])
    y = layers.Dense(3, activation="softmax", name="y")(both)
    z = layers.Dense(1, activation="sigmoid", name="z")(both)
    return keras.Model({"b": b, "a": a}, outputs(y, z))


@pytest.mark.parametrize(
    "outputs",
    [lambda y, z: {"z": z, "y": y}, lambda y, z: [y, z]],
    ids=["dict", "list"],
)
def test_the_models_answers_are_by_name_over_all_batches(tmp_path, outputs):
    model = network(outputs)
    program = as_program(model)
    x = {"a": np.tile(ROWS, (4, 1)), "b": np.ones((40, 4), "float32")}
    samples = store_samples(x, program.inputs, tmp_path / "x", "check_data")
    found = model_answers(model, samples, program.outputs, ["z"])
    assert list(found) == ["z"]
    kernel, bias = (v.astype("float64") for v in dense(model, "z"))
    by_hand = 1 / (1 + np.exp(-((x["a"] + x["b"]) @ kernel + bias)))
    np.testing.assert_allclose(found["z"], by_hand, rtol=1e-4)


def dense(model, name):
    return model.get_layer(name).get_weights()


def test_a_sequential_model_answers_too(tmp_path):
    made = [keras.Input((4,), name="x"), layers.Dense(1, "sigmoid", name="y")]
    model = keras.Sequential(made)
    model.compile(loss="mse", metrics=["mae"])
    program = as_program(model)
    samples = store_samples(ROWS, program.inputs, tmp_path / "x", "check_data")
    found = model_answers(model, samples, program.outputs, ["y"])
    np.testing.assert_allclose(
        found["y"], model.predict(ROWS, verbose=0), rtol=1e-5
    )
    truth = np.zeros((10, 1))
    assert score(model, found, [truth])["mae"] == pytest.approx(
        found["y"].mean()
    )


SCORED = {
    "one": (
        lambda y, z: y,
        "sparse_categorical_crossentropy",
        ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, "top")],
        CLASSES,
    ),
    "sigmoid": (
        lambda y, z: z,
        "binary_crossentropy",
        ["accuracy", keras.metrics.MeanSquaredError(name="square_loss")],
        (CLASSES > 1).astype("float32"),
    ),
    "dict": (
        lambda y, z: {"z": z, "y": y},
        {"y": "sparse_categorical_crossentropy", "z": "mse"},
        {"y": ["accuracy"], "z": ["mae"]},
        {"y": CLASSES, "z": RANDOM.uniform(size=(10, 1))},
    ),
    "list": (
        lambda y, z: [z, y],
        ["mse", "sparse_categorical_crossentropy"],
        [["mae"], ["accuracy"]],
        [RANDOM.uniform(size=(10, 1)), CLASSES],
    ),
}


@pytest.mark.parametrize("case", SCORED)
def test_metrics_are_those_of_evaluate(case):
    outputs, loss, metrics, truth = SCORED[case]
    model = network(outputs)
    model.compile("sgd", loss=loss, metrics=metrics)
    x = {"a": ROWS, "b": ROWS[::-1].copy()}
    evaluated = model.evaluate(x, truth, verbose=0, return_dict=True)
    names = as_program(model).outputs
    found = keras.tree.flatten(model.predict(x, verbose=0))
    parts = [
        keras.tree.map_structure(lambda v, part=part: v[part], truth)
        for part in (slice(0, 7), slice(7, 10))
    ]
    scored = score(model, dict(zip(names, found, strict=True)), parts)
    losses = {"loss", "y_loss", "z_loss"}
    assert scored == {
        name: pytest.approx(value, rel=1e-4)
        for name, value in evaluated.items()
        if name not in losses
    }
    assert len(scored) == 2


def test_the_models_metrics_are_reset():
    model = network()
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    score(model, {"y": np.eye(3, dtype="float32")}, [np.arange(3)])
    assert float(model.get_metrics_result()["accuracy"]) == 0.0
    one = score(model, {"y": np.eye(3, dtype="float32")}, [np.arange(3)])
    other = score(model, {"y": np.eye(3, dtype="float32")}, [np.zeros(3)])
    assert one == {"accuracy": 1.0}
    assert other == {"accuracy": pytest.approx(1 / 3)}


def test_a_metric_with_a_value_for_each_class_gives_their_mean():
    model = network()
    model.compile(loss="mse", metrics=[keras.metrics.F1Score(name="f1")])
    truth = np.eye(3, dtype="float32")[[0, 1, 2, 2]]
    given = np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    # By hand: 2/3 for class 0, 1 for class 1, 2/3 for class 2.
    found = score(model, {"y": given}, [truth])
    assert found == {"f1": pytest.approx((2 / 3 + 1 + 2 / 3) / 3)}


def halves(truth, given):
    return keras.ops.abs(truth - given) / 2


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ""),
        ({"metrics": []}, ""),
        ({"metrics": ["accuracy", halves]}, "'accuracy', 'halves'"),
        ({"weighted_metrics": [keras.metrics.AUC(name="area")]}, "'area'"),
        ({"metrics": {"y": ["mae"]}}, "'mae'"),
    ],
)
def test_metrics_are_found_and_named(arguments, names):
    model = network(lambda y, z: {"y": y})
    assert not has_metrics(model)
    model.compile("sgd", "mse", **arguments)
    assert has_metrics(model) == bool(names)
    assert metric_names(model) == names
