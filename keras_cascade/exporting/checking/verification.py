"""Runs a written file with its own runtime, and compares its answers.

Tested by `tests/exporting/test_every_format.py`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade.exporting.checking import parity, runner
from keras_cascade.exporting.checking.doubts import (
    find_one_label,
    find_unproven,
)
from keras_cascade.exporting.checking.parity import Answers
from keras_cascade.exporting.formats import litert_file
from keras_cascade.exporting.options import ExportOptions
from keras_cascade.exporting.port_names import PortNames
from keras_cascade.exporting.processes import run_child
from keras_cascade.exporting.report import ExportReport, Latency
from keras_cascade.exporting.samples import Samples
from keras_cascade.graph.program import Port

_RUN = "import runpy; runpy.run_path({runner!r})['main']({request!r})"
_THREADS = {"all_threads": None, "one_thread": 1}
# On made-up inputs, a file may be this far from the model, relative to the
# largest answer. A converter that errs is further away.
_ROUGHLY = 1e-2


@dataclass(frozen=True)
class CheckData:
    """Inputs, and how a file is asked and has to answer.

    Attributes:
        samples: The inputs.
        expected: The model's answers.
        given: Whether the inputs are the user's.
        names: The names of the inputs and outputs in the file.
    """

    samples: Samples
    expected: Answers
    given: bool
    names: PortNames


def verify(
    report: ExportReport,
    path: Path,
    model: keras.Model,
    options: ExportOptions,
    check: CheckData,
) -> ExportReport:
    """Runs a file on all samples; adds to the report how it compares.

    Raises:
        RuntimeError: The file's runtime rejects it.
    """
    used = litert_file.operators(path) if options.format == "tflite" else {}
    if names := borrowed_operators(used):
        raise RuntimeError(
            f"'{path.name}' needs operators of TensorFlow's, "
            f"{', '.join(names)}, which no runtime of LiteRT for Python has: "
            "it cannot be checked here. Without check_data it is written, "
            "for an app that links them."
            + " With batch_size=1, recurrent layers need none of these."
            * any("TensorList" in name for name in names)
        )
    runs = {
        name: run_file(path, options, check, threads)
        for name, threads in _THREADS.items()
    }
    expected, labels = check.expected, check.samples.labels
    found, costs = runs["all_threads"]
    metrics = {}
    has_metrics = parity.has_metrics(model)
    left_out = has_metrics and not check.samples.has_labels
    # The metrics of a model with several outputs need all of them.
    is_whole = len(expected) == len(model.outputs)
    if has_metrics and is_whole and not left_out:
        own = parity.score(model, expected, labels)
        # Runtimes order outputs as they like; `score` takes the model's order.
        in_order = {name: found[name] for name in expected}
        files = parity.score(model, in_order, labels)
        metrics = {k: {"model": own[k], "file": files[k]} for k in own}
    return replace(
        report,
        parity=parity.compare(expected, found),
        metrics=metrics,
        metrics_left_out=parity.metric_names(model) if left_out else "",
        unproven=find_unproven(expected),
        metrics_doubt=find_one_label(labels) if metrics else "",
        latency={k: Latency(**x["latency"]) for k, (_, x) in runs.items()},
        peak_memory_bytes=costs["peak_memory_bytes"],
    )


def run_file(
    path: Path,
    options: ExportOptions,
    check: CheckData,
    threads: int | None = None,
) -> tuple[Answers, dict[str, Any]]:
    """Runs a file in a subprocess; returns its answers, latency and memory.

    It may use all threads by default. Files are added to the folder of `path`.
    """
    folder = path.parent / f"run-{len(list(path.parent.glob('run-*')))}"
    work = run_request(path, options, check, folder, threads)
    request = folder / "request.json"
    request.write_text(json.dumps(work))
    run_child(
        _RUN.format(runner=runner.__file__, request=str(request)),
        what=f"Running '{options.path.name}'",
        log=folder / "run.log",
        timeout=options.timeout,
        environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    costs = json.loads((folder / "result.json").read_text())
    return read_answers(folder), costs


def run_request(
    path: Path,
    options: ExportOptions,
    check: CheckData,
    folder: Path,
    threads: int | None = None,
) -> dict[str, Any]:
    """Returns what `runner` has to do, and makes the folder of its results."""
    folder.mkdir()
    return {
        "format": options.format,
        "file": str(path),
        "batches": str(check.samples.folder),
        "names": check.names._asdict(),
        "answers": str(folder / "answers"),
        "result": str(folder / "result.json"),
        "threads": threads,
        "outputs": list(check.expected),
        "pixels": [check.names.inputs[name] for name in options.pixels],
        "batch_size": options.batch_size or 1,
    }


def read_answers(folder: Path) -> Answers:
    """Returns the answers that `runner` wrote to a folder."""
    paths = sorted((folder / "answers").iterdir())
    batches = [runner.read_batch(x) for x in paths]
    return {
        name: np.concatenate([batch[name] for batch in batches])
        for name in batches[0]
    }


def borrowed_operators(operators: Iterable[str]) -> list[str]:
    """Returns the operators of a LiteRT file that are TensorFlow's."""
    return [name for name in operators if name.startswith("Flex")]


def is_roughly_right(expected: Answers, found: Answers) -> bool:
    """Returns whether a file answers as the model to two digits.

    Made-up inputs may be divided by zero: what is infinite or undefined in the
    one is so in the other.
    """
    return all(
        name in found
        and found[name].shape == values.shape
        and np.allclose(
            found[name],
            values,
            rtol=0,
            atol=_ROUGHLY * _largest(values),
            equal_nan=True,
        )
        for name, values in expected.items()
    )


def _largest(values: np.ndarray) -> float:
    """Returns the largest absolute value that is finite."""
    finite = np.abs(values[np.isfinite(values)])
    return float(max(finite.max(initial=0), np.finfo("float32").tiny))


def made_up_inputs(
    ports: Iterable[Port], rows: int = 4
) -> dict[str, np.ndarray]:
    """Returns random inputs to try a converter on where there are no others."""
    random = np.random.default_rng(0)
    found = {}
    for port in ports:
        shape = (port.shape[0] or rows, *(size or 8 for size in port.shape[1:]))
        if "int" in port.dtype or port.dtype == "bool":
            # All vocabularies have the tokens 0 and 1.
            found[port.name] = random.integers(0, 2, shape)
        elif port.dtype == "string":
            found[port.name] = random.choice(["some", "text"], shape)
        elif len(shape) == 4:
            found[port.name] = random.uniform(0, 255, shape)
        else:
            found[port.name] = random.normal(size=shape)
    return found
