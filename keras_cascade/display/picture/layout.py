"""Gives the boxes and links of a diagram their places.

Columns stand side by side, each followed by a strip for the labels of the
links that leave it and one in which links change their height. So no label
is crossed, and links that pass a column have a lane of their own there.

Tested by `tests/display/test_picture.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from keras_cascade.display.picture.diagram import (
    COLUMNS,
    Box,
    Diagram,
    Link,
    Port,
    Row,
)
from keras_cascade.display.picture.ordering import Item, arrange, connect
from keras_cascade.display.picture.text import (
    LINE,
    SIZE,
    SMALL,
    text_width,
)

PADDING = 8  # between text and frame
BELOW = 4  # between the last row and the frame
GAP = 16  # between the boxes of a column
BEND = 30  # the width in which links change their height
LANE = 16  # the height of a lane
ARRIVING = 18  # the height of a link that enters a row
Point = tuple[float, float]
_PortKey = tuple[str, str]


@dataclass(frozen=True)
class Placed:
    """A row, or a label, with its left and upper edge and its size."""

    row: Row
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class PlacedBox:
    """A box with its rows."""

    box: Box
    rows: tuple[Placed, ...]


@dataclass(frozen=True)
class PlacedLabel:
    """The label of a link, by the left end of the line that it is on."""

    lines: tuple[str, ...]
    x: float
    y: float


@dataclass(frozen=True)
class Layout:
    """A diagram with places, from (0, 0) to (width, height).

    Attributes:
        width: The width in pixels.
        height: The height in pixels.
        boxes: The boxes.
        paths: The waypoints of each link, from left to right.
        labels: The labels on links.
    """

    width: float
    height: float
    boxes: tuple[PlacedBox, ...]
    paths: tuple[tuple[Point, ...], ...]
    labels: tuple[PlacedLabel, ...]


def lay_out(diagram: Diagram) -> Layout:
    """Returns the places of a diagram."""
    return _Columns(diagram).layout()


class _Columns:
    """The columns of a diagram while they get their places."""

    def __init__(self, diagram: Diagram):
        self.diagram = diagram
        self.by_key = {box.key: box for box in diagram.boxes}
        self.names = [
            name
            for name in COLUMNS
            if any(box.column == name for box in diagram.boxes)
        ]
        self.items = {
            box.key: Item(sum(map(row_height, box.rows)) + BELOW)
            for box in diagram.boxes
        }
        self.lanes: dict[tuple[str, str, int], Item] = {}
        self.offsets = dict(
            offset for box in diagram.boxes for offset in _offsets(box)
        )
        self._connect()
        self.labels = dict(self._labels())
        columns = range(len(self.names))
        self.widths = [self._width(column) for column in columns]
        # With the strip of labels, where links are straight.
        self.ends = [
            width + self._strip(column)
            for column, width in enumerate(self.widths)
        ]
        self.starts = list(accumulate((x + BEND for x in self.ends), initial=0))

    def layout(self) -> Layout:
        """Returns the places."""
        columns: list[list[Item]] = [[] for _ in self.names]
        for box in self.diagram.boxes:
            columns[self._column(box.key)].append(self.items[box.key])
        for (*_, column), lane in self.lanes.items():
            columns[column].append(lane)
        arrange(columns, GAP)
        return Layout(
            self.starts[-2] + self.widths[-1],
            max(x.y + x.height for column in columns for x in column),
            tuple(map(self._placed, self.diagram.boxes)),
            tuple(map(self._path, self.diagram.links)),
            tuple(
                self._placed_label(key, port)
                for (key, _), port in self.labels.items()
            ),
        )

    def _column(self, key: str) -> int:
        return self.names.index(self.by_key[key].column)

    def _stations(self, link: Link) -> list[tuple[int, Item, float, float]]:
        """Returns the items of a link: column, item, and heights in it."""
        start, end = self._column(link.source), self._column(link.target)
        leaving = self.offsets[link.source, link.leaving, "right"]
        entering = self.offsets[link.target, link.entering, "left"]
        lanes = [
            self.lanes.setdefault(
                (link.source, link.leaving, column), Item(LANE)
            )
            for column in range(start + 1, end)
        ]
        half = LANE / 2
        return [
            (start, self.items[link.source], 0.0, leaving),
            *((start + i, x, half, half) for i, x in enumerate(lanes, 1)),
            (end, self.items[link.target], entering, 0.0),
        ]

    def _connect(self) -> None:
        hops: dict[tuple, None] = {}
        for link in self.diagram.links:
            for before, after in pairwise(self._stations(link)):
                (_, left, _, leaving), (_, right, entering, _) = before, after
                hop = (id(left), leaving, id(right), entering)
                if hop not in hops:
                    connect(left, leaving, right, entering)
                hops[hop] = None

    def _labels(self) -> Iterator[tuple[_PortKey, Port]]:
        """Yields the ports whose links lead on: outputs say it themselves."""
        used = {
            (link.source, link.leaving)
            for link in self.diagram.links
            if self.by_key[link.target].column != "output"
        }
        for box in self.diagram.boxes:
            for port in (port for row in box.rows for port in row.leaving):
                if port.label and (box.key, port.key) in used:
                    yield (box.key, port.key), port

    def _width(self, column: int) -> float:
        return max(
            row_width(row)
            for box in self.diagram.boxes
            if self._column(box.key) == column
            for row in box.rows
        )

    def _strip(self, column: int) -> float:
        """Returns the width that the labels after a column take."""
        widths = [
            text_width(line, SMALL, is_bold) + PADDING + 4
            for (key, _), port in self.labels.items()
            if self._column(key) == column
            for line, is_bold in label_lines(port.label)
        ]
        return max(widths, default=0.0)

    def _placed(self, box: Box) -> PlacedBox:
        column = self._column(box.key)
        x, width = self.starts[column], self.widths[column]
        y = self.items[box.key].y
        rows = []
        for row in box.rows:
            rows.append(Placed(row, x, y, width, row_height(row)))
            y += row_height(row)
        return PlacedBox(box, tuple(rows))

    def _placed_label(self, key: str, port: Port) -> PlacedLabel:
        column = self._column(key)
        x = self.starts[column] + self.widths[column]
        y = self.items[key].y + self.offsets[key, port.key, "right"]
        return PlacedLabel(port.label, x, y)

    def _path(self, link: Link) -> tuple[Point, ...]:
        (first, item, _, leaving), *others = self._stations(link)
        x, y = self.starts[first], item.y + leaving
        points = [(x + self.widths[first], y), (x + self.ends[first], y)]
        for column, item, entering, leaving in others:
            x = self.starts[column]
            points.append((x, item.y + entering))
            points.append((x + self.ends[column], item.y + leaving))
        return tuple(points[:-1])


def row_width(row: Row) -> float:
    """Returns the width of a row's text with its padding."""
    size, bold = text_style(row.style)
    widths = [
        text_width(line, size, bold and number == 0)
        for number, line in enumerate(row.lines)
    ]
    return max(widths, default=0.0) + 2 * PADDING


def row_height(row: Row) -> float:
    """Returns the height of a row, for its text and its links."""
    size, _ = text_style(row.style)
    text = len(row.lines) * size * LINE + (3 if row.style == "note" else 9)
    arriving = len(row.entering) * ARRIVING
    leaving = sum(_label_height(port) for port in row.leaving)
    return max(text, arriving, leaving)


def text_style(style: str) -> tuple[float, bool]:
    """Returns the size of a row's text, and whether its first line is bold."""
    size = SMALL if style in ("note", "merge") else SIZE
    return size, style in ("title", "name")


def label_lines(label: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yields the lines of a label, and whether they are bold: names are."""
    for number, line in enumerate(label):
        yield line, number == 0 and len(label) > 1


def _label_height(port: Port) -> float:
    return max(1, len(port.label)) * SMALL * LINE + 10


def _offsets(box: Box) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Yields the heights of a box's ports, by box, port and side."""
    top = 0.0
    for row in box.rows:
        height = row_height(row)
        sides = {
            "left": row.entering,
            "right": [port.key for port in row.leaving],
        }
        for side, keys in sides.items():
            for number, key in enumerate(keys):
                share = (number + 0.5) / len(keys)
                yield (box.key, key, side), top + share * height
        top += height
