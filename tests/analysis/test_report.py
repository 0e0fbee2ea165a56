"""Tests the report as text and as plain values."""

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest

from keras_cascade.analysis.report import (
    AdapterChoice,
    Distance,
    Finding,
    InterfaceReport,
    Place,
    StreamRow,
    ValueStatistics,
    in_order,
)

ROW = StreamRow(
    tap="texture",
    path="conv3",
    shape=(4, 4, 5),
    kind="map",
    places=(
        Place("low", "add", (None, 8), "standardised", 8),
        Place("high", "concat", None, "not known", 10, 20),
    ),
    adapter=AdapterChoice("auto", None, "Dense", {"units": 8}, 1234),
    values="at least 0",
    arriving="not known",
)
MEASURED = ValueStatistics(0.5, 2.0, 0.0, math.inf, 0.25, 1, 80)
DISTANCE = Distance("norm", "before", 1.5, 3.0, math.log(9), 4.0, 8)


def test_a_row_shows_path_shape_range_adapter_and_parameters():
    text = str(InterfaceReport((ROW,), []))
    for part in (
        "texture: conv3",
        "4 × 4 × 5 (map)",
        "at least 0",
        "? × 8",
        "any",
        "auto: Dense(units=8)",
        "1,234 + 38",
    ):
        assert part in text
    assert "on the data" not in text


def test_measurements_have_a_column():
    row = replace(ROW, measured=MEASURED, distances=(DISTANCE,))
    text = str(InterfaceReport((row,), []))
    assert "0.5 ± 2 in [0, inf], 25% zeros, 1 not finite" in text
    assert "shift 1.5 (max 3), variance by a factor of 9 before norm" in text


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (AdapterChoice("none", None, None, {}, 0), "none"),
        (AdapterChoice("auto", None, None, {}, 0), "auto: nothing"),
        (AdapterChoice("auto", None, None, {}, None), "auto: ?"),
        (
            AdapterChoice("given", "mine", "Dense", {}, 9),
            "given: Dense() 'mine'",
        ),
    ],
    ids=["none", "nothing", "unknown", "named"],
)
def test_an_adapter_choice_is_shown_in_words(choice, text):
    assert str(choice) == text


def test_the_dict_is_json_and_has_no_infinity():
    row = replace(ROW, measured=MEASURED, distances=(DISTANCE,))
    finding = Finding("note", ("texture",), "what", "advice")
    report = InterfaceReport((row,), [finding], fusion_parameters=7)
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    (stream,) = found["streams"]
    assert stream["shape"] == [4, 4, 5]
    assert stream["adapter"]["settings"] == {"units": 8}
    assert stream["measured"]["maximum"] is None
    assert found["findings"] == [
        {
            "severity": "note",
            "where": ["texture"],
            "what": "what",
            "advice": "advice",
        }
    ]
    assert found["fusion_parameters"] == 7


def test_findings_are_sorted_by_severity_and_merged():
    note, error = Finding("note", ("a",), "n"), Finding("error", ("b",), "e")
    also = Finding("error", ("c",), "e")
    assert in_order([note, error, also, note]) == [
        Finding("error", ("b", "c"), "e"),
        note,
    ]


def test_it_builds_unless_there_is_an_error():
    warning, error = Finding("warning", (), ""), Finding("error", (), "")
    assert InterfaceReport((), [warning]).builds
    assert not InterfaceReport((), [warning, error]).builds


def test_findings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        Finding("note", (), "").severity = "error"
