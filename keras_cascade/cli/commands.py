"""What all subcommands share: how they are added, and how they print."""

import argparse
from collections.abc import Callable
from typing import Any

from keras_cascade._messages import to_json


def add_command(
    commands: Any, name: str, run: Callable[..., int], text: str
) -> argparse.ArgumentParser:
    """Adds a subcommand with what all of them share.

    Args:
        commands: What argparse's `add_subparsers` gave.
        name: What it is called.
        run: Takes the parsed arguments and returns the exit status: 0, or 1
            on failure.
        text: What it does, for `--help`.
    """
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    return parser


def print_json(value: Any) -> None:
    """Prints a value as JSON, which knows no infinity: null stands for it."""
    text = to_json(value)
    print(text)  # noqa: T201
