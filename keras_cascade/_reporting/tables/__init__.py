"""Tables that fit where they are shown: notebooks, terminals, files.

An object that is shown as tables extends `Tabular` and says in `_parts` which
tables and notes it has; the rest follows from where it is shown.
"""

from keras_cascade._reporting.tables.html import as_html
from keras_cascade._reporting.tables.table import (
    Note,
    Part,
    Table,
    count,
    shape,
)
from keras_cascade._reporting.tables.tabular import Tables, Tabular
from keras_cascade._reporting.tables.text import as_text

__all__ = [
    "Note",
    "Part",
    "Table",
    "Tables",
    "Tabular",
    "as_html",
    "as_text",
    "count",
    "shape",
]
