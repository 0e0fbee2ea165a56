"""Declares a cascade as boxes and links, before they have places.

Tested by `tests/display/picture/test_reading.py`.
"""

from dataclasses import dataclass

# The columns of a picture, from left to right.
COLUMNS = (
    "input",
    "upstream",
    "adapters",
    "fusion",
    "downstream",
    "head",
    "output",
)
# How the weights of a row train, and the words of the legend; "" has none.
STATES = {
    "frozen": "frozen",
    "trains": "trains",
    "lora": "LoRA: low-rank updates train",
    "part": "trains in part",
}


@dataclass(frozen=True)
class Port:
    """A place where a link leaves a box.

    Attributes:
        key: The name of the port in its box.
        label: The lines of text on the link: a name, a shape.
    """

    key: str
    label: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a box.

    Attributes:
        lines: Its text.
        state: How its weights train, a key of `STATES` or "".
        style: `"title"`, `"text"`, `"note"`, or `"merge"` for a row in which
            features enter.
        entering: The keys of the ports at its left.
        leaving: The ports at its right.
    """

    lines: tuple[str, ...]
    state: str = ""
    style: str = "text"
    entering: tuple[str, ...] = ()
    leaving: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Box:
    """A part of the cascade; inputs and outputs are text without a frame."""

    key: str
    column: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, order=True)
class Link:
    """An arrow from a port of one box to a port of another."""

    source: str
    leaving: str
    target: str
    entering: str


@dataclass(frozen=True)
class Diagram:
    """The boxes of a cascade, in order of columns, and their links."""

    title: str
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
