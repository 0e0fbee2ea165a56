"""LogitsAdapter against SciPy: logits by definition, temperatures by search."""

import zipfile

import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

import keras_cascade as kc
from keras_cascade.adapters import LogitsAdapter
from keras_cascade.testing import check_adapter


def to_numpy(x):
    return np.array(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


def scores(temperature: float = 1.0, shape: tuple = (400, 5)):
    """Returns logits, and labels drawn by `logits / temperature`."""
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=2.0, size=shape)
    noise = rng.gumbel(size=shape)
    labels = (logits + noise).argmax(axis=-1)
    return (logits * temperature).astype("float32"), labels


def probabilities(temperature: float = 1.0, shape: tuple = (400, 5)):
    logits, labels = scores(temperature, shape)
    return softmax(logits.astype("float64"), axis=-1).astype("float32"), labels


def best_temperature(logits, labels) -> float:
    """Returns the temperature of lowest negative log likelihood, by SciPy."""
    logits = np.asarray(logits, "float64").reshape(-1, logits.shape[-1])
    rows = np.arange(len(logits))

    def loss(log_temperature):
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[rows, np.reshape(labels, -1)].mean()

    found = minimize_scalar(
        loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}
    )
    return float(np.exp(found.x))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_probabilities_become_their_logarithms_by_the_temperature(temperature):
    given, _ = probabilities()
    result = to_numpy(LogitsAdapter(temperature)(given))
    expected = np.log(given.astype("float64")) / temperature
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_the_softmax_of_the_logits_is_the_probabilities():
    given, _ = probabilities(4.0)
    result = to_numpy(LogitsAdapter()(given)).astype("float64")
    np.testing.assert_allclose(softmax(result, axis=1), given, atol=1e-6)


def test_logits_are_only_divided():
    given, _ = scores()
    result = to_numpy(LogitsAdapter(4.0, from_probabilities=False)(given))
    np.testing.assert_allclose(result, given / 4, rtol=1e-6)


def test_one_unit_is_a_sigmoid():
    given = expit(np.linspace(-30, 8, 50))[:, None].astype("float32")
    result = to_numpy(LogitsAdapter()(given))
    expected = logit(given.astype("float64"))
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_independent_sigmoid_units_are_an_option():
    given = np.array([[0.5, 0.9, 0.2], [0.99, 0.5, 0.001]], "float32")
    result = to_numpy(LogitsAdapter(2.0, activation="sigmoid")(given))
    np.testing.assert_allclose(
        result, logit(given.astype("float64")) / 2, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("dtype", "lowest"),
    [
        ("float32", -63 * np.log(2)),
        ("mixed_bfloat16", -63 * np.log(2)),
        ("mixed_float16", -24 * np.log(2)),
        ("float16", -24 * np.log(2)),
    ],
)
def test_zero_and_one_give_finite_logits_in_every_precision(dtype, lowest):
    adapter = LogitsAdapter(dtype=dtype)
    result = adapter(np.array([[0.0, 1.0, 0.0]], adapter.compute_dtype))
    assert keras.backend.standardize_dtype(result.dtype) == (
        adapter.compute_dtype
    )
    np.testing.assert_allclose(
        to_numpy(result), [[lowest, 0.0, lowest]], rtol=5e-3
    )
    unit = LogitsAdapter(dtype=dtype)(np.array([[0.0], [1.0]], "float32"))
    np.testing.assert_allclose(
        to_numpy(unit), [[lowest], [24 * np.log(2)]], rtol=5e-3
    )


def test_half_precision_loses_no_more_than_rounding_its_outputs():
    given, _ = probabilities(4.0)
    result = LogitsAdapter(1.5, dtype="mixed_float16")(given)
    expected = np.log(np.maximum(given, 2.0**-24)) / 1.5
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("batch_size", [17, 400])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_is_the_one_scipy_finds(temperature, batch_size):
    given, labels = probabilities(temperature)
    adapter = LogitsAdapter(temperature=None).adapt((given, labels), batch_size)
    expected = best_temperature(np.log(given.astype("float64")), labels)
    assert adapter.temperature_ == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        to_numpy(adapter(given)),
        np.log(given.astype("float64")) / expected,
        rtol=1e-5,
        atol=1e-6,
    )


def test_labels_come_as_ids_in_a_column_or_as_rows():
    given, labels = scores(2.0)
    expected = best_temperature(given, labels)
    for kind in (labels[:, None], np.eye(5, dtype="float32")[labels]):
        adapter = LogitsAdapter(temperature=None, from_probabilities=False)
        adapter.adapt((given, kind))
        assert adapter.temperature_ == pytest.approx(expected, rel=1e-5)


def test_each_position_is_a_sample_unless_masked():
    given, labels = probabilities(2.0, (30, 20, 4))
    mask = np.arange(20) < np.random.default_rng(0).integers(1, 20, (30, 1))
    # The label of padding is no class.
    labels = np.where(mask, labels, -1)
    adapter = LogitsAdapter(temperature=None)
    adapter.update_state(given, labels, mask=mask)
    adapter.finalize_state()
    expected = best_temperature(
        np.log(given[mask].astype("float64")), labels[mask]
    )
    assert adapter.temperature_ == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("units", [1, 3])
