"""Pairs of taps and entries have the CKA, R² and loss that formulas give."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import keras_cascade as kc
from keras_cascade.ranking.stitch_table import (
    Conditions,
    Stitchability,
    StitchedPair,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 8, 8, 1)).astype("float32")
Y = (X.mean(axis=(1, 2, 3)) > 0).astype("int64")
OTHER = RNG.normal(size=(40, 8, 8, 1)).astype("float32")
PENALTY = 1e-2


def network(seed: int, width: int) -> keras.Model:
    """Returns two blocks, the second of half the size, and a classifier."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.ReLU(name="block1")(x)
    y = layers.Conv2D(width, 3, padding="same", name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.Conv2D(width, 3, 2, "same", activation="relu", name="block2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(2, "softmax", name="out")(x)
    return keras.Model(inputs, x, name=f"net{width}")


def inner(model, path, x):
    return keras.Model(model.inputs, model.get_layer(path).output).predict(
        x, verbose=0
    )


@pytest.fixture(scope="module")
def networks():
    return network(0, 5), network(1, 4)


@pytest.fixture(scope="module")
def found(networks):
    taps = ["block1", "pool"]
    return kc.stitchability(
        *networks,
        (X, Y),
        taps,
        "*",
        validation_data=(OTHER, Y[:40]),
        penalty=PENALTY,
        best=1,
    )


def rows(x, width):
    return x.reshape(-1, width).astype("float64")


def test_the_entries_are_those_that_all_ways_lead_through(found):
    entries = {row.entry for row in found.rows}
    # `branch` is beside a shortcut; what is last leaves nothing.
    assert entries == {"conv1", "norm1", "block1", "sum", "block2", "pool"}
    pairs = {(row.tap, row.entry) for row in found.rows}
    assert ("pool", "pool") in pairs and ("pool", "sum") not in pairs


def test_cka_and_r2_are_those_of_formulas(networks, found):
    one, other = networks
    (row,) = [x for x in found.rows if (x.tap, x.entry) == ("block1", "block1")]
    x, y = rows(inner(one, "block1", X), 5), rows(inner(other, "block1", X), 4)
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    direct = np.linalg.norm(a.T @ b) ** 2
    direct /= np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    assert row.cka == pytest.approx(direct, rel=1e-5)
    ridge = Ridge(PENALTY * (a**2).sum() / 5).fit(x, y)
    new = rows(inner(other, "block1", OTHER), 4)
    predicted = ridge.predict(rows(inner(one, "block1", OTHER), 5))
    expected = r2_score(new, predicted, multioutput="variance_weighted")
    assert row.r2 == pytest.approx(expected, abs=1e-5)


def test_maps_are_averaged_for_entries_that_are_vectors(networks, found):
    (row,) = [x for x in found.rows if (x.tap, x.entry) == ("block1", "pool")]
    x = inner(networks[0], "block1", X).mean(axis=(1, 2)).astype("float64")
    y = inner(networks[1], "pool", X).astype("float64")
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    direct = np.linalg.norm(a.T @ b) ** 2
    direct /= np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    assert row.cka == pytest.approx(direct, rel=1e-4)


def test_the_loss_is_that_of_the_stitched_cascade(networks, found):
    best = found.rows[0]
    assert best.loss is not None and found.rows[1].loss is None
    assert best.control_accuracy is not None and best.control_r2 is not None
    assert best.control_r2 != best.r2
    cascade = kc.build_cascade(
        *networks,
        **found.best(),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    ).adapt(X, verbose=False)
    loss, accuracy = cascade.evaluate(OTHER, Y[:40], verbose=0)
    assert (best.loss, best.accuracy) == pytest.approx((loss, accuracy), 1e-4)
    other = networks[1]
    other.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = other.evaluate(OTHER, Y[:40], verbose=0)
    alone = found.downstream
    assert (alone.loss, alone.accuracy) == pytest.approx((loss, accuracy), 1e-4)


def test_it_is_a_table_plain_values_and_a_picture(found):
    text = str(found)
    assert "untrained R²" in text and "downstream alone" in text
    assert "R² and loss are of 40 other samples" in text
    assert repr(found).startswith(f"<Stitchability of {len(found.rows)} pairs")
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["samples"] == 48 and len(plain["pairs"]) == len(found.rows)
    pytest.importorskip("matplotlib")
    figure = found.plot()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["linear CKA", "R²", "R², untrained upstream"]


@pytest.mark.parametrize(
    ("accuracy", "control", "as_well"),
    [(0.9, 0.88, True), (0.9, 0.86, False), (None, None, False)],
)
def test_a_control_that_does_as_well_is_a_warning(accuracy, control, as_well):
    # The standard error of 0.9 in 100 samples is 0.03.
    pair = StitchedPair("a", "b", 0.5, 0.6, 0.4, 0.5, 0.1, accuracy, 0.2)
    pair = dataclasses.replace(pair, control_accuracy=control)
    conditions = Conditions(100, 0, None, 1e-3)
    text = str(Stitchability([pair], conditions, ["a"], ["b"]))
    assert ("untrained upstream does as well" in text) == as_well


def test_it_is_a_data_frame(found):
    pandas = pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["cka"]) == [row.cka for row in found.rows]


def test_without_labels_or_control_there_are_no_losses(networks):
    found = kc.stitchability(
        *networks,
        (x for x in np.split(X, 4)),
        ["block1"],
        ["sum"],
        control=False,
    )
    (row,) = found.rows
    assert (row.loss, row.control_r2, found.downstream) == (None, None, None)


def _mistake(*arguments, **more):
    with pytest.raises(ValueError) as caught:
        kc.stitchability(*arguments, **more)
    return str(caught.value)


def test_mistakes_are_explained(networks, monkeypatch):
    one, other = networks
    message = _mistake(one, other, X, "block1", ["branch"])
    assert "cannot be entered at 'branch'" in message
    assert "the shortcut of a residual block" in message
    message = _mistake(one, other, X, ["pool"], ["sum"])
    assert "No tap fits an entry" in message and "'pool'" in message
    vectors = keras.Sequential(
        [keras.Input((7,)), layers.Dense(3, name="a"), layers.Dense(2)]
    )
    message = _mistake(one, vectors, X, "pool", ["a"])
    assert "Compare networks that take the same inputs" in message
    message = _mistake(one, other, (X, Y + 5), ["pool"], ["pool"])
    assert "classes from 5 to 6, and the downstream tells 2" in message
    broken = np.where(X > 2, np.nan, X)
    message = _mistake(one, other, broken, ["conv1"], ["conv1"])
    assert "hold NaN or infinity" in message
    limit = "keras_cascade.ranking.pair_moments.MAX_BYTES"
    monkeypatch.setattr(limit, 1000)
    message = _mistake(one, other, X, ["pool"], ["pool"])
    assert "lower max_features=512" in message
