"""PCAAdapter is scikit-learn's exact PCA, streamed, as a layer."""

import keras
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from keras_cascade.adapters import PCAAdapter

to_numpy = keras.ops.convert_to_numpy


def features(offset: float = 0.0, rows: int = 400) -> np.ndarray:
    """Returns correlated features; `offset` is their mean by their spread."""
    rng = np.random.default_rng(3)
    spread = np.geomspace(3.0, 0.3, 12)
    mixed = rng.normal(size=(rows, 12)) * spread
    axes, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    x = mixed @ axes
    return (x + offset * x.std()).astype("float32")


def reference(x: np.ndarray, n_components, whiten: bool = False) -> PCA:
    pca = PCA(n_components, whiten=whiten, svd_solver="full")
    return pca.fit(x.astype("float64"))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("whiten", [False, True])
def test_components_equal_the_exact_pca_of_scikit_learn(offset, whiten):
    x = features(offset)
    adapter = PCAAdapter(5, whiten=whiten).adapt(x)
    exact = reference(x, 5, whiten)
    np.testing.assert_allclose(
        to_numpy(adapter.explained_variance),
        exact.explained_variance_,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        adapter.explained_variance_ratio_,
        exact.explained_variance_ratio_,
        rtol=1e-5,
    )
    components = to_numpy(adapter.components)
    angles = subspace_angles(components.T, exact.components_.T)
    assert angles.max() < 1e-3
    np.testing.assert_allclose(components, exact.components_, atol=1e-5)
    # The input is exact to 6e-8 of its mean, and so is the mean.
    atol = 1e-5 + 1e-6 * offset
    np.testing.assert_allclose(
        to_numpy(adapter(x)), exact.transform(x), atol=atol
    )


def test_a_fraction_keeps_as_many_components_as_scikit_learn():
    x = features(10.0)
    for fraction in (0.2, 0.5, 0.9, 0.95, 0.999):
        adapter = PCAAdapter(fraction).adapt(x)
        assert adapter.n_components_ == reference(x, fraction).n_components_
        assert adapter(x).shape[1] == adapter.n_components_


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_does_not_matter(batch_size: int):
    x = features(100.0)
    whole = PCAAdapter(4).adapt(x, batch_size=len(x))
    cut = PCAAdapter(4).adapt(x, batch_size=batch_size)
    for one, other in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_it_learns_from_a_stream_of_batches_with_labels():
    x = features()
    parts = ((part, part[:, 0]) for part in np.split(x, 8))
    np.testing.assert_allclose(
        to_numpy(PCAAdapter(3).adapt(parts).components),
        reference(x, 3).components_,
        atol=1e-5,
    )


def test_it_learns_through_the_layer_protocol_inside_a_model():
    x = features()
    inputs = keras.Input((12,))
    adapter = PCAAdapter(3, name="texture")
    model = keras.Model(inputs, adapter(inputs))
    assert not adapter.fitted
    np.testing.assert_array_equal(model.predict(x[:4], verbose=0), 0.0)
    adapter.reset_state()
    adapter.update_state(keras.ops.convert_to_tensor(x[:100]))
    adapter.update_state(x[100:])
    adapter.finalize_state()
    assert adapter.fitted
    np.testing.assert_allclose(
        model.predict(x[:4], verbose=0),
        reference(x, 3).transform(x[:4]),
        atol=1e-5,
    )


def test_adapting_again_forgets_what_was_learned():
    x = features()
    adapter = PCAAdapter(0.9).adapt(x[:50] * 2.0 + 1.0)
    width = adapter.n_components_
    adapter.adapt(x)
    np.testing.assert_allclose(
        to_numpy(adapter.components), reference(x, width).components_, atol=1e-5
    )


def test_maps_are_averaged_before_they_are_learned_from():
    maps = np.random.default_rng(0).normal(size=(40, 3, 2, 6))
    maps = maps.astype("float32")
    adapter = PCAAdapter(2).adapt(maps)
    exact = reference(maps.mean(axis=(1, 2)), 2)
    np.testing.assert_allclose(
        to_numpy(adapter(maps)),
        exact.transform(maps.mean(axis=(1, 2))),
        atol=1e-5,
    )


def test_without_pooling_each_position_is_a_sample():
    maps = np.random.default_rng(0).normal(size=(9, 3, 2, 6))
    maps = maps.astype("float32")
    adapter = PCAAdapter(2, pool=None).adapt(maps)
    exact = reference(maps.reshape(-1, 6), 2)
    np.testing.assert_allclose(
        to_numpy(adapter(maps)),
        exact.transform(maps.reshape(-1, 6)).reshape(9, 3, 2, 2),
        atol=1e-5,
    )


def test_masked_steps_are_not_learned_from():
    steps = np.random.default_rng(0).normal(size=(30, 4, 5))
    steps = steps.astype("float32")
    mask = np.arange(4) < np.random.default_rng(1).integers(1, 5, (30, 1))
    adapter = PCAAdapter(2, pool=None)
    adapter.update_state(steps, mask=mask)
    adapter.finalize_state()
    np.testing.assert_allclose(
        to_numpy(adapter.mean), steps[mask].mean(axis=0), atol=1e-6
    )
    pooled = PCAAdapter(2)
    pooled.update_state(steps, mask=mask)
    pooled.finalize_state()
    means = [x[m].mean(axis=0) for x, m in zip(steps, mask, strict=True)]
    np.testing.assert_allclose(
        to_numpy(pooled.mean), np.mean(means, axis=0), atol=1e-6
    )