def test_sigmoids_are_fitted_unit_by_unit(units: int):
    rng = np.random.default_rng(0)
    true = rng.normal(scale=2, size=(500, units))
    labels = (rng.random(true.shape) < expit(true)).astype("int32")
    given = expit(2.5 * true).astype("float32")
    adapter = LogitsAdapter(temperature=None, activation="sigmoid")
    adapter.adapt((given, labels), batch_size=100)
    pairs = logit(given.astype("float64")).reshape(-1, 1) * [0.0, 1.0]
    expected = best_temperature(pairs, labels)
    assert adapter.temperature_ == pytest.approx(expected, rel=1e-5)


def test_a_given_temperature_reads_no_data():
    def never_read():
        pytest.fail("The data was read.")
        yield

    adapter = LogitsAdapter(3.0)
    assert adapter.adapt(never_read()).temperature_ == 3.0
    assert not adapter.needs_data


def test_gradients_reach_earlier_layers_and_stay_finite_at_zero():
    hard = np.array([[0.0, 1.0, 0.0], [0.3, 0.3, 0.4]], "float32")
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, use_bias=False, kernel_initializer="zeros"),
            keras.layers.Activation("softmax"),
        ]
    )
    model = keras.Sequential([network, LogitsAdapter(2.0)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(hard, np.array([[1.0, 0, 0], [0, 0, 1]]), verbose=0)
    kernel = to_numpy(network.weights[0])
    assert np.isfinite(kernel).all()
    # The gradient of the loss by the logits, -log(3) / 2, by hand.
    error = np.full((2, 3), -np.log(3) / 2) - [[1.0, 0, 0], [0, 0, 1]]
    slope = 2 * error / 6 / 2
    slope -= slope.sum(axis=1, keepdims=True) / 3
    np.testing.assert_allclose(kernel, -0.5 * hard.T @ slope, atol=1e-6)


def test_training_moves_the_temperature_only_if_trainable():
    given, labels = probabilities(3.0)
    adapter = LogitsAdapter(trainable=True)
    model = keras.Sequential([keras.Input((5,)), adapter])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    model.fit(given, labels, epochs=8, verbose=0)
    assert adapter.temperature_ > 1.5
    frozen = LogitsAdapter(2.0)
    frozen.build((None, 5))
    assert frozen.trainable_weights == []


def fitted_cascade(dtype: str = "float32"):
    """A network of five classes, and a temperature fitted after it."""
    x, labels = scores(2.0)
    inputs = keras.Input((5,), name="x")
    outputs = keras.layers.Activation("softmax", dtype=dtype)(inputs)
    cascade = kc.build_cascade(
        keras.Model(inputs, outputs),
        adapters=LogitsAdapter(temperature=None, dtype=dtype),
    )
    cascade.adapt((x, labels), batch_size=64, verbose=False)
    return cascade, x, labels


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_it_is_fitted_saved_and_loaded_within_a_cascade(dtype, tmp_path):
    cascade, x, labels = fitted_cascade(dtype)
    adapter = cascade.adapters["output"]
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    expected = best_temperature(x, labels)
    assert adapter.temperature_ == pytest.approx(expected, rel=tolerance)
    cascade.save(tmp_path / "cascade.keras")
    again = keras.models.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), cascade.predict(x, verbose=0)
    )
    assert again.adapters["output"].temperature_ == adapter.temperature_


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_stock_layers_compute_the_same_and_name_no_class_of_ours(
    dtype, tmp_path
):
    cascade, x, _ = fitted_cascade(dtype)
    path = tmp_path / "plain.keras"
    cascade.to_plain().save(path)
    with zipfile.ZipFile(path) as archive:
        assert b"keras_cascade" not in archive.read("config.json")
    plain = keras.models.load_model(path)
    np.testing.assert_allclose(
        plain.predict(x, verbose=0).astype("float32"),
        cascade.predict(x, verbose=0).astype("float32"),
        rtol=1e-6 if dtype == "float32" else 2e-3,
        atol=1e-6,
    )


def test_a_copy_has_the_fitted_temperature():
    given, labels = probabilities(2.0)
    adapter = LogitsAdapter(None).adapt((given, labels))
    twin = adapter.copy("twin")
    assert twin.fitted
    assert twin.temperature_ == adapter.temperature_
    twin.adapt(probabilities(0.5))
    assert twin.temperature_ < 1 < adapter.temperature_


@pytest.mark.parametrize(
    "adapter",
    [
        LogitsAdapter(2.0),
        LogitsAdapter(None),
        LogitsAdapter(None, activation="sigmoid"),
        LogitsAdapter(0.5, trainable=True),
    ],
    ids=["given", "fitted", "sigmoid", "trainable"],
)
def test_cascades_can_rely_on_it(adapter):
    given, labels = probabilities(2.0, (64, 5))
    labels = np.eye(5)[labels]
    assert "stock_layers_give_the_same" in check_adapter(
        adapter, data=given, labels=labels
    )


