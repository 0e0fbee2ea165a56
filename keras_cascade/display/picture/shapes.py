"""Turns a layout into shapes to draw: rectangles, paths, polygons, texts.

Tested by `tests/display/test_picture.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from keras_cascade.display.picture.diagram import STATES, Row
from keras_cascade.display.picture.layout import (
    BELOW,
    PADDING,
    Layout,
    Placed,
    PlacedBox,
    PlacedLabel,
    Point,
    label_lines,
    text_style,
)
from keras_cascade.display.picture.text import LINE, SIZE, SMALL, text_width

MARGIN = 12
HEAD = 8  # the length of an arrow's head
SWATCH = 14  # the size of a colour in the legend
# Lightness and stripes tell the states apart where colours do not print.
FILLS = {
    "": "#ffffff",
    "frozen": "#dbe7f1",
    "trains": "#f2b263",
    "lora": "#dbe7f1",
    "part": "#dbe7f1",
}
# The thickness of the stripes in the colour of what trains, and their distance.
STRIPES = {"lora": (1.5, 9.0), "part": (9.0, 22.0)}
INK = "#1b1b1b"
FRAME = "#5a6570"


@dataclass(frozen=True)
class Rectangle:
    """A filled rectangle; without a fill, its frame alone."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None
    line: str | None = None


@dataclass(frozen=True)
class Path:
    """A line through points; where these differ in height, an S."""

    points: tuple[Point, ...]
    line: str = INK
    thickness: float = 1.3


@dataclass(frozen=True)
class Polygon:
    """A filled polygon."""

    points: tuple[Point, ...]
    fill: str = INK


@dataclass(frozen=True)
class Text:
    """A line of text, by the left end of its baseline, or its right end."""

    text: str
    x: float
    y: float
    size: float = SIZE
    bold: bool = False
    fill: str = INK
    at_end: bool = False


Shape = Rectangle | Path | Polygon | Text


@dataclass(frozen=True)
class Drawing:
    """Shapes in the order in which they are drawn, and their frame."""

    title: str
    width: float
    height: float
    shapes: tuple[Shape, ...]


def draw(title: str, layout: Layout) -> Drawing:
    """Returns the shapes of a layout, with a margin and a legend."""
    states = {placed.row.state for box in layout.boxes for placed in box.rows}
    shapes = [
        *(shape for points in layout.paths for shape in _arrow(points)),
        *(shape for box in layout.boxes for shape in _box(box)),
        *(shape for label in layout.labels for shape in _label(label)),
    ]
    words = [state for state in STATES if state in states]
    legend = list(_legend(words, layout.width, layout.height + 2 * MARGIN))
    right = [layout.width, *(_right_edge(shape) for shape in legend)]
    bottom = [layout.height, *(x.y for x in legend if isinstance(x, Text))]
    return Drawing(
        title,
        max(right) + 2 * MARGIN,
        max(bottom) + 2 * MARGIN,
        tuple(_moved(shape, MARGIN) for shape in (*shapes, *legend)),
    )


def _arrow(points: tuple[Point, ...]) -> Iterator[Shape]:
    x, y = points[-1]
    yield Path((*points[:-1], (x - HEAD / 2, y)))
    yield Polygon(((x, y), (x - HEAD, y - HEAD / 2), (x - HEAD, y + HEAD / 2)))


def _box(placed: PlacedBox) -> Iterator[Shape]:
    """Yields the frame of a box, its rows, and their text."""
    rows, column = placed.rows, placed.box.column
    first, last = rows[0], rows[-1]
    if column not in ("input", "output"):
        whole = replace(first, height=last.y + last.height + BELOW - first.y)
        yield from _filled(whole, first.row.state)
        for row in rows:
            if row.row.style in ("text", "merge"):
                yield from _filled(row, row.row.state)
    for row in rows:
        yield from _texts(row, column)


def _filled(placed: Placed, state: str) -> Iterator[Shape]:
    edges = placed.x, placed.y, placed.width, placed.height
    yield Rectangle(*edges, FILLS[state])
    yield from _stripes(*edges, state)
    yield Rectangle(*edges, None, FRAME)


def _stripes(
    x: float, y: float, width: float, height: float, state: str
) -> Iterator[Polygon]:
    """Yields diagonal stripes across a rectangle, for states that have some."""
    thickness, distance = STRIPES.get(state, (0.0, 1.0))
    right, bottom = x + width, y + height
    start = x + y
    while thickness and start < right + bottom:
        end = min(start + thickness, right + bottom)
        below, above = (
            [
                (max(x, at - bottom), min(bottom, at - x)),
                (min(right, at - y), max(y, at - right)),
            ]
            for at in (start, end)
        )
        corners = [(right, y)] if start < right + y < end else []
        last = [(x, bottom)] if start < x + bottom < end else []
        yield Polygon((*below, *corners, *above[::-1], *last), FILLS["trains"])
        start += distance


def _texts(placed: Placed, column: str) -> Iterator[Text]:
    """Yields the lines of a row, in the middle of its height."""
    size, bold = text_style(placed.row.style)
    lines, at_end = placed.row.lines, column == "input"
    x = placed.x + (placed.width - PADDING if at_end else PADDING)
    top = placed.y + (placed.height - len(lines) * size * LINE) / 2
    for number, line in enumerate(lines):
        y = top + number * size * LINE + size
        first = number == 0
        yield Text(line, x, y, size, bold and first, at_end=at_end)


def _label(label: PlacedLabel) -> Iterator[Text]:
    """Yields a name above its link and a shape below, or a shape above."""
    heights = (-5, SMALL + 3)
    lines = label_lines(label.lines)
    for (line, bold), y in zip(lines, heights, strict=False):
        x = label.x + PADDING - 2
        yield Text(line, x, label.y + y, SMALL, bold)


def _legend(states: Iterable[str], width: float, top: float) -> Iterator[Shape]:
    """Yields the colours and their words, in rows as wide as the picture."""
    x, y = 0.0, top
    for state in states:
        words = STATES[state]
        length = SWATCH + PADDING + text_width(words, SMALL)
        if x and x + length > width:
            x, y = 0.0, y + 2 * SMALL
        swatch = Placed(Row(()), x, y - SWATCH, SWATCH, SWATCH)
        yield from _filled(swatch, state)
        yield Text(words, x + SWATCH + 6, y - 3, SMALL)
        x += length + 2 * PADDING


def _right_edge(shape: Shape) -> float:
    if isinstance(shape, Text):
        return shape.x + text_width(shape.text, shape.size, shape.bold)
    return 0.0


def _moved(shape: Shape, by: float) -> Shape:
    """Returns a shape moved right and down."""
    if isinstance(shape, Path | Polygon):
        points = tuple((x + by, y + by) for x, y in shape.points)
        return replace(shape, points=points)
    return replace(shape, x=shape.x + by, y=shape.y + by)
