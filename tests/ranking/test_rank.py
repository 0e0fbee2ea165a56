"""Taps ranked in one pass: planted labels, every kind of data, mistakes."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.ranking import features
from keras_cascade.ranking.labels import as_labels
from keras_cascade.ranking.scores import METHODS
from keras_cascade.ranking.spectrum import Features


@pytest.fixture(scope="module")
def ranking(planted, planted_data):
    return kc.rank_taps(planted, planted_data, scores=tuple(METHODS)[:4])


def test_the_layer_that_carries_the_label_is_found_by_every_score(ranking):
    assert len(ranking.rows) == 60
    for name in ("probe", "knn", "logme", "hscore"):
        best = max(ranking.rows, key=lambda x, n=name: x.scores[n])
        assert best.path == "layer31"
    assert ranking.rows[0].path == "layer31"
    assert ranking.best() == ["layer31"]
    assert ranking.beats_baselines


def test_two_layers_that_carry_half_each_are_found_as_a_pair(
    planted, planted_data
):
    # The layer that has both is left out.
    taps = [f"layer{i}" for i in range(60) if i != 31]
    ranking = kc.rank_taps(planted, planted_data, taps, scores=["probe"])
    assert set(ranking.best(k=2)) == {"layer7", "layer45"}


def test_noise_does_not_raise_a_score(planted, planted_data):
    x, y = planted_data
    draw = np.random.default_rng(2)
    labels = as_labels(y)
    signal = (x[:, :2] + 0.4 * draw.normal(size=(200, 2))) * 2
    noisy = np.hstack([signal, draw.normal(size=(200, 512))])
    for name in ("probe", "knn", "logme"):
        score = METHODS[name]
        assert (
            score(Features(noisy), labels).value
            < score(Features(signal), labels).value
        )


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_the_scale_of_features_changes_no_score(planted_data, scale):
    x, y = planted_data
    for name, score in METHODS.items():
        expected = score(Features(x), as_labels(y)).value
        found = score(Features(x * scale), as_labels(y)).value
        assert found == pytest.approx(expected, rel=1e-4), name


def maps():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="maps")


def images(samples=40):
    draw = np.random.default_rng(3)
    y = np.arange(samples) % 2
    x = draw.normal(size=(samples, 8, 8, 3)) + y[:, None, None, None]
    return x.astype("float32"), y


def test_features_are_the_means_over_positions_and_costs_those_of_the_list():
    network, (x, y) = maps(), images()
    ranking = kc.rank_taps(network, (x, y), max_features=100)
    rows = {row.path: row for row in ranking.rows}
    assert set(rows) == {"conv", "relu", "flat", "head"}
    kept = ranking._evidence.features
    conv = keras.Model(network.input, network.get_layer("conv").output)
    expected = keras.ops.convert_to_numpy(conv(x)).mean(axis=(1, 2))
    np.testing.assert_allclose(kept["conv"], expected, atol=1e-5)
    assert rows["flat"].features == 8 * 8 * 4
    assert kept["flat"].shape == (40, 100)
    for tap in kc.list_taps(network):
        if tap.path in rows:
            row = rows[tap.path]
            assert (row.parameters, row.flops) == (tap.parameters, tap.flops)
    assert rows["conv"].bytes == 8 * 8 * 4 * 4
    assert 0 < rows["conv"].milliseconds < rows["head"].milliseconds


def test_padding_of_a_sequence_does_not_count():
    ids = keras.Input((None,), dtype="int32", name="ids")
    embedded = layers.Embedding(9, 3, mask_zero=True, name="embed")(ids)
    network = keras.Model(ids, layers.LSTM(2, name="lstm")(embedded))
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 6], [7, 0, 0, 0], [1, 8, 2, 0]] * 2)
    ranking = kc.rank_taps(
        network, (x, np.arange(8) % 2), ["embed"], scores=["knn"]
    )
    table = network.get_layer("embed").get_weights()[0]
    expected = [table[row[row > 0]].mean(axis=0) for row in x]
    found = ranking._evidence.features["embed"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sequences_may_be_ranked_by_their_class_token():
    inputs = keras.Input((5, 3), name="tokens")
    mixed = layers.Dense(4, name="mix")(inputs)
    wide = layers.Flatten(name="flat")(mixed)
    network = keras.Model(inputs, layers.Dense(2, name="out")(wide))
    draw = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = draw.normal(size=(40, 5, 3)).astype("float32")
    x[:, 0] += 3 * y[:, None]
    given = (network, (x, y), ["mix", "out"])
    ranking = kc.rank_taps(*given, scores=["probe"], class_token=True)
    found = ranking._evidence.features["mix"]
    expected = keras.ops.convert_to_numpy(network.get_layer("mix")(x[:, 0]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    mean = kc.rank_taps(*given, scores=["probe"])
    scores = [
        {row.path: row.scores["probe"] for row in one.rows}
        for one in (ranking, mean)
    ]
    assert scores[0]["mix"] > scores[1]["mix"]
    assert scores[0]["out"] == scores[1]["out"]
    # A cascade reads what was ranked.
    adapter = kc.adapters.TokenAdapter("vector", class_token=True)
    cascade = kc.build_cascade(network, taps=["mix"], adapters=adapter)
    read = cascade.predict(x, verbose=0)
    np.testing.assert_allclose(read, expected, atol=1e-5)


def test_memory_does_not_grow_with_the_samples(monkeypatch):
    monkeypatch.setattr(features, "KEPT_BYTES", 1)  # 64 rows, the least
    x, y = images(150)
    ranking = kc.rank_taps(maps(), (x, y), ["relu"], scores=["probe"])
    assert ranking._evidence.samples == 150
    kept = ranking._evidence.features["relu"]
    assert kept.shape == (64, 4)
    # A uniform part: late samples are among them as early ones are.
    labels = ranking._evidence.labels
    assert 16 < labels.targets[:, 1].sum() < 48


def test_several_networks_are_ranked_together(planted_data):
    def network(width, name):
        inputs = keras.Input((12,), name="x")
        x = layers.Dense(width, name="low")(inputs)
        return keras.Model(inputs, layers.Dense(3, name="high")(x), name=name)

    given = {"small": network(2, "one"), "large": network(30, "two")}
    ranking = kc.rank_taps(given, planted_data, scores=["probe"])
    assert {x.path for x in ranking.rows} == {
        f"{a}/{b}" for a in given for b in ("low", "high")
    }
    assert ranking.baselines["largest"] == "large/high"
    best = ranking.best(k=2)
    used = {path.partition("/")[0] for path in best}
    cascade = kc.build_cascade({name: given[name] for name in used}, taps=best)
    assert len(cascade.taps) == 2


def test_a_downstream_may_take_the_place_of_labels(planted, planted_data):
    x, _ = planted_data
    inputs = keras.Input((12,), name="x")
    first = layers.Dense(1, use_bias=False, name="first")
    downstream = keras.Model(inputs, first(inputs))
    first.set_weights([np.eye(12)[:, :1]])
    ranking = kc.rank_taps(planted, x, downstream=downstream, scores=["probe"])
    assert {x.path for x in ranking.rows[:2]} == {"layer7", "layer31"}
    assert ranking.rows[0].scores["probe"] > 0.5


def test_without_labels_the_score_that_needs_none_ranks():
    x, _ = images()
    ranking = kc.rank_taps(maps(), x)
    assert ranking.score == "effective_rank"
    with pytest.raises(ValueError, match="the data had none"):
        ranking.best(k=2)


def test_data_without_end_needs_max_samples():
    x, y = images()

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return x[:20], y[:20]

    ranking = kc.rank_taps(maps(), Endless(), ["conv"], max_samples=50)
    assert ranking._evidence.samples == 50
    with pytest.raises(ValueError, match="never ends"):
        kc.rank_taps(maps(), Endless(), ["conv"])


def nan_at_relu():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.Rescaling(float("nan"), name="broken")(x)
    return keras.Model(inputs, layers.ReLU(name="relu")(x))


MISTAKES = {
    "no tap": (
        lambda: kc.rank_taps(maps(), images(), "nope*"),
        "No tap matches 'nope\\*'",
    ),
    "an input": (
        lambda: kc.rank_taps(maps(), images(), ["image"]),
        "Tap 'image' cannot be ranked: it is an input",
    ),
    "labels too short": (
        lambda: kc.rank_taps(maps(), (images()[0], np.arange(7))),
        "same number of rows",
    ),
    "NaN features": (
        lambda: kc.rank_taps(nan_at_relu(), images()),
        "features of tap 'broken' are NaN",
    ),
    "no data": (
        lambda: kc.rank_taps(maps(), iter([])),
        "The data is empty",
    ),
    "three samples": (
        lambda: kc.rank_taps(maps(), images(3)),
        "The data has 3 samples",
    ),
    "a score that there is not": (
        lambda: kc.rank_taps(maps(), images(), scores=["probes"]),
        "no score 'probes'",
    ),
    "no limit": (
        lambda: kc.rank_taps(maps(), images(), max_samples=0),
        "max_samples is a whole number",
    ),
    "no network": (
        lambda: kc.rank_taps({}, images()),
        "names no network",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told(case):
    call, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_constant_features_are_said():
    x = inputs = keras.Input((4,), name="x")
    x = layers.Dense(3, kernel_initializer="zeros", name="dead")(x)
    network = keras.Model(inputs, layers.ReLU(name="relu")(x))
    data = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
    text = str(kc.rank_taps(network, data))
    assert "features are equal for all samples at dead, relu" in text