def test_weights_carry_the_name_and_are_frozen_by_default():
    names = {"mean", "components"}
    adapter = PCAAdapter(2, name="texture").adapt(features())
    found = {weight.path for weight in adapter.weights}
    assert {"texture/explained_variance", "texture/fitted"} < found
    assert {f"texture/{name}" for name in names} < found
    assert not any(weight.trainable for weight in adapter.weights)
    adapter.trainable = True
    assert {w.name for w in adapter.trainable_weights} == names


def test_trainable_lets_training_move_mean_and_components():
    x = features()
    adapter = PCAAdapter(3, trainable=True).adapt(x)
    before = adapter.get_weights()
    model = keras.Sequential([adapter, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], epochs=1, batch_size=100, verbose=0)
    moved = [
        weight.name
        for weight, old in zip(adapter.weights, before, strict=True)
        if not np.array_equal(to_numpy(weight), old)
    ]
    assert sorted(moved) == ["components", "mean"]


@pytest.mark.parametrize("n_components", [3, 0.9])
def test_save_and_load_keep_width_state_and_outputs(n_components, tmp_path):
    x = features()
    inputs = keras.Input((12,))
    adapter = PCAAdapter(n_components, whiten=True, name="texture").adapt(x)
    model = keras.Model(inputs, adapter(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.get_layer("texture")
    assert again.fitted
    assert again.n_components == n_components
    assert again.explained_variance_ratio_.sum() <= 1.0
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_a_copy_of_a_fitted_fraction_has_its_width_and_state():
    x = features()
    adapter = PCAAdapter(0.9).adapt(x)
    with keras.name_scope("adapters"):
        twin = adapter.copy(name="shape")
    assert twin.fitted
    assert twin.mean.path == "adapters/shape/mean"
    np.testing.assert_array_equal(to_numpy(twin(x)), to_numpy(adapter(x)))
    twin.mean.assign(np.zeros(12))
    assert to_numpy(adapter.mean).any()


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 2, 3)])
def test_stock_layers_compute_the_same(shape: tuple, whiten: bool):
    x = features(1000.0).reshape(400, *shape)
    adapter = PCAAdapter(2, whiten=whiten).adapt(x)
    y = x
    for layer in adapter.to_plain():
        assert layer.__module__.startswith("keras.")
        y = layer(y)
    # After subtracting a mean of 1,000, float32 has fewer digits left.
    np.testing.assert_allclose(
        to_numpy(y), to_numpy(adapter(x)), rtol=1e-3, atol=2e-3
    )


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_still_subtracts_the_mean_in_float32(dtype: str):
    x = features(1000.0)
    adapter = PCAAdapter(3, dtype=dtype).adapt(x)
    y = adapter(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype[6:]
    np.testing.assert_allclose(
        to_numpy(keras.ops.cast(y, "float32")),
        reference(x, 3).transform(x),
        atol=0.1,
    )


def test_whitening_in_half_precision_gives_unit_variance():
    x = features()
    y = to_numpy(PCAAdapter(3, whiten=True, dtype="mixed_float16").adapt(x)(x))
    np.testing.assert_allclose(y.astype("float32").std(axis=0), 1.0, 0.02)


def test_a_fraction_has_no_width_before_it_is_fitted():
    call = r"PCAAdapter\(0.95\).adapt\(features\)"
    with pytest.raises(ValueError, match=call):
        PCAAdapter(0.95)(keras.Input((8,)))
    with pytest.raises(ValueError, match=call):
        PCAAdapter(0.95).compute_output_shape((None, 8))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_infinity_is_an_error_that_says_where(value: float):
    x = features()
    x[[130, 140], 3] = value
    with pytest.raises(ValueError, match=r"'texture', batch 1: 2 of 100 rows"):
        PCAAdapter(3, name="texture").adapt(x, batch_size=100)


@pytest.mark.parametrize(
    ("rows", "n_components", "message"),
    [
        (4, 5, "'texture': 5 components need at least 5 rows, received 4"),
        (1, 1, "'texture': 1 components need at least 2 rows, received 1"),
        (1, 0.5, "at least 2 rows, received 1"),
        (50, 13, "13 components of an input of 12 features"),
    ],
)
def test_too_little_data_is_an_error(rows, n_components, message: str):
    with pytest.raises(ValueError, match=message):
        PCAAdapter(n_components, name="texture").adapt(features(rows=rows))


@pytest.mark.parametrize(
    "wrong", [0, -1, 1.0, 2.5, 0.0, -0.5, True, None, "mle", float("nan")]
)
def test_impossible_n_components_are_an_error(wrong):
    with pytest.raises(ValueError, match="`n_components` is an int"):
        PCAAdapter(wrong)


@pytest.mark.parametrize("n_components", [2, 0.5])
def test_a_later_batch_of_another_width_is_an_error(n_components):
    x = features()
    with pytest.raises(ValueError, match="batch 1: 5 features, but 12 before"):
        PCAAdapter(n_components).adapt(iter([x, x[:, :5]]))


def test_other_mistakes_are_explained():
    with pytest.raises(ValueError, match="one array of features"):
        PCAAdapter(2).adapt({"a": features()})
    with pytest.raises(ValueError, match="seen no data"):
        PCAAdapter(2).finalize_state()
    with pytest.raises(ValueError, match="is not fitted"):
        _ = PCAAdapter(2).explained_variance_ratio_


def test_the_plot_shows_the_variance_of_each_component_and_their_sum():
    pytest.importorskip("matplotlib")
    decomposition = pytest.importorskip("sklearn.decomposition")
    exact = decomposition.PCA(4).fit(features())
    (axis,) = PCAAdapter(4).adapt(features()).plot().axes
    expected = exact.explained_variance_ratio_
    heights = [bar.get_height() for bar in axis.patches]
    np.testing.assert_allclose(heights, expected, rtol=1e-4)
    (line,) = axis.lines
    np.testing.assert_allclose(line.get_ydata(), np.cumsum(expected), rtol=1e-4)
