"""`bench`: runs benchmarks, and shows what they found."""

import argparse
import contextlib
import inspect
import runpy
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from keras_cascade._resources import folder
from keras_cascade.cli.commands import add_command, print_json

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


def add_bench(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
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
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        dest="settings",
        metavar="NAME=VALUE",
        help="another size than that of the documented figures, for those "
        "benchmarks that have it, such as samples=512; may be repeated",
    )
    parser.set_defaults(usage_error=parser.error)


def _bench(arguments: argparse.Namespace) -> int:
    try:
        chosen = _settings_of(arguments.names, arguments.settings)
    except ValueError as error:
        arguments.usage_error(str(error))
    reports = [
        (name, _run_benchmark(path, chosen[name]))
        for name, path in arguments.names
    ]
    rows = [
        {"benchmark": name, **row}
        for name, report in reports
        for row in report.rows
    ]
    if arguments.json:
        print_json(rows)
        return 0
    # One table for all that have the same columns.
    for heads in dict.fromkeys((r.title, r.columns) for _, r in reports):
        alike = {n for n, r in reports if (r.title, r.columns) == heads}
        Console().print(
            _table(*heads, [r for r in rows if r["benchmark"] in alike])
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


def _setting(text: str) -> tuple[str, str]:
    """Reads `NAME=VALUE`, as argparse's `type`."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def _settings_of(
    names: Sequence[tuple[str, Path]], settings: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """By benchmark, those settings that it has, as its defaults are typed.

    Raises:
        ValueError: None of them has a setting, or its value is of another
            type.
    """
    defaults = {name: _defaults(path) for name, path in names}
    for key, _ in settings:
        if not any(key in own for own in defaults.values()):
            there = sorted({key for own in defaults.values() for key in own})
            raise ValueError(
                f"no setting {key!r} in {', '.join(defaults)}; there are: "
                f"{', '.join(there) or 'none'}"
            )
    return {
        name: {k: _as(type(own[k]), k, v) for k, v in settings if k in own}
        for name, own in defaults.items()
    }


def _defaults(path: Path) -> dict[str, Any]:
    """What can be set of a benchmark: numbers and text, with defaults."""
    run = runpy.run_path(str(path))["run"]
    return {
        name: parameter.default
        for name, parameter in inspect.signature(run).parameters.items()
        if type(parameter.default) in (int, float, str)
    }


def _as(kind: type, name: str, text: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{name}={text!r} is no {kind.__name__}") from error


def _run_benchmark(path: Path, settings: Mapping[str, Any]) -> Report:
    """Runs a benchmark's `run()` in a process that nothing ran in before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run_file, path, settings).result()


def _run_file(path: Path, settings: Mapping[str, Any]) -> Report:
    # Standard output belongs to the table or the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        module = runpy.run_path(str(path))
        rows = module["run"](**settings)
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
