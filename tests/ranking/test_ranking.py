"""The result of a ranking: what to tap, tables, pictures."""

import json

import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.ranking.chart import pareto_front


@pytest.fixture(scope="module")
def ranking():
    encoder = kc.zoo.load("glyph_encoder")
    draw = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = draw.normal(size=(60, 32, 32, 1))
    x[:, 8 * (y[:, None] + 1)] += 1.0
    x[np.arange(60), 8 + 8 * y] += 4.0
    taps = "stage*_out"
    return kc.rank_taps(encoder, (x.astype("float32"), y), taps)


def test_the_best_is_the_cheapest_within_one_standard_error(ranking):
    first = ranking.rows[0]
    least = first.scores["probe"] - first.errors["probe"]
    good = [x for x in ranking.rows if x.scores["probe"] >= least]
    expected = min(good, key=lambda x: x.flops).path
    assert ranking.best() == [expected]


def test_limits_are_those_of_all_taps_together(ranking):
    rows = {row.path: row for row in ranking.rows}
    limit = rows["stage2_out"].flops
    assert ranking.best(max_flops=limit)[0] in ("stage1_out", "stage2_out")
    pair = ranking.best(k=2, max_flops=limit)
    assert set(pair) == {"stage1_out", "stage2_out"}
    both = rows["stage3_out"].bytes + rows["stage4_out"].bytes
    assert set(ranking.best(k=2, max_bytes=both)) == {
        "stage3_out",
        "stage4_out",
    }
    with pytest.raises(ValueError, match="No tap is within max_flops=10"):
        ranking.best(max_flops=10)
    with pytest.raises(ValueError, match="Only 1 of 2 taps are within"):
        ranking.best(k=2, max_bytes=rows["stage4_out"].bytes)


def test_the_table_has_the_baseline(ranking):
    text = str(ranking)
    assert "probe, accuracy" in text and "deepest: stage4_out" in text
    assert ranking.baselines == {"deepest": "stage4_out"}
    best, deepest = ranking.rows[0], ranking._row("stage4_out")
    gain = best.scores["probe"] - deepest.scores["probe"]
    assert ranking.beats_baselines == (gain > best.errors["probe"])
    assert ("no tap is better" in text) == (not ranking.beats_baselines)
    assert repr(ranking).startswith("<TapRanking of 4 taps by probe: 'stage")


def test_it_is_plain_values(ranking):
    plain = json.loads(json.dumps(ranking.to_dict()))
    assert plain["samples"] == 60
    assert [x["path"] for x in plain["taps"]] == [x.path for x in ranking.rows]
    assert set(plain["taps"][0]["scores"]) == {"probe", "knn", "logme"}


def test_a_data_frame_has_a_row_for_each_tap(ranking):
    pandas = pytest.importorskip("pandas")
    frame = ranking.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 4
    assert {"path", "probe", "probe_error", "flops"} <= set(frame.columns)


def test_the_front_has_what_no_cheaper_tap_beats(ranking):
    front = pareto_front(ranking.rows, "probe")
    for row in ranking.rows:
        better = [
            x
            for x in ranking.rows
            if x.cost <= row.cost and x.scores["probe"] > row.scores["probe"]
        ]
        assert (row in front) <= (not better)
    pytest.importorskip("matplotlib")
    (axis,) = ranking.plot().axes
    drawn = [text.get_text() for text in axis.texts]
    assert front[-1].path in drawn and axis.get_ylabel() == "probe"
