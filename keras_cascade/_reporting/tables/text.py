"""Draws tables as text that fits a width.

A table whose cells need no folding has a box. A wider one has lighter lines,
and its cells are folded at words. Where the rows would grow higher than a
record, a row becomes one: a line for each of its cells.
"""

import io
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Drawing
from rich.text import Text

from keras_cascade._reporting.tables.folding import (
    fold,
    longest_piece,
    longest_word,
    share_width,
    width_of,
)
from keras_cascade._reporting.tables.table import Note, Part, Table

# Lines below the headings and before the total, and no others.
_LIGHT = box.Box(
    "    \n    \n ━  \n    \n ─  \n ─  \n    \n    \n",
)


def as_text(parts: Iterable[Part], width: int | None = None) -> str:
    """Returns tables and notes as text without colours.

    Args:
        parts: The tables and notes.
        width: The width in characters; `None` is as wide as the cells are.
            Defaults to `None`.
    """
    return "\n".join(
        _table_text(part, width)
        if isinstance(part, Table)
        else _note_text(part, width)
        for part in parts
    )


def _note_text(note: Note, width: int | None) -> str:
    text = f"{note.label}: {note.text}" if note.label else note.text
    return text if width is None else fold(text, width, indent="  ")


def _table_text(table: Table, width: int | None) -> str:
    rows = [list(table.columns), *table.cells]
    widest = _by_column(width_of, rows)
    boxed = sum(widest) + 3 * len(widest) + 1
    if width is None or boxed <= width:
        lines = _drawn(table, rows, box.HEAVY_HEAD)
    else:
        lines = _folded(table, rows, widest, width)
    title = [fold(table.title, width or boxed)] if table.title else []
    return "\n".join([*title, *lines])


def _folded(
    table: Table, rows: list[list[str]], widest: list[int], width: int
) -> list[str]:
    """Returns the lines of a table that is wider than there is room."""
    room = width - 2 * (len(widest) - 1)
    numbers = [name in table.right for name in table.columns]
    records = _records(rows, width)
    for part in (longest_word, longest_piece):
        # Digits are never folded: two numbers could be read as one.
        least = [
            whole if is_number else part
            for whole, is_number, part in zip(
                widest, numbers, _by_column(part, rows), strict=True
            )
        ]
        if sum(least) > room:
            continue
        widths = share_width(widest, least, room)
        folded = [
            [fold(x, w) for x, w in zip(row, widths, strict=True)]
            for row in rows
        ]
        lines = _drawn(table, folded, _LIGHT)
        return min(lines, records, key=len)
    return records


def _by_column(
    measure: Callable[[str], int], rows: Iterable[Sequence[str]]
) -> list[int]:
    """Returns the largest measure of the cells of each column."""
    return [max(map(measure, column)) for column in zip(*rows, strict=True)]


def _records(rows: list[list[str]], width: int) -> list[str]:
    """Returns a line for each cell, below the first cell of its row."""
    (_, *names), *rows = rows
    indent = max(map(width_of, names), default=0) + 4
    lines = []
    for head, *cells in rows:
        lines += fold(head, width).split("\n")
        for name, cell in zip(names, cells, strict=True):
            text = fold(cell, max(width - indent, 1)).split("\n")
            starts = [f"  {name}", *[""] * len(text)]
            lines += [
                f"{start:{indent}}{line}"
                for start, line in zip(starts, text, strict=False)
                if cell
            ]
    return lines


def _drawn(table: Table, rows: list[list[str]], lines: box.Box) -> list[str]:
    head, *rows = rows
    high = sum(any("\n" in cell for cell in row) for row in rows)
    is_light = lines is _LIGHT
    drawing = Drawing(
        box=lines,
        show_edge=not is_light,
        pad_edge=not is_light,
        padding=(0, 1, 0, int(not is_light)),
        # Rows of several lines would run into each other.
        show_lines=not is_light and high > 0,
        leading=int(is_light and high > len(rows) / 3),
    )
    for name, column in zip(head, table.columns, strict=True):
        justify = "right" if column in table.right else "left"
        drawing.add_column(Text(name), justify=justify, no_wrap=True)
    for number, row in enumerate(rows, start=1):
        # As rich's `Text`, in which neither [bold] nor :map: is markup.
        before_total = table.total and number == len(rows) - 1
        drawing.add_row(*map(Text, row), end_section=before_total)
    return _printed(drawing)


def _printed(drawing: Drawing) -> list[str]:
    stream = io.StringIO()
    # In notebooks too: rich would display HTML there in place of writing.
    console = Console(
        file=stream, width=10_000, force_terminal=False, force_jupyter=False
    )
    console.print(drawing)
    return [line.rstrip() for line in stream.getvalue().splitlines()]
