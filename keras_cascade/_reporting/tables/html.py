"""Writes tables as HTML for notebooks.

The styles are in the HTML itself: a notebook is also read where nothing else
comes along. Colours are those of the text around, and of JupyterLab's theme.
"""

import html
import re
from collections.abc import Iterable

from keras_cascade._reporting.tables.table import Note, Part, Table

# Lines may break after a slash. In words that are long they may break after
# more, and before a capital: `BatchNormalization`.
_SLASHES = re.compile(r"(/)(?=.)")
_LONG = re.compile(r"\S{16,}")
_JOINTS = re.compile(r"([_.,(=:](?=.)|[a-z](?=[A-Z][a-z]))")
_LINE = "var(--jp-border-color2, rgba(128, 128, 128, 0.5))"
# The class is said three times to go before the styles of JupyterLab.
_CLASS = ".keras-cascade" * 3
# Longer tables scroll, so that a notebook stays readable.
_HEIGHT = "36em"
_STYLE = f"""<style>
{_CLASS} {{max-width: 100%; color: inherit; margin: 0.3em 0;}}
{_CLASS} .scroll {{overflow: auto; max-width: 100%; max-height: {_HEIGHT};}}
{_CLASS} table {{border-collapse: collapse; margin: 0.2em 0; width: auto;
  table-layout: auto;
  color: inherit; font-size: inherit; border: none;}}
{_CLASS} tr {{background: none;}}
{_CLASS} th, {_CLASS} td {{text-align: left; vertical-align: top;
  padding: 0.25em 0.6em; white-space: normal; color: inherit;
  max-width: none; border: none; border-bottom: 1px solid {_LINE};
  line-height: 1.35;}}
{_CLASS} thead th {{border-bottom-width: 2px; font-weight: 600;
  vertical-align: bottom;}}
{_CLASS} .number {{text-align: right; white-space: nowrap;}}
{_CLASS} .total td {{border-top: 2px solid {_LINE};}}
{_CLASS} p {{margin: 0.2em 0.8em; color: inherit; max-width: 60em;}}
{_CLASS} .title {{font-weight: 600;}}
@media print {{{_CLASS} .scroll {{max-height: none; overflow: visible;}}}}
</style>"""


def as_html(parts: Iterable[Part], width: int | None = None) -> str:
    """Returns tables and notes as HTML that needs no other file.

    Args:
        parts: The tables and notes.
        width: The most characters in a line; `None` is as many as there is
            room for. Defaults to `None`.
    """
    limit = "" if width is None else f' style="max-width: {width}ch"'
    shown = "\n".join(
        _table_html(x) if isinstance(x, Table) else _note_html(x) for x in parts
    )
    return f'{_STYLE}\n<div class="keras-cascade"{limit}>\n{shown}\n</div>'


def _table_html(table: Table) -> str:
    rows = table.cells
    kinds = [
        ' class="number"' if name in table.right else ""
        for name in table.columns
    ]
    lines = [f'<p class="title">{_text(table.title)}</p>'] * bool(table.title)
    lines += ['<div class="scroll"><table>', "<thead>"]
    lines += [_row(table.columns, kinds, "th"), "</thead>", "<tbody>"]
    for number, row in enumerate(rows, start=1):
        is_total = table.total and number == len(rows)
        lines.append(_row(row, kinds, "td", ' class="total"' * is_total))
    return "\n".join([*lines, "</tbody>", "</table></div>"])


def _row(
    cells: Iterable[str], kinds: Iterable[str], tag: str, kind: str = ""
) -> str:
    inner = "".join(
        f"<{tag}{of}>{_text(cell)}</{tag}>"
        for cell, of in zip(cells, kinds, strict=True)
    )
    return f"<tr{kind}>{inner}</tr>"


def _note_html(note: Note) -> str:
    label = f"<b>{_text(note.label)}:</b> " if note.label else ""
    return f"<p>{label}{_text(note.text)}</p>"


def _text(text: str) -> str:
    """Returns a text escaped, with places where lines may break."""
    # The marks are private characters, which escaping leaves alone.
    marked = _LONG.sub(lambda word: _JOINTS.sub("\\1\ue000", word[0]), text)
    marked = _SLASHES.sub("\\1\ue000", marked)
    escaped = html.escape(marked).replace("\n", "<br>")
    return escaped.replace("\ue000", "<wbr>")