def test_probabilities_that_do_not_sum_to_one_are_an_error():
    given, labels = probabilities()
    given[[130, 160]] *= [[2.0], [0.5]]
    adapter = LogitsAdapter(temperature=None, name="certainty")
    message = (
        r"'certainty', batch 1: 2 of 100 rows are no probabilities.*"
        r"Their sums are 2, 0\.5,.*from_probabilities=False"
    )
    with pytest.raises(ValueError, match=message):
        adapter.adapt((given, labels), batch_size=100)


def test_negative_probabilities_and_nan_are_an_error():
    given, labels = probabilities()
    given[0] = [-0.5, 1.5, 0, 0, 0]
    with pytest.raises(ValueError, match=r"smallest entry is -0\.5"):
        LogitsAdapter(None).adapt((given, labels))
    given[0] = np.nan
    with pytest.raises(ValueError, match="1 of 256 rows are no prob"):
        LogitsAdapter(None).adapt((given, labels))
    with pytest.raises(ValueError, match="1 of 256 rows hold NaN"):
        LogitsAdapter(None, False).adapt((given, labels))
    sigmoid = LogitsAdapter(None, activation="sigmoid")
    with pytest.raises(ValueError, match="between 0 and 1, received -3 to 2"):
        sigmoid.adapt((np.array([[-3.0], [2.0]]), np.array([0, 1])))


def test_probabilities_rounded_to_half_precision_are_accepted():
    shape = (50, 1000)
    logits = np.random.default_rng(0).normal(size=shape) * 2
    given = keras.ops.cast(softmax(logits, axis=1), "float16")
    labels = (logits + np.random.default_rng(1).gumbel(size=shape)).argmax(1)
    adapter = LogitsAdapter(None).adapt((to_numpy(given), labels))
    assert 0.5 < adapter.temperature_ < 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 7, -1]), "2 of 4 labels are outside.*0 to 4: -1, 7"),
        (np.array([0, 1, 2, 1.5]), r"outside.*1\.5"),
        (np.array(["a", "b", "c", "d"]), "class ids, received.*<U1"),
        (np.zeros((4, 3)), r"shape \(4, 3\) for scores of shape \(4, 5\)"),
        (np.full((4, 5), 0.5), r"labels: 4 of 4 rows.*sums are 2\.5"),
        (np.array([np.nan, 0, 0, 0]), "outside.*nan"),
    ],
    ids=["outside", "between", "text", "shape", "rows", "nan"],
)
def test_labels_outside_the_classes_are_an_error(labels, message):
    given, _ = probabilities()
    with pytest.raises(ValueError, match=message):
        LogitsAdapter(None).adapt((given[:4], labels))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2]), "0 or 1, received 2"),
        (np.zeros((3, 2)), r"of shape \(3,\) or \(3, 1\)"),
    ],
)
def test_labels_of_a_sigmoid_are_zero_or_one(labels, message):
    with pytest.raises(ValueError, match=message):
        LogitsAdapter(None).adapt((np.full((3, 1), 0.5), labels))


def test_missing_labels_and_missing_data_are_an_error():
    given, _ = probabilities()
    with pytest.raises(ValueError, match=r"'mine' \(LogitsAdapter\) learns"):
        LogitsAdapter(None, name="mine").adapt(given)
    with pytest.raises(ValueError, match="'mine' has seen no data"):
        LogitsAdapter(None, name="mine").finalize_state()
    with pytest.raises(ValueError, match="'mine' is not fitted"):
        _ = LogitsAdapter(None, name="mine").temperature_


def test_labels_that_the_scores_always_get_right_are_an_error():
    given, _ = probabilities()
    with pytest.raises(ValueError, match="'mine': no temperature from 0"):
        LogitsAdapter(None, name="mine").adapt((given, given.argmax(axis=1)))


@pytest.mark.parametrize("wrong", [0, -1.0, True, "fit", np.nan, np.inf])
def test_impossible_temperatures_are_an_error(wrong):
    with pytest.raises(ValueError, match="`temperature` is a number above 0"):
        LogitsAdapter(wrong)


def test_other_mistakes_are_explained():
    with pytest.raises(ValueError, match="received 'tanh'"):
        LogitsAdapter(activation="tanh")
    with pytest.raises(ValueError, match="softmax of one class is always 1"):
        LogitsAdapter(activation="softmax")(np.ones((2, 1), "float32"))
    with pytest.raises(ValueError, match="a last axis of classes, of known"):
        LogitsAdapter()(keras.Input((None,)))
    given, labels = probabilities()
    batches = iter([(given, labels), (given[:, :3], labels)])
    with pytest.raises(ValueError, match="batch 1: 3 classes, but 5 before"):
        LogitsAdapter(None).adapt(batches)
