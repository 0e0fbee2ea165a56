"""Adds subcommands, loads the models they are given, prints their results."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from keras_cascade._package.public import import_eager
from keras_cascade._reporting.messages import to_json
from keras_cascade.cli.framework_log import without_framework_log

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


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option for modules with layers of the user's own."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module or .py file that registers layers of your own, which "
        "the model has: its code is run; may be repeated",
    )


def import_package(modules: Sequence[str] = ()) -> None:
    """Imports Keras and all that models may contain.

    Subcommands call it once their arguments are known to be right: it takes
    seconds.

    Args:
        modules: The names or paths of the user's modules. Defaults to none.

    Raises:
        BackendError: Keras or its backend is missing.
        ImportError: There is no such module.
    """
    with without_framework_log():
        import_eager()
        for module in modules:
            _import_module(module)


def _import_module(name: str) -> None:
    """Imports a module from the current folder or the path, or a `.py` file."""
    path = Path(name)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ImportError(f"--import: there is no file '{name}'.")
    # Processes that write files find the module here as well.
    folder = path.resolve().parent if is_file else Path.cwd()
    sys.path.insert(0, str(folder))
    importlib.import_module(path.stem if is_file else name)


def load_model(path: Path, compile: bool = True) -> "keras.Model":
    """Loads a `.keras` file, compiled by default.

    Raises:
        ValueError: There is no such file, or it cannot be loaded.
    """
    # Imported late, as it imports Keras, which --help does not need.
    from keras_cascade.networks.archives import load_archive

    return load_archive(path, "model", compile)


def show(result: object, as_json: bool) -> None:
    """Prints a result as JSON, or as its text."""
    # JSON has no infinity: `to_json` writes null.
    print(to_json(result) if as_json else result)  # noqa: T201
