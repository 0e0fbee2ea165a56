"""A stitched cascade enters the downstream with what it computes itself."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.linear_model import Ridge

import keras_cascade as kc
from keras_cascade.adapters import StitchAdapter

to_numpy = ops.convert_to_numpy
X = np.random.default_rng(0).uniform(0, 255, (40, 8, 8, 3)).astype("float32")


def network(seed: int, size: int = 8, width: int = 6) -> keras.Model:
    """Returns two blocks of convolutions and a head, with statistics."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((size, size, 3), name=f"image_{seed}")
    for n in (1, 2):
        x = layers.Conv2D(width, 3, padding="same", name=f"conv{n}")(x)
        x = layers.BatchNormalization(name=f"norm{n}")(x)
        x = layers.ReLU(name=f"block{n}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(3, name="out")(x), name="net")
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(ops.ones(width) * 1e4)
    return model


def stitched(upstream, downstream, adapter=None, path="block1", **arguments):
    return kc.build_cascade(
        upstream,
        downstream,
        taps={"tap": "block1"},
        adapters={"tap": adapter or StitchAdapter(penalty=1e-6)},
        inject={"tap": kc.Injection(path, merge="replace")},
        **arguments,
    )


def values(model, path, x):
    inner = keras.Model(model.inputs, model.get_layer(path).output)
    return inner.predict(x, verbose=0)


def expected(features, wanted, penalty=1e-6):
    rows = features.reshape(-1, features.shape[-1]).astype("float64")
    alpha = penalty * ((rows - rows.mean(axis=0)) ** 2).sum() / rows.shape[1]
    map_ = Ridge(alpha, solver="svd")
    map_.fit(rows, wanted.reshape(-1, wanted.shape[-1]))
    return map_.predict(rows).reshape(wanted.shape)


def rest(model, path, x):
    """Returns the outputs of a network entered after a layer."""
    names = [layer.name for layer in model.layers]
    for layer in model.layers[names.index(path) + 1 :]:
        x = layer(x)
    return to_numpy(x)


def close(found, wanted):
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found / scale, wanted / scale, atol=2e-4)


def test_a_network_stitched_to_itself_is_itself():
    one = network(0)
    cascade = stitched(one, network(0)).adapt(X, verbose=False)
    close(cascade.predict(X, verbose=0), one.predict(X, verbose=0))
    assert cascade.adapters["tap"].r2_ == pytest.approx(1.0, abs=1e-4)


def test_the_map_is_the_regression_on_what_the_downstream_computes():
    one, other = network(1), network(2)
    before = [to_numpy(v) for v in one.variables + other.variables]
    cascade = stitched(one, other).adapt(X, verbose=False)
    found = expected(values(one, "block1", X), values(other, "block1", X))
    close(cascade.predict(X, verbose=0), rest(other, "block1", found))
    after = [to_numpy(v) for v in one.variables + other.variables]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    # What came before the entry is in no cascade.
    assert not any(
        "conv1" in v.path for v in cascade.blocks["downstream"].variables
    )


def test_images_are_resized_and_preprocessed_for_the_downstream():
    one, other = network(1), network(2, size=12, width=4)
    scaling = layers.Rescaling(1 / 255, name="scaled")
    cascade = stitched(
        one,
        other,
        preprocess={"upstream": None, "downstream": scaling},
    ).adapt(X, verbose=False)
    resize = kc.adapters.SpatialAdapter((12, 12))
    features = kc.adapters.SpatialAdapter((12, 12))(values(one, "block1", X))
    wanted = values(other, "block1", to_numpy(resize(X)) / 255)
    found = expected(to_numpy(features), wanted)
    close(cascade.predict(X, verbose=0), rest(other, "block1", found))


def test_the_values_of_several_entries_are_each_their_own():
    one, other = network(1), network(2)
    cascade = kc.build_cascade(
        one,
        other,
        taps={"tap": "block1"},
        adapters={"tap": StitchAdapter()},
        inject={"tap": [kc.Injection("conv1"), kc.Injection("norm2")]},
    ).adapt(X, verbose=False)
    for adapter, path in zip(
        cascade.adapters.values(), ("conv1", "norm2"), strict=True
    ):
        found = to_numpy(adapter(values(one, "block1", X)))
        wanted = expected(
            values(one, "block1", X), values(other, path, X), 1e-3
        )
        close(found, wanted)


