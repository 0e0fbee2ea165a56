"""Tests measurements against NumPy on the networks' own weights."""

import weakref

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.analysis.networks import encoder, passing, severities, standardised

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")


def test_statistics_are_those_of_the_features():
    network = encoder()
    report = kc.check_interface(network, taps=["wide"], data=X)
    kernel, bias = map(np.asarray, network.get_layer("wide").get_weights())
    features = np.maximum(X @ kernel + bias, 0)
    measured = report.rows[0].measured
    assert measured.mean == pytest.approx(features.mean(), rel=1e-4)
    assert measured.deviation == pytest.approx(features.std(), rel=1e-4)
    assert measured.maximum == pytest.approx(features.max(), rel=1e-4)
    assert measured.minimum == 0
    assert measured.zeros == pytest.approx((features == 0).mean(), abs=1e-3)


def test_the_distance_from_a_batch_normalization_equals_numpys():
    mean, variance = np.array([1.0, -2.0, 0.5]), np.array([4.0, 0.25, 1.0])
    rows = RNG.normal(2.0, 3.0, size=(50, 3)).astype("float32")
    report = kc.check_interface(
        passing(3), standardised(mean, variance), data=rows
    )
    (found,) = report.rows[0].distances
    shift = np.abs(rows.mean(0) - mean) / np.sqrt(variance)
    spread = np.abs(np.log(rows.var(0) / variance))
    assert found.shift_median == pytest.approx(np.median(shift), rel=1e-4)
    assert found.shift_max == pytest.approx(shift.max(), rel=1e-4)
    assert found.spread_median == pytest.approx(np.median(spread), rel=1e-4)
    assert found.spread_max == pytest.approx(spread.max(), rel=1e-4)
    assert severities(report) == ["warning"]
    near = rows * np.sqrt(variance) / rows.std(0)
    near = (near - near.mean(0) + mean).astype("float32")
    report = kc.check_interface(
        passing(3), standardised(mean, variance), data=near
    )
    assert report.findings == []


def test_each_tap_of_a_concatenation_is_compared_with_its_own_channels():
    inputs = keras.Input((4,), name="x")
    first = layers.Identity(name="first")(inputs)
    network = keras.Model(inputs, layers.Identity(name="second")(first))
    rows = RNG.normal(size=(30, 4)).astype("float32")
    mean = np.concatenate([rows.mean(0), rows.mean(0) + 5])
    variance = np.concatenate([rows.var(0), rows.var(0)])
    report = kc.check_interface(
        network,
        standardised(mean, variance),
        taps=["first", "second"],
        data=rows,
    )
    near, far = (row.distances[0] for row in report.rows)
    assert near.shift_max < 1e-3
    expected = 5 / rows.std(0)
    assert far.shift_max == pytest.approx(expected.max(), rel=1e-3)
    assert [found.where for found in report.findings] == [("second",)]


def test_taps_that_are_added_are_compared_as_their_sum():
    rows = RNG.normal(size=(30, 4)).astype("float32")
    total = 2 * rows
    report = kc.check_interface(
        {"a": passing(4), "b": passing(4)},
        standardised(total.mean(0), total.var(0)),
        fusion="add",
        data=rows,
    )
    for row in report.rows:
        assert row.distances[0].shift_max < 1e-3
        assert row.distances[0].spread_max < 1e-3


def test_other_features_are_compared_at_the_first_normalisations():
    rows = RNG.normal(size=(30, 4)).astype("float32")
    inputs = keras.Input((4,))
    dense, norm = layers.Dense(3), layers.BatchNormalization(name="norm")
    downstream = keras.Model(inputs, norm(dense(inputs)), name="expert")
    kernel = np.asarray(dense.get_weights()[0])
    inner = rows @ kernel
    mean, variance = inner.mean(0) + 2, inner.var(0) * 9
    norm.set_weights([np.ones(3), np.zeros(3), mean, variance])
    report = kc.check_interface(passing(4), downstream, data=rows)
    (found,) = report.rows[0].distances
    expected = np.median(2 / np.sqrt(variance))
    assert found.shift_median == pytest.approx(expected, rel=1e-3)
    assert found.spread_median == pytest.approx(np.log(9), rel=1e-3)
    assert found.layer == "BatchNormalization 'downstream/norm'"


