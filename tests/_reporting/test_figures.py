"""Tests that lines of plots differ in print without colours."""

from itertools import combinations, pairwise

import pytest

from keras_cascade._reporting import figures


def test_the_first_lines_differ_by_dashes_and_markers():
    styles = [figures.style(number) for number in range(7)]
    for one, other in combinations(styles, 2):
        assert one["marker"] != other["marker"]
    dashes = [style["linestyle"] for style in styles]
    assert all(a != b for a, b in pairwise(dashes))


def test_lines_of_equal_dashes_differ_in_grey():
    colors = pytest.importorskip("matplotlib.colors")
    shown = [
        (style["linestyle"], sum(colors.to_rgb(style["color"])) / 3)
        for style in map(figures.style, range(7))
    ]
    for (dashes, grey), (others, shade) in combinations(shown, 2):
        assert dashes != others or abs(grey - shade) > 0.05


def test_a_canvas_is_all_axes_and_is_not_open_in_pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figure, axis = figures.canvas(3.0, 2.0, "the test")
    assert pyplot.get_fignums() == before
    assert figure.get_size_inches().tolist() == [3.0, 2.0]
    assert axis.get_position().bounds == (0, 0, 1, 1)
