"""A search finds planted features, goes on where it was, keeps its budget."""

import json
import time

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.searching import SearchResult, Trial, halving
from keras_cascade.searching.combinations import combine
from keras_cascade.searching.search import Arguments


def upstream():
    """Returns a network of which only the tap `good` has the label."""
    inputs = keras.Input((6,), name="x")
    outputs = []
    for number, name in enumerate(("noise1", "good", "noise2")):
        kernel = np.zeros((6, 4), "float32")
        kernel[[0, 1]] = 3.0 * np.eye(4)[:2] if name == "good" else 0.0
        kernel[2 + number] = 1.0
        layer = layers.Dense(4, use_bias=False, name=name)
        outputs.append(layer(inputs))
        layer.set_weights([kernel])
    return keras.Model(inputs, outputs, name="planted")


def blind():
    """Returns a downstream whose input is lost: only `hidden` can be used."""
    inputs = keras.Input((6,), name="features")
    x = layers.Rescaling(0.0, name="blocked")(inputs)
    x = layers.Dense(8, name="hidden")(x)
    x = layers.Dense(2, activation="softmax", name="out")(x)
    return keras.Model(inputs, x, name="head")


def data(samples=160):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(samples, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    return x, y


def find(network=None, after=None, given=None, **changes):
    arguments = {
        # As long as it takes on a busy machine.
        "budget_seconds": 600,
        "loss": "sparse_categorical_crossentropy",
        "taps": ["noise1", "good", "noise2"],
        "optimizer": keras.optimizers.Adam(0.05),
        **changes,
    }
    if after is None:
        arguments.setdefault("head", 2)
    return kc.search(
        upstream() if network is None else network,
        after,
        data() if given is None else given,
        **arguments,
    )


def test_the_one_combination_that_carries_the_label_is_found():
    found = find(
        after=blind(),
        taps=["noise1", "good"],
        entries=[None, kc.Injection("hidden", zero_init=False)],
        metrics=["accuracy"],
        objective="accuracy",
        maximize=True,
        epochs=3,
    )
    best = found.trials[0]
    assert (best.taps, best.entry) == ("good", "hidden (add)")
    assert best.score > 0.85
    assert all(other.score < 0.75 for other in found.trials[1:])
    # The best went on; the others stopped at the first rung.
    assert best.rungs == 3
    assert best.epochs == 3 * 9
    assert sorted(x.rungs for x in found.trials)[:2] == [1, 1]
    # The cascade is as trained as the table says, on data it never saw.
    draw = np.random.default_rng(5)
    x = draw.normal(size=(200, 6)).astype("float32")
    right = found.best.predict(x, verbose=0).argmax(axis=1) == (x[:, 0] > 0)
    assert right.mean() > 0.85


def test_the_score_is_that_of_the_cascade_on_the_validation_data(tmp_path):
    held = data(40)
    found = find(
        validation_data=held,
        epochs=1,
        adapters={"pca": kc.adapters.PCAAdapter(2)},
    )
    predicted = found.best.predict(held[0], verbose=0)
    expected = -np.log(predicted[np.arange(40), held[1]]).mean()
    assert found.trials[0].score == pytest.approx(expected, abs=1e-4)
    assert found.objective in str(found)
    assert "good" in found._repr_html_()
    assert len(found.to_dict()["trials"]) == 3
    pandas = pytest.importorskip("pandas")
    assert isinstance(found.to_pandas(), pandas.DataFrame)


def test_a_killed_search_goes_on_where_it_was(tmp_path, monkeypatch):
    trained = []
    real = halving.Halving._build

    def build(self, combination):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(combination.label)
        return real(self, combination)

    monkeypatch.setattr(halving.Halving, "_build", build)
    with pytest.raises(KeyboardInterrupt):
        find(directory=tmp_path, epochs=1)
    before = json.loads((tmp_path / "search.json").read_text())
    assert list(before["outcomes"]) == trained
    assert before["seconds"] > 0

    monkeypatch.setattr(halving.Halving, "_build", real)
    fresh = []
    outcome = halving.Halving._score

    def score(self, cascade):
        fresh.append(cascade)
        return outcome(self, cascade)

    monkeypatch.setattr(halving.Halving, "_score", score)
    found = find(directory=tmp_path, epochs=1)
    assert len(found.trials) == 3
    assert found.trials[0].taps == "good"
    # The third combination, and the second rung.
    assert len(fresh) == 2
    assert found.seconds > before["seconds"]
    # All is done: nothing is trained again.
    again = find(directory=tmp_path, epochs=1)
    assert len(fresh) == 2
    assert again.trials == found.trials
    x = data()[0]
    np.testing.assert_allclose(
        again.best.predict(x, verbose=0),
        found.best.predict(x, verbose=0),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="another search: epochs differs"):
        find(directory=tmp_path, epochs=2)


def test_the_budget_ends_a_search():
    start = time.monotonic()
    found = find(budget_seconds=0.5, epochs=100_000)
    # A build, a step and a score come on top.
    assert time.monotonic() - start < 20
    assert found.trials
    assert found.trials[0].epochs < 100_000
    assert len(found.trials) + len(found.not_tried) == 3
    if found.not_tried:
        assert "no time was left for" in str(found)


def test_what_cannot_be_built_is_said_and_left_out():
    base = Arguments(upstream=upstream(), head=2)
    taps, entries = ["good"], [None, "nowhere"]
    combinations, refused = combine(base, taps, ["auto"], entries)
    assert [x.label for x in combinations] == ["good | auto | input"]
    assert list(refused) == ["good | auto | nowhere"]
    trial = Trial("good", "auto", "input", 0.5, 1, 1, 1.0)
    both = {**refused, "bad | auto | nowhere": next(iter(refused.values()))}
    text = str(SearchResult(None, [trial], "loss", 1.0, ["a | b | c"], both))
    assert "nowhere and 1 more cannot be built: inject names" in text
    assert "no time was left for a | b | c" in text


def test_a_pattern_tries_its_taps_one_by_one_and_lists_are_used_together():
    base = Arguments(upstream=upstream(), head=2)
    single, _ = combine(base, "noise*", ["auto"], [None])
    assert {x.taps for x in single} == {"noise1", "noise2"}
    together, _ = combine(
        base, [["good", "noise1"]], ["auto"], [None, {"fusion": "add"}]
    )
    assert [x.label for x in together] == [
        "good + noise1 | auto | input",
        "good + noise1 | auto | fusion add",
    ]


MISTAKES = {
    "no budget": ({"budget_seconds": 0}, "budget_seconds is a number above"),
    "no loss": ({"loss": None}, "needs a loss"),
    "no labels": ({"given": (data()[0], None)}, "data has no labels"),
    "no arrays": ({"given": data()[0]}, "data is \\(x, y\\)"),
    "rows": ({"given": (data()[0], np.zeros(7))}, "different numbers of rows"),
    "a split": ({"validation_split": 1.5}, "a share between 0 and 1"),
    "few": ({"given": data(1)}, "leaves nothing"),
    "no tap": ({"taps": ["nope"]}, "None of 1 combinations .* 'nope'"),
    "no choice": ({"taps": []}, "taps=\\[\\] has no choice"),
    "no list": ({"adapters": "auto"}, "adapters is a list of choices"),
    "an entry": ({"entries": [3]}, "entries: each choice is None"),
    "a score": ({"objective": "accurracy"}, "no score 'accurracy'"),
    "a score of no metric": (
        {"objective": "accuracy", "metrics": [keras.metrics.AUC(name="auc")]},
        "no score 'accuracy'. The cascades will have 'loss', 'auc'",
    ),
    "equal names": ({"taps": ["good", "good"]}, "choices of the same name"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_before_anything_long(case):
    changes, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        find(**changes)


def test_a_data_set_needs_validation_data():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            x, y = data(32)
            return x[index::2], y[index::2]

    with pytest.raises(ValueError, match="Pass validation_data"):
        find(given=Batches())
    found = find(
        given=Batches(), validation_data=data(20), taps=["good"], epochs=1
    )
    assert len(found.trials) == 1
