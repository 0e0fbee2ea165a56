"""Shows an object as tables, wherever it is shown."""

from collections.abc import Sequence
from typing import Protocol

from keras_cascade._reporting import console
from keras_cascade._reporting.tables.html import as_html
from keras_cascade._reporting.tables.table import Part
from keras_cascade._reporting.tables.text import as_text


class _Printer(Protocol):
    """The printer that IPython passes to `_repr_pretty_`."""

    def text(self, text: str) -> object:
        """Writes text."""
        ...


class Tabular:
    """Shows itself as tables: as HTML in notebooks, else as text.

    Text is as wide as the terminal, with columns folded at words; in files and
    pipes each column is as wide as its cells.
    """

    def _parts(self) -> Sequence[Part]:
        """Returns the tables and notes."""
        raise NotImplementedError

    def _line(self) -> str:
        """Returns the line that `repr` gives; the text, unless overridden."""
        return str(self)

    # Reports do not override this: IPython would not show their tables then.
    def __repr__(self) -> str:
        return self._line()

    def __str__(self) -> str:
        return as_text(self._parts(), console.width())

    def _repr_html_(self) -> str:
        return as_html(self._parts())

    def _repr_pretty_(self, printer: _Printer, cycle: bool) -> None:
        """Shows the tables in IPython, where `repr` is a line."""
        printer.text(str(self))


class Tables(Tabular):
    """Some tables and notes.

    Args:
        *parts: The tables and notes.
        width: The width of the text, or of the HTML in characters; `None` is
            that of the place. Defaults to `None`.
    """

    def __init__(self, *parts: Part, width: int | None = None):
        self.parts, self.width = parts, width

    def __str__(self) -> str:
        return as_text(self.parts, self.width or console.width())

    def _repr_html_(self) -> str:
        return as_html(self.parts, self.width)

    def _parts(self) -> Sequence[Part]:
        return self.parts

    def show(self) -> None:
        """Displays them in a notebook, prints them elsewhere."""
        if console.is_notebook():
            from IPython.display import display

            display(self)
        else:
            console.say(str(self))
