"""Makes, trains and exports the cascades of the demo, and says how it goes."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from keras_cascade._reporting.tables import Table, Tables
from keras_cascade.cli.demo.exports import Check, write_files
from keras_cascade.cli.demo.strategies import (
    LABELS_PER_DIGIT,
    STRATEGIES,
    Task,
    accuracy,
    draw_task,
    make_cascades,
)

_TUTORIALS = (
    "https://github.com/keras-cascade/keras_cascade/tree/main/tutorials"
)
_GUIDE = "https://keras-cascade.github.io/keras_cascade"


def main(*, output: Path, seed: int = 0, as_json: bool = False) -> None:
    """Runs the demo: four ways to read handwriting, and the exports.

    Args:
        output: The folder of the files, which is created.
        seed: The seed of weights and of the labels drawn. Defaults to `0`.
        as_json: Whether standard output gets one JSON object instead of
            tables. Progress is then shown on standard error. Defaults to
            `False`.

    Raises:
        ImportError: scikit-learn is not installed.
        OSError: `output` cannot be written to.
        RuntimeError: A written file does not answer as the cascade does.

    Example:
        ```python
        from pathlib import Path
        from keras_cascade.cli.demo import run
        run.main(output=Path("saved_models"))
        ```
    """
    started = time.perf_counter()
    # With JSON, standard output is for the object alone.
    console = Console(stderr=as_json)
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    task = draw_task(seed)
    _introduce(console, task)
    cascades = make_cascades(task, console)
    accuracies = {name: accuracy(c, task) for name, c in cascades.items()}
    tuned = cascades["jointly fine-tuned"]
    checks = write_files(tuned, task.test[0], task.images, output, console)
    seconds = time.perf_counter() - started
    if as_json:
        Console().print_json(data=_as_json(accuracies, checks, seed, seconds))
    else:
        _report(console, accuracies, checks, seconds)


def _introduce(console: Console, task: Task) -> None:
    console.print(
        "[bold]Two networks that know printed characters read handwriting."
        "[/bold]\n"
        "glyph_encoder: image → 128 features. digits_expert: 128 + 2 → digit.\n"
        f"They learn from {len(task.few[1])} labelled images; "
        f"{len(task.test[1])} others test them.\n",
        highlight=False,
    )


def _report(
    console: Console,
    accuracies: Mapping[str, float],
    checks: Mapping[str, Check],
    seconds: float,
) -> None:
    ways = Table(
        "On the test images",
        ("way", "what learns", "accuracy"),
        [(n, STRATEGIES[n].learns, f"{x:.3f}") for n, x in accuracies.items()],
        right=("accuracy",),
    )
    files = Table(
        "The files' answers and the cascade's",
        ("file", "bytes", "largest difference", "same digit"),
        [_file_row(check) for check in checks.values()],
        right=("bytes", "largest difference", "same digit"),
    )
    Tables(ways, files).show()
    first = next(iter(checks.values())).path
    lines = [
        f"Files in {first.parent}. {seconds:.0f} seconds. What to do next:",
        f"  keras-cascade inspect {shlex.quote(str(first))}",
        f"  tutorial: {_TUTORIALS}",
        f"  guide:    {_GUIDE}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _file_row(check: Check) -> tuple[str, ...]:
    found = f"{check.difference:.1e} σ", f"{check.agreement:.1%}"
    return check.path.name, f"{check.size:,}", *found


def _as_json(
    accuracies: Mapping[str, float],
    checks: Mapping[str, Check],
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    return {
        "backend": keras.config.backend(),
        "seed": seed,
        "labels": 10 * LABELS_PER_DIGIT,
        "accuracy": dict(accuracies),
        "files": {
            name: {**check._asdict(), "path": str(check.path)}
            for name, check in checks.items()
        },
        "seconds": round(seconds, 1),
    }
