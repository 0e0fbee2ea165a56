"""Draws a drawing with matplotlib, for PNG files.

Tested by `tests/display/test_picture.py`.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from keras_cascade._reporting import figures
from keras_cascade.display.picture.shapes import (
    Drawing,
    Path,
    Polygon,
    Rectangle,
    Text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

DPI = 72  # at which a point of a font is a pixel


def as_figure(drawing: Drawing) -> "Figure":
    """Returns a figure of matplotlib with a drawing, a pixel a unit at 72 dpi.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure, axis = figures.canvas(
        drawing.width / DPI, drawing.height / DPI, "Cascade.plot"
    )
    axis.set_xlim(0, drawing.width)
    axis.set_ylim(drawing.height, 0)
    for order, shape in enumerate(drawing.shapes):
        if isinstance(shape, Text):
            axis.text(
                shape.x,
                shape.y,
                shape.text,
                size=shape.size,
                weight="bold" if shape.bold else "normal",
                color=shape.fill,
                horizontalalignment="right" if shape.at_end else "left",
                verticalalignment="baseline",
                family="DejaVu Sans",
                parse_math=False,
                zorder=order,
            )
        else:
            patch = _patch(shape)
            patch.set_zorder(order)
            axis.add_patch(patch)
    return figure


def _patch(shape: Rectangle | Path | Polygon) -> "Patch":
    from matplotlib import patches

    if isinstance(shape, Rectangle):
        return patches.Rectangle(
            (shape.x, shape.y),
            shape.width,
            shape.height,
            facecolor=shape.fill or "none",
            edgecolor=shape.line or "none",
        )
    if isinstance(shape, Polygon):
        return patches.Polygon(
            shape.points, facecolor=shape.fill, edgecolor="none"
        )
    return patches.PathPatch(
        _path(shape),
        facecolor="none",
        edgecolor=shape.line,
        linewidth=shape.thickness,
    )


def _path(shape: Path):
    from matplotlib.path import Path as Curve

    points, codes = [shape.points[0]], [Curve.MOVETO]
    for (x, y), (to, height) in pairwise(shape.points):
        middle = (x + to) / 2
        points += [(middle, y), (middle, height), (to, height)]
        codes += [Curve.CURVE4] * 3
    return Curve(points, codes)
