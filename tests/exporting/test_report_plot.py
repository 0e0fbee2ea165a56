"""Plots of export reports show the compared figures, and the tolerance."""

import itertools
from pathlib import Path

import pytest

from keras_cascade.exporting.checking.parity import OutputParity
from keras_cascade.exporting.report import ExportReport

pytest.importorskip("matplotlib")
KIND = OutputParity(spread=1.0, maximum=3e-4, mean=2e-5, agreement=1.0)
SIZE = OutputParity(spread=2.0, maximum=0.0, mean=0.0, agreement=None)
LONG = "a_layer_whose_name_is_much_longer_than_its_place"


def report(**parts):
    shapes = {"kind": (None, 3), "size": (None, 1)}
    return ExportReport(
        *(Path("digits.tflite"), "tflite", "tensorflow", False, "int8"),
        *(1000, {"inputs": (None, 8)}, shapes),
        tolerance=0.5,
        **parts,
    )


def panels(figure):
    return {axis.get_title(): axis for axis in figure.axes}


def points(axis):
    """Returns the places and the rows of each named kind of point."""
    return {
        line.get_label(): [list(map(float, x)) for x in line.get_data()]
        for line in axis.lines
    }


def test_each_output_has_its_differences_and_a_tolerance():
    axis = panels(report(parity={"kind": KIND, "size": SIZE}).plot())["Answers"]
    found = points(axis)
    assert found["largest"] == [[3e-4, 0.0], [0.0, 1.0]]
    assert found["mean"] == [[2e-5, 0.0], [0.0, 1.0]]
    assert found["tolerance of the largest"][0] == [0.5, 0.5]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["kind", "size"]


def test_equal_answers_have_a_place():
    axis = panels(report(parity={"size": SIZE}).plot())["Answers"]
    figure = axis.figure
    figure.draw_without_rendering()
    place = axis.transData.transform((0.0, 0.0))
    assert axis.get_window_extent().contains(*place)


def test_the_tolerance_is_of_the_difference_that_it_bounds():
    axis = panels(report(parity={"kind": KIND}, bounds="mean").plot())
    assert "tolerance of the mean" in points(axis["Answers"])


def test_metrics_and_layers_have_panels():
    layers = tuple(
        {"layer": f"{LONG}_{i};x", "error": 1.0 / (1 + i)} for i in range(30)
    )
    metrics = {"accuracy": {"model": 0.9, "file": 0.8}}
    figure = report(
        parity={"kind": KIND}, metrics=metrics, layers=layers
    ).plot()
    found = panels(figure)
    assert list(found) == ["Answers", "Metrics", "Layers in 8 bits"]
    sides = points(found["Metrics"])
    assert sides == {"model": [[0.9], [0.0]], "file": [[0.8], [0.0]]}
    errors = [bar.get_width() for bar in found["Layers in 8 bits"].patches]
    assert errors == [1.0 / (1 + i) for i in range(20)]


def test_labels_stay_in_the_frame_and_apart():
    layers = tuple({"layer": f"{LONG}_{i}", "error": 1.0} for i in range(20))
    metrics = {"accuracy": {"model": 0.9, "file": 0.8}}
    figure = report(
        parity={LONG: KIND, "size": SIZE}, metrics=metrics, layers=layers
    ).plot()
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = [x.get_window_extent() for x in axis.get_yticklabels()]
        assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
        for upper, lower in itertools.pairwise(boxes):
            assert upper.y0 >= lower.y1 - 1


def test_without_a_comparison_it_says_what_to_pass():
    with pytest.raises(ValueError, match=r"'digits.tflite' compares nothing"):
        report().plot()
