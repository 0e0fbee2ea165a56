"""`bench`: runs benchmarks, and shows what they found."""

import argparse
import contextlib
import runpy
import sys
from collections.abc import Sequence
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


def _bench(arguments: argparse.Namespace) -> int:
    reports = [(name, _run_benchmark(path)) for name, path in arguments.names]
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
