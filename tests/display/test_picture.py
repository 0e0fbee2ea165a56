"""Tests pictures of cascades as they are drawn, by matplotlib's measure."""

import base64
import re
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise

import numpy as np
import pytest

from tests.display.picture.cascades import DRAWN, plain

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", params=DRAWN, ids=lambda f: f.__name__)
def figure(request):
    """Returns the figure of a cascade, in a fixture as drawing takes time."""
    pytest.importorskip("matplotlib")
    from keras_cascade.display.picture.figure import as_figure

    drawn = as_figure(request.param().plot().drawing)
    drawn.canvas.draw()
    return drawn


def text_boxes(figure):
    return {
        (text.get_text(), text.get_position()): text.get_window_extent()
        for text in figure.axes[0].texts
    }


def curves(figure):
    """Returns the points along each arrow's line, a pixel apart at most."""
    from matplotlib.patches import PathPatch

    found = []
    for patch in figure.axes[0].patches:
        if isinstance(patch, PathPatch):
            path = patch.get_transform().transform_path(patch.get_path())
            (points,) = path.to_polygons(closed_only=False)
            found.append(_dense(points))
    return found


def _dense(points):
    parts = []
    for one, other in pairwise(points):
        steps = int(np.abs(other - one).max()) + 2
        parts.append(np.linspace(one, other, steps))
    return np.concatenate(parts)


def test_no_two_labels_overlap(figure):
    boxes = text_boxes(figure).items()
    overlapping = [
        (one[0], other[0])
        for (one, box), (other, its) in combinations(boxes, 2)
        if box.x0 < its.x1
        and its.x0 < box.x1
        and box.y0 < its.y1
        and its.y0 < box.y1
    ]
    assert overlapping == []


def test_no_label_leaves_the_picture(figure):
    width, height = figure.canvas.get_width_height()
    for (text, _), box in text_boxes(figure).items():
        assert box.x0 >= 0 and box.x1 <= width, text
        assert box.y0 >= 0 and box.y1 <= height, text


def test_no_arrow_crosses_a_label(figure):
    for points in curves(figure):
        for (text, _), box in text_boxes(figure).items():
            inside = (points > [box.x0, box.y0]) & (points < [box.x1, box.y1])
            assert not inside.all(axis=1).any(), text


def test_text_stays_within_its_box(figure):
    from matplotlib.patches import Rectangle

    frames = [
        patch.get_window_extent()
        for patch in figure.axes[0].patches
        if isinstance(patch, Rectangle)
    ]
    for (text, _), box in text_boxes(figure).items():
        for frame in frames:
            inside = frame.x0 < box.x0 < frame.x1 and (
                frame.y0 < (box.y0 + box.y1) / 2 < frame.y1
            )
            assert not inside or box.x1 < frame.x1, text


def test_every_arrow_ends_at_a_box_and_crosses_none(figure):
    from matplotlib.patches import Rectangle

    frames = [
        patch.get_window_extent()
        for patch in figure.axes[0].patches
        if isinstance(patch, Rectangle)
    ]
    for points in curves(figure):
        for frame in frames:
            low, high = [frame.x0 + 1, frame.y0], [frame.x1 - 1, frame.y1]
            inside = (points > low) & (points < high)
            assert not inside.all(axis=1).any()


@pytest.fixture(scope="module")
def cascade():
    return plain()


def test_the_svg_has_every_block_tap_and_input(cascade, tmp_path):
    cascade.plot(tmp_path / "cascade.svg")
    root = ElementTree.parse(tmp_path / "cascade.svg").getroot()
    texts = {element.text for element in root.iter(f"{SVG}text")}
    names = {"upstream", "encoder", "downstream", "expert", "inputs", "side"}
    assert names | {"map", "6 × 6 × 4", "PCAAdapter", "concat"} <= texts
    # Read in the dark theme of a notebook too.
    ground = next(root.iter(f"{SVG}rect"))
    assert (ground.get("fill"), ground.get("width")) == ("#ffffff", "100%")
    assert {"frozen", "trains", "trains at 0.0001"} <= texts
    assert root.findtext(f"{SVG}title") == "Cascade 'cascade'"


def test_a_png_is_two_pixels_a_unit(cascade, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    picture = cascade.plot(tmp_path / "cascade.png")
    height, width = image.imread(tmp_path / "cascade.png").shape[:2]
    assert width == pytest.approx(2 * picture.drawing.width, abs=2)
    assert height == pytest.approx(2 * picture.drawing.height, abs=2)


def test_in_a_notebook_it_needs_no_matplotlib(cascade, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = cascade._repr_html_()
    image = re.search(r"<img src='data:image/svg\+xml;base64,([^']+)'", shown)
    assert image is not None and image.start() < shown.index("contents")
    assert base64.b64decode(image[1]).decode() == cascade.plot().svg


def test_without_matplotlib_a_png_says_what_to_install(cascade, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"Cascade\.plot needs matplotlib"):
        cascade.plot("cascade.png")


@pytest.mark.parametrize("path", ["cascade.pdf", "cascade", "a.svg/b"])
def test_another_ending_is_refused(cascade, path):
    with pytest.raises(ValueError, match=r"Possible: .*\.svg.*\.png"):
        cascade.plot(path)