def test_at_an_injection_features_are_compared_with_the_layers_own():
    x = inputs = keras.Input((4,), name="y")
    norm = layers.BatchNormalization(name="norm")
    x = layers.Dense(2)(layers.ReLU(name="act")(norm(x)))
    downstream = keras.Model(inputs, x, name="expert")
    beta = np.array([1.0, 2.0, 3.0, 4.0])
    norm.set_weights([np.ones(4), beta, np.zeros(4), np.ones(4)])
    rows = (beta + RNG.normal(size=(200, 4))).astype("float32")
    report = kc.check_interface(
        passing(4),
        downstream,
        taps={"a": "same"},
        inject={"a": kc.Injection("norm", merge="replace")},
        data=rows,
    )
    (found,) = report.rows[0].distances
    variance = 1 / (1 + norm.epsilon)
    shift = np.abs(rows.mean(0) - beta) / np.sqrt(variance)
    assert found.shift_median == pytest.approx(np.median(shift), rel=1e-3)
    assert found.at == "after"


def test_adapters_that_learn_are_fitted_before_they_are_measured():
    network = encoder()
    pca = kc.adapters.PCAAdapter(3, whiten=True)
    report = kc.check_interface(
        network,
        standardised([0.0] * 3, [1.0] * 3),
        taps={"a": "vector"},
        adapters=pca,
        data=X,
    )
    (found,) = report.rows[0].distances
    # Whitened components have mean 0, and variance 1 with denominator n - 1.
    assert found.shift_max == pytest.approx(0, abs=1e-4)
    assert found.spread_max == pytest.approx(-np.log(39 / 40), abs=1e-3)
    assert not pca.fitted


def test_a_generator_is_measured_up_to_adapters_that_need_a_second_pass():
    report = kc.check_interface(
        encoder(),
        standardised([0.0] * 3, [1.0] * 3),
        taps={"a": "vector"},
        adapters=kc.adapters.PCAAdapter(3),
        data=(X[i : i + 10] for i in range(0, 40, 10)),
    )
    assert report.rows[0].measured.values == 40 * 7
    assert report.rows[0].distances == ()
    (found,) = report.findings
    assert (found.severity, found.where) == ("note", ("adapters/a",))


def test_values_that_are_not_finite_are_an_error():
    rows = X.copy()
    rows[3, 2] = np.nan
    report = kc.check_interface(passing(6), data=rows)
    assert report.rows[0].measured.non_finite == 1
    assert severities(report) == ["error"]


def test_a_constant_tap_is_a_warning():
    inputs = keras.Input((6,), name="x")
    dense = layers.Dense(2, kernel_initializer="zeros", name="dead")
    report = kc.check_interface(
        keras.Model(inputs, dense(inputs)), taps="dead", data=X
    )
    (found,) = report.findings
    assert (found.severity, found.where) == ("warning", ("dead",))


def test_data_without_an_input_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"'inputs', 'side'.*has 'inputs'"):
        kc.check_interface(
            passing(6), extra_inputs={"side": (2,)}, data={"inputs": X}
        )


def test_data_are_not_read_if_the_cascade_does_not_build():
    report = kc.check_interface(
        passing(6), passing(4), adapters=None, data=iter(())
    )
    assert severities(report) == ["error", "note"]


def test_masked_steps_are_not_measured():
    inputs = keras.Input((4,), dtype="int32", name="ids")
    embed = layers.Embedding(5, 2, mask_zero=True, name="embed")
    network = keras.Model(inputs, layers.LSTM(3)(embed(inputs)))
    ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0]], "int32")
    report = kc.check_interface(network, taps="embed", data=ids)
    table = np.asarray(embed.get_weights()[0])
    measured = report.rows[0].measured
    assert measured.values == 3 * 2
    assert measured.mean == pytest.approx(table[[1, 2, 3]].mean(), rel=1e-4)


def test_memory_does_not_hold_the_data():
    class Endless:
        """Many batches, of which one is alive at a time."""

        alive = largest = 0

        def __iter__(self):
            for _ in range(20):
                batch = np.ones((4, 6), "float32")
                weakref.finalize(batch, self.gone)
                self.alive += 1
                self.largest = max(self.alive, self.largest)
                yield batch
                del batch

        def gone(self):
            self.alive -= 1

    data = Endless()
    report = kc.check_interface(passing(6), data=data)
    assert report.rows[0].measured.values == 20 * 4 * 6
    assert data.largest < 5
