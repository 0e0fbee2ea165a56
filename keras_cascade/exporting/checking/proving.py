"""Runs a written file with its own runtime, and compares its answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_cascade.exporting.checking import parity
from keras_cascade.exporting.checking.parity import Answers, OutputParity
from keras_cascade.exporting.formats import litert_file as flatbuffer
from keras_cascade.exporting.processes import run_child
from keras_cascade.exporting.report import Latency
from keras_cascade.exporting.request import Request
from keras_cascade.exporting.samples import Samples, read_batch
from keras_cascade.graph.program import Port

_RUNNER = Path(__file__).with_name("runner.py")
_THREADS = {"all_threads": None, "one_thread": 1}
# What a file may be away from the model on made-up inputs, relative to the
# largest answer: a converter that errs is further away.
_ROUGHLY = 1e-2


@dataclass(frozen=True)
class Proof:
    """How a file answers.

    Attributes:
        parity: Output to how far its answers are from the model's.
        metrics: Metric to its values of `model` and `file`.
        latency: Of one sample, by threads.
        peak_memory_bytes: Of the process that ran it.
    """

    parity: dict[str, OutputParity]
    metrics: dict[str, dict[str, float]]
    latency: dict[str, Latency]
    peak_memory_bytes: int | None


def check_labels_for_metrics(model: Any, samples: Samples) -> None:
    """Whether there are the labels that a model's metrics need."""
    if parity.has_metrics(model) and not samples.has_labels:
        raise ValueError(
            "check_data has no labels, and the metrics that the model was "
            f"compiled with need them: {parity.metric_names(model)}. Pass "
            "(x, y), or a model without metrics: cascade.to_plain()."
        )


def prove(
    model: Any,
    path: Path,
    request: Request,
    samples: Samples,
    expected: Answers,
) -> Proof:
    """Runs a file on all samples and compares.

    Args:
        model: What it was written from.
        path: The file, in a folder where more can be put.
        request: What was asked for.
        samples: The inputs, with labels if the model has metrics.
        expected: The model's answers.

    Raises:
        RuntimeError: Its runtime rejects it.
    """
    _check_runnable(path, request.format)
    runs = {
        name: run_file(path, request, samples.folder, threads, list(expected))
        for name, threads in _THREADS.items()
    }
    found, timing = runs["all_threads"]
    metrics: dict[str, dict[str, float]] = {}
    if parity.has_metrics(model) and len(expected) == len(model.outputs):
        metrics = _metrics(model, samples, expected, found)
    return Proof(
        parity.compare(expected, found),
        metrics,
        {name: _latency(timing) for name, (_, timing) in runs.items()},
        timing["peak_memory_bytes"],
    )


def run_file(
    path: Path,
    request: Request,
    inputs: Path,
    threads: int | None,
    outputs: list[str],
) -> tuple[Answers, dict[str, Any]]:
    """A file's answers, and what running it took.

    Args:
        path: The file, in a folder where more can be put.
        request: Its format, and how long it may take.
        inputs: A folder of batches.
        threads: How many it may use; None is all.
        outputs: The names of its outputs.

    Raises:
        RuntimeError: Its runtime rejects it.
    """
    folder = path.parent / f"run-{len(list(path.parent.glob('run-*')))}"
    folder.mkdir()
    work = {
        "format": request.format,
        "file": str(path),
        "inputs": str(inputs),
        "answers": str(folder / "answers"),
        "result": str(folder / "result.json"),
        "threads": threads,
        "outputs": outputs,
    }
    todo = folder / "request.json"
    todo.write_text(json.dumps(work))
    run_child(
        [str(_RUNNER), str(todo)],
        what=f"Running '{request.path.name}'",
        log=folder / "run.log",
        timeout=request.timeout,
        environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    batches = [read_batch(x) for x in sorted((folder / "answers").glob("*"))]
    answers = {
        name: np.concatenate([batch[name] for batch in batches])
        for name in batches[0]
    }
    return answers, json.loads((folder / "result.json").read_text())


def borrowed_operators(path: Path, format: str) -> list[str]:
    """The operators of a LiteRT file that are TensorFlow's."""
    used = flatbuffer.operators(path) if format == "tflite" else {}
    return [name for name in used if name.startswith("Flex")]


def _check_runnable(path: Path, format: str) -> None:
    if names := borrowed_operators(path, format):
        raise RuntimeError(
            f"'{path.name}' needs operators of TensorFlow's, "
            f"{', '.join(names)}, which no runtime of LiteRT for Python has: "
            "it cannot be checked here. Without check_data it is written, "
            "for an app that links them."
        )


def is_roughly_right(expected: Answers, found: Answers) -> bool:
    """Whether a converter did what it should, to two digits."""
    return all(
        name in found
        and found[name].shape == values.shape
        and np.abs(found[name] - values).max()
        <= _ROUGHLY * max(np.abs(values).max(), np.finfo("float32").tiny)
        for name, values in expected.items()
    )


def made_up_inputs(ports: tuple[Port, ...], rows: int = 4) -> dict[str, Any]:
    """Inputs to try a converter with where there are no others."""
    random = np.random.default_rng(0)
    found = {}
    for port in ports:
        shape = (rows, *(size or 8 for size in port.shape[1:]))
        if "int" in port.dtype or port.dtype == "bool":
            found[port.name] = random.integers(0, 2, shape)
        elif len(shape) == 4:
            found[port.name] = random.uniform(0, 255, shape)
        else:
            found[port.name] = random.normal(size=shape)
    return found


def _metrics(
    model: Any, samples: Samples, expected: Answers, found: Answers
) -> dict[str, dict[str, float]]:
    own = parity.score(model, expected, samples.labels)
    in_order = {name: found[name] for name in expected}
    files = parity.score(model, in_order, samples.labels)
    return {k: {"model": own[k], "file": files[k]} for k in own}


def _latency(timing: Mapping[str, Any]) -> Latency:
    return Latency(timing["median_ms"], timing["p95_ms"], timing["runs"])
