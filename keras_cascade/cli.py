"""The `keras-cascade` command: reads its arguments, runs one subcommand.

Each subcommand is a function that takes the parsed arguments and returns the
exit status: 0, or 1 on failure. Bad usage exits with 2.
"""

import argparse
import contextlib
import json
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from rich.console import Console
from rich.table import Table

from keras_cascade._resources import checkout, folder

# What the library and those below it raise for mistakes and for what the
# machine lacks. Anything else is a bug, whose traceback is worth having.
_EXPECTED = (ImportError, OSError, RuntimeError, TypeError, ValueError)
_DEBUG = "KERAS_CASCADE_DEBUG"

Row = dict[str, Any]
# Heading and how a row fills it: ("ratio", "{ratio:.3g}").
Columns = tuple[tuple[str, str], ...]

# Of benchmarks that have no TITLE and COLUMNS of their own.
_TITLE = "Times in seconds; the ratio is ours / reference"
_COLUMNS = (
    ("ours", "{ours_s:.4g}"),
    ("reference", "{reference_s:.4g}"),
    ("ratio", "{ratio:.3g}"),
    ("bound", "{bound}"),
)


class Report(NamedTuple):
    """What a benchmark found, and the table that shows it."""

    rows: list[Row]
    title: str = _TITLE
    columns: Columns = _COLUMNS


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
    _add_demo(commands)
    _add_taps(commands)
    _add_inspect(commands)
    _add_bench(commands)
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


def _add_command(
    commands: Any, name: str, run: Callable[..., int], text: str
) -> argparse.ArgumentParser:
    """Adds a subcommand with what all of them share."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    return parser


# demo


def _add_demo(commands: Any) -> None:
    parser = _add_command(
        commands,
        "demo",
        _demo,
        "Cascade two small networks on real handwritten digits, compare with "
        "training from scratch, and export the result.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=(checkout() or Path()) / "saved_models",
        metavar="DIR",
        help="where the exports go (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of weights and of the labels drawn (default: %(default)s)",
    )


def _demo(arguments: argparse.Namespace) -> int:
    # Lazily: the demo needs more than the rest of the package.
    from keras_cascade import demo

    demo.main(
        output=arguments.output, seed=arguments.seed, as_json=arguments.json
    )
    return 0


# taps


def _add_taps(commands: Any) -> None:
    parser = _add_command(
        commands,
        "taps",
        _taps,
        "List what can be tapped in a network: paths, shapes, parameters and "
        "floating-point operations up to there.",
    )
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="a name of keras.applications, of kc.zoo, or 'hub:preset', or "
        "the path of a .keras file",
    )
    parser.add_argument(
        "--pattern",
        default="**",
        help="only paths that this pattern matches (default: %(default)s)",
    )


def _taps(arguments: argparse.Namespace) -> int:
    # Lazily: Keras takes seconds to import, and --help needs none of it.
    from keras_cascade import zoo
    from keras_cascade.graph.taps import list_taps

    known = arguments.network in zoo.names()
    network: Any = arguments.network
    network = zoo.load(network) if known else network
    found = list_taps(network, arguments.pattern)
    if arguments.json:
        _print_json([asdict(tap) for tap in found])
    else:
        print(found)  # noqa: T201
    return 0


# inspect


def _add_inspect(commands: Any) -> None:
    parser = _add_command(
        commands,
        "inspect",
        _inspect,
        "Show what a saved cascade is: inputs, outputs, blocks, taps, "
        "injections, adapters, what trains and how fast.",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL.keras",
        help="a file that cascade.save() wrote, or of any Keras model",
    )


def _inspect(arguments: argparse.Namespace) -> int:
    # Lazily, as above.
    import keras

    from keras_cascade.display.inspection import inspect_model, inspection_text

    if not arguments.model.is_file():
        raise ValueError(f"There is no file '{arguments.model}'.")
    model: Any = keras.saving.load_model(arguments.model)
    if arguments.json:
        _print_json(inspect_model(model))
    else:
        print(inspection_text(model))  # noqa: T201
    return 0


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201


# bench


def _add_bench(commands: Any) -> None:
    parser = _add_command(
        commands,
        "bench",
        _bench,
        "Measure: what cascades cost on this machine beside the same thing "
        "written by hand, and what retention keeps.",
    )
    parser.add_argument(
        "names",
        nargs="+",
        type=_benchmark,
        metavar="NAME",
        help="what to measure, such as build, step, pca or forgetting",
    )


def _bench(arguments: argparse.Namespace) -> int:
    reports = [(name, _run_benchmark(path)) for name, path in arguments.names]
    rows = [
        {"benchmark": name, **row}
        for name, report in reports
        for row in report.rows
    ]
    if arguments.json:
        _print_json(rows)
        return 0
    # One table for all that have the same columns.
    for heads in dict.fromkeys((r.title, r.columns) for _, r in reports):
        chosen = {n for n, r in reports if (r.title, r.columns) == heads}
        Console().print(
            _table(*heads, [r for r in rows if r["benchmark"] in chosen])
        )
    return 0


def _benchmark(name: str) -> tuple[str, Path]:
    """Resolves a benchmark's name, as argparse's `type`."""
    paths = {
        path.stem.removeprefix("bench_"): path
        for path in sorted(folder("benchmarks").glob("bench_*.py"))
    }
    if name not in paths:
        raise argparse.ArgumentTypeError(
            f"no benchmark {name!r}; there are: {', '.join(paths)}"
        )
    return name, paths[name]


def _run_benchmark(path: Path) -> Report:
    """Runs a benchmark's `run()` in a process that nothing ran in before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run_file, path).result()


def _run_file(path: Path) -> Report:
    # Standard output belongs to the table or the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        module = runpy.run_path(str(path))
        rows = module["run"]()
    columns = module.get("COLUMNS", dict(_COLUMNS))
    return Report(rows, module.get("TITLE", _TITLE), tuple(columns.items()))


def _table(title: str, columns: Columns, rows: Sequence[Row]) -> Table:
    table = Table(title=title)
    table.add_column("benchmark")
    table.add_column("case")
    for column, _ in columns:
        table.add_column(column, justify="right")
    table.add_column("holds")
    for row in rows:
        cells = [template.format(**row) for _, template in columns]
        holds = "yes" if row["holds"] else "no"
        table.add_row(row["benchmark"], row["name"], *cells, holds)
    return table


if __name__ == "__main__":
    sys.exit(main())
