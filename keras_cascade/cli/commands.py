"""Adds subcommands, loads the models they are given, prints their results."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from keras_cascade._messages import to_json

if TYPE_CHECKING:
    import keras


class Subcommands(Protocol):
    """The result of argparse's `add_subparsers`, whose class is private."""

    def add_parser(
        self, name: str, *, help: str, description: str
    ) -> argparse.ArgumentParser:
        """Adds the parser of a subcommand."""
        ...


def add_command(
    commands: Subcommands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    """Adds a subcommand with the options that all of them share.

    `run` takes the parsed arguments and returns the exit status: 0, or 1 on
    failure. `text` is the help.
    """
    parser = commands.add_parser(name, help=text, description=text)
    # `usage_error` exits with status 2, for mistakes that argparse misses.
    parser.set_defaults(run=run, usage_error=parser.error)
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    return parser


def load_model(path: Path, compile: bool = True) -> "keras.Model":
    """Loads a `.keras` file, compiled by default.

    Raises:
        ValueError: There is no such file, or it cannot be loaded.
    """
    # Imported late: Keras takes seconds to import, and --help needs none.
    from keras_cascade.networks.archives import load_archive

    return load_archive(path, "model", compile)


def show(result: object, as_json: bool) -> None:
    """Prints a result as JSON, or as its text."""
    # JSON has no infinity: `to_json` writes null.
    print(to_json(result) if as_json else result)  # noqa: T201
