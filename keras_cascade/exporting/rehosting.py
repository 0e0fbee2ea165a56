"""Writes a file under another backend, in a process of its own."""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_cascade._keras_compat.graphs_and_layers import sublayers
from keras_cascade.exporting.processes import run_child
from keras_cascade.exporting.request import Request
from keras_cascade.exporting.samples import Samples
from keras_cascade.exporting.writing import Written

# A child starts where this process would import from, so that layers of the
# user's are found.
_START = (
    "import sys; sys.path += {paths!r}; "
    "from keras_cascade.exporting.worker import main; main({request!r})"
)


def is_installed(backend: str) -> bool:
    """Whether a backend could be started."""
    return importlib.util.find_spec(backend) is not None


def write_elsewhere(
    model: Any,
    path: Path,
    request: Request,
    samples: Samples | None,
    backend: str,
    report: Callable[[str], None],
) -> Written:
    """Saves the model, and has a process under another backend write it.

    Args:
        model: The model.
        path: The file, in a folder of its own.
        request: What was asked for.
        samples: What 8 bits are calibrated on.
        backend: The backend that writes.
        report: Called with what is being done.

    Raises:
        ValueError: A layer's class is not in a module that can be imported.
        RuntimeError: The process failed.
        TimeoutError: It took longer than it may.
    """
    modules = modules_of(model)
    folder = path.parent
    source, result = folder / "source.keras", folder / "written.json"
    report("saving the model")
    model.save(source)
    work = {
        "model": str(source),
        "path": str(path),
        "result": str(result),
        "request": {**vars(replace(request, path=path)), "path": str(path)},
        "samples": None if samples is None else str(samples.folder),
        "modules": modules,
        "floatx": keras.config.floatx(),
        "image_data_format": keras.config.image_data_format(),
    }
    todo = folder / "request.json"
    todo.write_text(json.dumps(work))
    paths = [os.fspath(x) for x in sys.path if x]
    run_child(
        ["-c", _START.format(paths=paths, request=str(todo))],
        what=f"Writing '{request.path.name}' on the {backend} backend",
        log=folder / "child.log",
        timeout=request.timeout,
        environment=_environment(backend),
        report=lambda stage: report(f"{stage} ({backend})"),
    )
    written = json.loads(result.read_text())
    return Written(written["folded"], written["layers"])


def modules_of(model: Any) -> list[str]:
    """The modules that the classes of a model's layers come from.

    Keras's own are left out: a child has them.

    Raises:
        ValueError: A class is in a script or notebook, which no other process
            can import.
    """
    found: dict[str, Any] = {}
    for layer in sublayers(model):
        found.setdefault(type(layer).__module__, layer)
    ours = ("keras.", "keras_cascade.")
    names = [name for name in found if not name.startswith(ours)]
    if "__main__" in names:
        layer = found["__main__"]
        raise ValueError(
            f"Layer '{layer.name}' is of {type(layer).__name__}, a class of "
            "this script or notebook. The file is written in a process of its "
            "own, which cannot import it: move the class to a module."
        )
    return names


def _environment(backend: str) -> dict[str, str]:
    """Under the backend, on the CPU, which any machine has."""
    return {
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
    }
