"""Reads the arguments of the console, and runs one subcommand."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from keras_cascade._package.backend import BackendError
from keras_cascade._package.extras import pip_line
from keras_cascade._package.public import __version__
from keras_cascade.cli.bench import add_bench
from keras_cascade.cli.completion import add_completion, complete
from keras_cascade.cli.convert import add_convert
from keras_cascade.cli.demo.command import add_demo
from keras_cascade.cli.export import add_export
from keras_cascade.cli.inspect import add_inspect
from keras_cascade.cli.rank import add_rank
from keras_cascade.cli.taps import add_taps

# The library and its dependencies raise these for mistakes of the user and
# for a machine that lacks something. Any other error is a bug, whose
# traceback is needed.
_EXPECTED = (ImportError, OSError, RuntimeError, TypeError, ValueError)
_DEBUG = "KERAS_CASCADE_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments after the program's name; None reads those of the
            process. Defaults to `None`.

    Returns:
        The exit status: 0, or 1 if the subcommand failed.

    Raises:
        SystemExit: With status 2 on bad usage, 0 after `--help` and
            `--version`.

    Example:
        ```python
        from keras_cascade.cli import main
        status = main(["bench", "pca", "--json"])
        ```
    """
    try:
        parser = _parser()
        complete(parser)
        arguments = parser.parse_args(argv)
        return arguments.run(arguments)
    except _EXPECTED as error:
        if os.environ.get(_DEBUG):
            raise
        return _fail(error)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="keras-cascade",
        description="One Keras model out of several pretrained networks.",
        epilog=f"{_DEBUG}=1 in the environment shows an error's traceback, "
        "TF_CPP_MIN_LOG_LEVEL=0 TensorFlow's log.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        title="subcommands", metavar="COMMAND", required=True
    )
    add_demo(commands)
    add_taps(commands)
    add_rank(commands)
    add_inspect(commands)
    add_export(commands)
    add_convert(commands)
    add_bench(commands)
    add_completion(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that explains bad usage in one line."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())  # what was typed may have several
        self.exit(2, f"{self.prog}: {line}. See: {self.prog} --help\n")


def _fail(error: Exception) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, BackendError):
        message = str(error)
    elif isinstance(error, ModuleNotFoundError) and error.name:
        message += f". Run: {pip_line(error.name)}"
    print(f"keras-cascade: {message}", file=sys.stderr)  # noqa: T201
    return 1
