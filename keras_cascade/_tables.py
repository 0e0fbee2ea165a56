"""Tables as text, for terminals and notebooks."""

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
    """A table as text.

    Args:
        title: What stands above it.
        columns: The heads of the columns.
        rows: A cell a column; `None` is an empty cell.
        right: The columns that are aligned to the right. Defaults to `()`.
        caption: What stands below it. Defaults to `None`.
        width: In characters; `None` is as wide as it needs to be, so that no
            cell is cut. Defaults to `None`.

    Returns:
        The lines, without colours.
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
    """A number with its thousands apart; `?` where it is not known."""
    return "?" if number is None else f"{number:,}"


def shape(dimensions: Sequence[int | None]) -> str:
    """A shape without its batch: `8 × 8 × 32`."""
    inner = [("?" if size is None else str(size)) for size in dimensions[1:]]
    return " × ".join(inner) or "scalar"


def _printed(table: Table, width: int | None) -> str:
    stream = io.StringIO()
    # Not what the surroundings can show: text is text, in notebooks too.
    console = Console(
        file=stream,
        width=width or 10_000,
        force_terminal=False,
        force_jupyter=False,
    )
    console.print(table, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
