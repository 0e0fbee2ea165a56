"""Defines a table and a note by their contents.

Tested by `tests/_reporting/tables/test_text.py` and
`tests/_reporting/tables/test_html.py`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """The contents of a table.

    Attributes:
        title: The text above the table; empty for none.
        columns: The headings of the columns.
        rows: The cells of each row; `None` is an empty cell.
        right: The columns of numbers: aligned to the right, and never folded.
            Defaults to `()`.
        total: Whether the last row sums up the others. Defaults to `False`.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: Collection[str] = ()
    total: bool = False

    @property
    def cells(self) -> list[list[str]]:
        """The cells of each row as text."""
        return [["" if x is None else str(x) for x in row] for row in self.rows]


@dataclass(frozen=True)
class Note:
    """A line below a table.

    Attributes:
        text: The line.
        label: The kind of note, such as `"warning"`; empty for none.
    """

    text: str
    label: str = ""


Part = Table | Note


def count(number: int | None) -> str:
    """Returns a number with commas, `1,024`; `?` if it is unknown."""
    return "?" if number is None else f"{number:,}"


def shape(dimensions: Sequence[int | None]) -> str:
    """Returns a shape without its batch, `8 × 8 × 32`."""
    inner = [("?" if size is None else str(size)) for size in dimensions[1:]]
    return " × ".join(inner) or "scalar"
