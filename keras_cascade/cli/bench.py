"""Runs benchmarks, and prints their figures: the subcommand `bench`.

Tested by `tests/cli/test_entry.py`.
"""

import argparse
import ast
import contextlib
import inspect
import runpy
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_cascade._package.resources import folder
from keras_cascade.cli.commands import (
    Subcommands,
    add_command,
    import_package,
    show,
)

if TYPE_CHECKING:
    from keras_cascade._reporting.tables import Table

Row = dict[str, Any]
# The heading and the format of a row of each column: ("ratio", "{ratio:.3g}").
Columns = tuple[tuple[str, str], ...]


class Report(NamedTuple):
    """The rows of a benchmark, with the title and columns of their table."""

    rows: Sequence[Row]
    title: str = "Times in seconds; the ratio is ours / reference"
    columns: Columns = (
        ("ours", "{ours_s:.4g}"),
        ("reference", "{reference_s:.4g}"),
        ("ratio", "{ratio:.3g}"),
        ("bound", "{bound}"),
    )


def add_bench(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "bench",
        _bench,
        "Measure: what cascades cost on this machine beside the same thing "
        "written by hand, and what retention keeps.",
    )
    # A line for each benchmark, as they are.
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(str(parser.description), 79)
    paths = _paths()
    parser.epilog = _listed(paths)
    parser.add_argument(
        "names",
        nargs="+",
        choices=paths,
        metavar="NAME",
        help="what to measure, of the list below",
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


def _bench(arguments: argparse.Namespace) -> int:
    paths = {name: _paths()[name] for name in arguments.names}
    try:
        chosen = _settings_of(paths, arguments.settings)
    except ValueError as error:
        return arguments.usage_error(str(error))
    reports = [
        (name, _run_benchmark(path, chosen[name]))
        for name, path in paths.items()
    ]
    # Benchmarks that have the same columns share a table.
    tables: dict[tuple[str, Columns], list[Row]] = {}
    for name, report in reports:
        rows = tables.setdefault((report.title, report.columns), [])
        rows += [{"benchmark": name, **row} for row in report.rows]
    if arguments.json:
        every = [{"benchmark": n, **row} for n, r in reports for row in r.rows]
        show(every, as_json=True)
        return 0
    # Imported late: --help prints no table.
    from keras_cascade._reporting.tables import Tables

    shown = [_table(*kind, rows) for kind, rows in tables.items()]
    show(Tables(*shown), as_json=False)
    return 0


def _paths() -> dict[str, Path]:
    """Returns the file of each benchmark by its name."""
    return {
        path.stem.removeprefix("bench_"): path
        for path in sorted(folder("benchmarks").glob("bench_*.py"))
    }


def _listed(paths: Mapping[str, Path]) -> str:
    """Returns a line for each benchmark: its name, and what it does."""
    # Read, not run: a benchmark imports what it measures.
    trees = {name: ast.parse(x.read_text("utf-8")) for name, x in paths.items()}
    texts = {name: ast.get_docstring(x) or "" for name, x in trees.items()}
    width = max(map(len, paths), default=0)
    lines = [
        f"  {name:{width}}  {text.partition(chr(10))[0]}"
        for name, text in texts.items()
    ]
    return "\n".join(["benchmarks:", *lines])


def _setting(text: str) -> tuple[str, str]:
    """Reads `NAME=VALUE`, as argparse's `type`."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def _settings_of(
    paths: Mapping[str, Path], settings: Sequence[tuple[str, str]]
) -> dict[str, dict[str, object]]:
    """Returns the settings that each benchmark has, typed as its defaults.

    Raises:
        ValueError: No benchmark has a setting, or its value is of another
            type.
    """
    defaults = {name: _defaults(path) for name, path in paths.items()}
    known = sorted({key for own in defaults.values() for key in own})
    for key, _ in settings:
        if key not in known:
            raise ValueError(
                f"no setting {key!r} in {', '.join(defaults)}; there are: "
                f"{', '.join(known) or 'none'}"
            )
    return {
        name: {k: _cast(type(own[k]), k, v) for k, v in settings if k in own}
        for name, own in defaults.items()
    }


def _defaults(path: Path) -> dict[str, object]:
    """Returns the numbers and texts among the arguments of a benchmark."""
    run = runpy.run_path(str(path))["run"]
    return {
        name: parameter.default
        for name, parameter in inspect.signature(run).parameters.items()
        if type(parameter.default) in (int, float, str)
    }


def _cast(kind: type, name: str, text: str) -> object:
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{name}={text!r} is no {kind.__name__}") from error


def _run_benchmark(path: Path, settings: Mapping[str, object]) -> Report:
    """Runs a benchmark's `run()` in a fresh process."""
    # Imported late: --help runs none.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Earlier benchmarks would leave allocated memory and compiled functions.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run_file, path, settings).result()


def _run_file(path: Path, settings: Mapping[str, object]) -> Report:
    import_package()
    # Standard output belongs to the table or the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        module = runpy.run_path(str(path))
        report = Report(module["run"](**settings))
    if "COLUMNS" in module:
        report = report._replace(columns=tuple(module["COLUMNS"].items()))
    return report._replace(title=module.get("TITLE", report.title))


def _table(title: str, columns: Columns, rows: Sequence[Row]) -> "Table":
    from keras_cascade._reporting.tables import Table

    headings = [heading for heading, _ in columns]
    cells = [
        (
            *(row["benchmark"], row["name"]),
            *(template.format(**row) for _, template in columns),
            "yes" if row["holds"] else "no",
        )
        for row in rows
    ]
    names = ("benchmark", "case", *headings, "holds")
    return Table(title, names, cells, right=headings)
