"""The `keras-cascade` command: reads its arguments, runs one subcommand.

Each subcommand is a function that takes the parsed arguments and returns the
exit status: 0, or 1 on failure. Bad usage exits with 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from keras_cascade.cli.bench import add_bench
from keras_cascade.cli.export import add_export
from keras_cascade.cli.showing import add_demo, add_inspect, add_taps

# What the library and those below it raise for mistakes and for what the
# machine lacks. Anything else is a bug, whose traceback is worth having.
_EXPECTED = (ImportError, OSError, RuntimeError, TypeError, ValueError)
_DEBUG = "KERAS_CASCADE_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments after the program's name; None reads those of the
            process. Defaults to `None`.

    Returns:
        The exit status: 0, or 1 when the subcommand failed.

    Raises:
        SystemExit: with status 2 on bad usage, 0 after `--help`.

    Example:
        ```python
        from keras_cascade.cli import main
        status = main(["bench", "pca", "--json"])
        ```
    """
    try:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except _EXPECTED as error:
        if os.environ.get(_DEBUG):
            raise
        return _fail(error)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="keras-cascade",
        description="One Keras model out of several pretrained networks.",
        epilog=f"{_DEBUG}=1 in the environment shows an error's traceback.",
    )
    commands = parser.add_subparsers(
        title="subcommands", metavar="COMMAND", required=True
    )
    add_demo(commands)
    add_taps(commands)
    add_inspect(commands)
    add_export(commands)
    add_bench(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that explains bad usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See: {self.prog} --help\n")


def _fail(error: Exception) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        message += '. Install it, or all: pip install "keras_cascade[all]"'
    print(f"keras-cascade: {message}", file=sys.stderr)  # noqa: T201
    return 1
