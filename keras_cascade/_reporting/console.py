"""Writes to where the user reads: a notebook, a terminal, or a file.

In a notebook, rich would show its progress as `Output()`.

Tested by `tests/_reporting/test_console.py` and
`tests/_reporting/tables/test_tabular.py`.
"""

import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Protocol

import keras
from rich.console import Console

# The characters of a line in a notebook: JupyterLab's cell has room for them
# in a window that is 1280 pixels wide.
NOTEBOOK_WIDTH = 100
# The seconds between two changes of a notebook's output.
_INTERVAL = 0.2


def is_notebook() -> bool:
    """Returns whether this process runs the cells of a notebook."""
    return Console().is_jupyter


def width() -> int | None:
    """Returns the width of printed text; None in files and pipes: no limit."""
    if is_notebook():
        return NOTEBOOK_WIDTH
    if sys.stdout is not None and sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def say(text: str) -> None:
    """Writes a line where Keras writes its own."""
    if not keras.config.is_interactive_logging_enabled():
        logging.getLogger("absl").info(text)
        return
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Bar(Protocol):
    """Shows how far a task is."""

    def __call__(self, text: str, done: int | None = None) -> None:
        """Shows what is being done, and how much of it is done."""
        ...


@contextmanager
def progress(total: int | None, visible: bool) -> Iterator[Bar]:
    """Shows the progress of a task, and removes it when the task ends.

    In files and pipes nothing is shown.

    Args:
        total: The number of steps; None if it is unknown.
        visible: Whether to show anything.

    Yields:
        A function of the text to show and the number of steps done.
    """
    # On standard error: standard output may be read by a program.
    console = Console(stderr=True)
    if visible and console.is_jupyter:
        with _notebook_line(total) as bar:
            yield bar
    elif visible and console.is_terminal:
        with _terminal_line(console, total) as bar:
            yield bar
    else:
        yield lambda text, done=None: None


@contextmanager
def _terminal_line(console: Console, total: int | None) -> Iterator[Bar]:
    # Imported here: few sessions that import the package show a bar.
    from rich import progress as rich

    columns: list[rich.ProgressColumn] = [
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}", markup=False),
        *([rich.BarColumn(20), rich.MofNCompleteColumn()] if total else []),
        rich.TimeElapsedColumn(),
    ]
    with rich.Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=total)
        yield lambda text, done=None: shown.update(
            task, description=text, completed=done
        )


@contextmanager
def _notebook_line(total: int | None) -> Iterator[Bar]:
    from IPython.display import display, update_display

    started, last, shown = time.monotonic(), 0.0, ""
    name = display({"text/plain": ""}, raw=True, display_id=True).display_id

    def bar(text: str, done: int | None = None) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if text == shown and now - last < _INTERVAL:
            return
        last, shown = now, text
        line = _line(text, done, total, now - started)
        update_display(line, raw=True, display_id=name)

    try:
        yield bar
    finally:
        update_display({}, raw=True, display_id=name)


def _line(
    text: str, done: int | None, total: int | None, seconds: float
) -> dict[str, str]:
    steps = f"{done}/{total} " if total and done is not None else ""
    plain = f"{text} {steps}{seconds:.0f} s"
    bar = f'<progress value="{done}" max="{total}"></progress>' if steps else ""
    return {"text/plain": plain, "text/html": f"{bar} {escape(plain)}"}
