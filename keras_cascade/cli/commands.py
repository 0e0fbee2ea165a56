"""What all subcommands share: how they are added, and how they print."""

import argparse
import json
import math
from collections.abc import Callable
from typing import Any


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
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    print(text)  # noqa: T201


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
