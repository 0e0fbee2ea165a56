"""Tables as text, for terminals and notebooks.

Tested by `tests/display/test_summary.py`.
"""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def as_text(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Iterable[str] = (),
    caption: str | None = None,
    width: int | None = None,
) -> str:
    """Returns a table as text without colours.

    Args:
        title: The text above the table.
        columns: The headings of the columns.
        rows: The cells of each row; `None` is an empty cell.
        right: The columns that are aligned to the right. Defaults to `()`.
        caption: The text below the table. Defaults to `None`.
        width: The width in characters; `None` is as wide as the cells are.
            Defaults to `None`.
    """
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
    )
    right = set(right)
    for column in columns:
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    return _printed(table, width)


def count(number: int | None) -> str:
    """Returns a number with commas, `1,024`; `?` if it is unknown."""
    return "?" if number is None else f"{number:,}"


def shape(dimensions: Sequence[int | None]) -> str:
    """Returns a shape without its batch, `8 × 8 × 32`."""
    inner = [("?" if size is None else str(size)) for size in dimensions[1:]]
    return " × ".join(inner) or "scalar"


def _printed(table: Table, width: int | None) -> str:
    stream = io.StringIO()
    # In notebooks too: rich would display HTML there in place of writing.
    console = Console(
        file=stream,
        width=width or 10_000,
        force_terminal=False,
        force_jupyter=False,
    )
    console.print(table, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
