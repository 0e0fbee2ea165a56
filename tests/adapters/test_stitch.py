"""StitchAdapter is scikit-learn's Ridge, or SciPy's Procrustes, streamed."""

import keras
import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from keras_cascade.adapters import StitchAdapter
from keras_cascade.adapters.resampling import Resampling

to_numpy = keras.ops.convert_to_numpy
RNG = np.random.default_rng(0)


def pairs(rows: int = 300, width: int = 6, wanted: int = 4):
    """Returns features with a mean, and values that they explain in part."""
    x = RNG.normal(size=(rows, width)) @ RNG.normal(size=(width, width)) + 3
    noise = RNG.normal(size=(rows, wanted))
    y = x @ RNG.normal(size=(width, wanted)) + noise - 2
    return x.astype("float32"), y.astype("float32")


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> Ridge:
    x = x.astype("float64")
    alpha = penalty * ((x - x.mean(axis=0)) ** 2).sum() / x.shape[1]
    return Ridge(alpha, solver="svd").fit(x, y.astype("float64"))


# More features than samples, features of lower rank, and constant ones.
def awkward(kind: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = pairs(20, 30) if kind == "wide" else pairs()
    if kind == "low rank":
        x = x @ RNG.normal(size=(6, 2)) @ RNG.normal(size=(2, 12))
    if kind == "constant":
        x[:, 2:] = 5
    return x.astype("float32"), y


@pytest.mark.parametrize("kind", ["plain", "wide", "low rank", "constant"])
@pytest.mark.parametrize("penalty", [1e-3, 10.0])
def test_the_map_is_that_of_scikit_learn(kind, penalty):
    x, y = awkward(kind)
    adapter = StitchAdapter(penalty=penalty).adapt((x, y), batch_size=7)
    exact = ridge(x, y, penalty)
    found = to_numpy(adapter(x))
    np.testing.assert_allclose(found, exact.predict(x), atol=2e-4)
    expected = r2_score(y, exact.predict(x), multioutput="variance_weighted")
    assert adapter.r2_ == pytest.approx(expected, abs=1e-5)


def test_without_a_penalty_it_is_least_squares():
    x, y = awkward("low rank")
    adapter = StitchAdapter(penalty=0).adapt((x, y))
    ones = np.hstack([x, np.ones((len(x), 1))]).astype("float64")
    expected = ones @ np.linalg.lstsq(ones, y, rcond=1e-6)[0]
    np.testing.assert_allclose(to_numpy(adapter(x)), expected, atol=2e-3)


def test_features_that_never_vary_give_the_mean():
    _, y = pairs()
    x = np.ones((len(y), 3), "float32")
    adapter = StitchAdapter().adapt((x, y))
    mean = np.broadcast_to(y.mean(axis=0), y.shape)
    np.testing.assert_allclose(to_numpy(adapter(x)), mean, atol=1e-4)
    assert adapter.r2_ == pytest.approx(0.0, abs=1e-6)


def test_procrustes_is_that_of_scipy():
    x, y = pairs(width=5, wanted=5)
    adapter = StitchAdapter(method="procrustes").adapt((x, y))
    rotation, _ = orthogonal_procrustes(x - x.mean(axis=0), y - y.mean(axis=0))
    np.testing.assert_allclose(to_numpy(adapter.kernel), rotation, atol=1e-5)
    expected = (x - x.mean(axis=0)) @ rotation + y.mean(axis=0)
    np.testing.assert_allclose(to_numpy(adapter(x)), expected, atol=1e-4)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [(4, 3), (8, 8)])
def test_maps_are_resized_to_the_positions_of_the_values(data_format, size):
    x = RNG.normal(size=(30, 6, 6, 5)).astype("float32")
    y = RNG.normal(size=(30, *size, 3)).astype("float32")
    resized = x
    for axis, n in enumerate(size, start=1):
        resized = np.moveaxis(
            np.moveaxis(resized, axis, -1) @ Resampling(axis, n).kernel(6),
            -1,
            axis,
        )
    expected = ridge(resized.reshape(-1, 5), y.reshape(-1, 3), 1e-3)
    expected = expected.predict(resized.reshape(-1, 5)).reshape(y.shape)
    if data_format == "channels_first":
        x, y = np.moveaxis(x, -1, 1), np.moveaxis(y, -1, 1)
        expected = np.moveaxis(expected, -1, 1)
    adapter = StitchAdapter(data_format=data_format).adapt((x, y))
    np.testing.assert_allclose(to_numpy(adapter(x)), expected, atol=1e-4)
    model = keras.Sequential([keras.Input(x.shape[1:]), *adapter.to_plain()])
    np.testing.assert_allclose(to_numpy(model(x)), expected, atol=1e-4)


def test_values_of_open_size_are_taken_at_the_features_positions():
    x = RNG.normal(size=(9, 4, 4, 3)).astype("float32")
    y = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    adapter = StitchAdapter(
        target_shape=(None, None, 3), penalty=0, antialias=False
    )
    adapter.adapt((x, y))
    np.testing.assert_allclose(to_numpy(adapter(x)), x, atol=1e-5)


def test_maps_are_averaged_for_values_that_are_vectors():
    x = RNG.normal(size=(40, 3, 3, 4)).astype("float32")
    y = RNG.normal(size=(40, 2)).astype("float32")
    adapter = StitchAdapter().adapt((x, y))
    exact = ridge(x.mean(axis=(1, 2)), y, 1e-3)
    expected = exact.predict(x.mean(axis=(1, 2)))
    np.testing.assert_allclose(to_numpy(adapter(x)), expected, atol=1e-5)


def test_masked_steps_do_not_count():
    x = RNG.normal(size=(20, 5, 3)).astype("float32")
    mask = np.arange(5) < RNG.integers(1, 6, size=(20, 1))
    y = np.where(mask[..., None], 2 * x[..., :2] + 1, 1e6).astype("float32")
    adapter = StitchAdapter(target_shape=(5, 2), penalty=0)
    adapter.reset_state()
    adapter.update_state(x, y, mask)
    adapter.finalize_state()
    assert adapter.r2_ == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((np.ones((4, 3)), np.ones((4, 2, 2))), "Maps are mapped to maps"),
        ((np.ones((4, 3)), np.ones(4)), "no vectors, sequences or maps"),
        ((np.full((4, 3), np.nan), np.ones((4, 2))), "hold NaN or infinity"),
        (np.ones((4, 3)), r"learns from labels, and the data has none"),
    ],
)
def test_what_cannot_be_learned_from_is_an_error(data, message):
    with pytest.raises(ValueError, match=message):
        StitchAdapter(name="joint").adapt(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": -1}, "`penalty` is a number of at least 0"),
        ({"method": "lasso"}, "`method` is one of"),
        ({"target_shape": (3, None)}, "a known number of channels"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        StitchAdapter(**arguments)


def test_it_is_not_fitted_before_it_has_seen_data():
    with pytest.raises(ValueError, match="is not fitted"):
        _ = StitchAdapter(target_shape=(3,)).r2_
    with pytest.raises(ValueError, match="does not know the shape"):
        StitchAdapter()(np.ones((2, 3)))