def test_a_target_of_ones_own_feeds_a_downstream_of_features():
    one, old = network(1), network(2)
    features = keras.Model(old.inputs, old.get_layer("pool").output)
    head = keras.Sequential([keras.Input((6,)), layers.Dense(3)], name="head")
    cascade = kc.build_cascade(
        one, head, taps="block2", adapters=StitchAdapter(target=features)
    ).adapt(X, verbose=False)
    pooled = values(one, "block2", X).mean(axis=(1, 2))
    found = expected(pooled, features.predict(X, verbose=0), 1e-3)
    close(cascade.predict(X, verbose=0), to_numpy(head(found)))


def test_it_trains_saves_and_is_plain(tmp_path):
    one, other = network(1), network(2)
    cascade = stitched(one, other, loss="mse", optimizer="sgd")
    with pytest.raises(ValueError, match="Adapters that learn from data"):
        cascade.fit(X, np.zeros((40, 3)), verbose=0)
    cascade.adapt(X, verbose=False)
    fitted = cascade.predict(X, verbose=0)
    close(cascade.to_plain().predict(X, verbose=0), fitted)
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), fitted)
    assert loaded.adapters["tap"].r2_ == cascade.adapters["tap"].r2_
    with pytest.raises(ValueError, match=r"rebuild\(downstream=network\)"):
        loaded.adapt(X)
    again = loaded.rebuild(upstream=one, downstream=other)
    np.testing.assert_allclose(
        again.predict(X, verbose=0), fitted, rtol=1e-4, atol=1e-3
    )
    close(again.adapt(X, verbose=False).predict(X, verbose=0), fitted)
    # Cached features are those before the adapter, which trains.
    y = np.random.default_rng(1).normal(size=(40, 3))
    live = loaded.fit(X, y, shuffle=False, epochs=2, verbose=0)
    cached = cascade.fit(
        X, y, shuffle=False, epochs=2, verbose=0, cache_features=True
    )
    np.testing.assert_allclose(
        cached.history["loss"], live.history["loss"], rtol=1e-4
    )
    assert not np.allclose(cascade.predict(X, verbose=0), fitted)


def test_it_is_measured_before_it_is_built():
    report = kc.check_interface(
        network(0),
        network(0),
        taps={"tap": "block1"},
        adapters=StitchAdapter(penalty=1e-6),
        inject={"tap": kc.Injection("block1", merge="replace")},
        data=X,
    )
    assert not [x for x in report.findings if "adapt would fail" in x.what]


def test_how_well_it_fits_is_said(capsys):
    stitched(network(0), network(0)).adapt(X)
    assert "adapt: 'tap' has an R² of 1.000" in capsys.readouterr().out


def _mistake(upstream, downstream, **arguments):
    with pytest.raises(ValueError) as caught:
        kc.build_cascade(upstream, downstream, **arguments)
    return str(caught.value)


def test_a_downstream_that_cannot_be_fed_is_told_when_building():
    features = keras.Sequential(
        [
            keras.Input((6,), name="features"),
            layers.Dense(4, name="inner"),
            layers.Dense(2),
        ],
        name="expert",
    )
    message = _mistake(
        network(1),
        features,
        taps={"tap": "pool"},
        adapters=StitchAdapter(),
        inject={"tap": kc.Injection("inner", "replace")},
    )
    assert "what downstream 'expert' computes at 'inner'" in message
    assert "input 'features' of shape (6,) takes none of them" in message
    assert "StitchAdapter(target=network)" in message


def test_a_stitched_tap_that_enters_nothing_is_told_when_building():
    message = _mistake(
        network(1), network(2), taps={"tap": "block1"}, adapters=StitchAdapter()
    )
    assert "Injection(path, merge='replace')" in message
    message = _mistake(
        network(1),
        network(2),
        taps={"tap": "pool"},
        adapters=StitchAdapter(),
        inject={"tap": kc.Injection("block1", "replace")},
    )
    assert "Maps are mapped to maps" in message


def test_an_adapter_fitted_alone_needs_no_target():
    one = network(1)
    pooled = values(one, "pool", X)
    adapter = StitchAdapter().adapt((pooled, pooled[:, :4]))
    head = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="head")
    cascade = kc.build_cascade(one, head, taps="pool", adapters=adapter)
    found = cascade.predict(X, verbose=0)
    close(found, to_numpy(head(to_numpy(adapter(pooled)))))
