"""Writes a file in a process of its own, under the running backend or another.

A converter that crashes or hangs takes that process with it, and not the
user's.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_cascade._keras_compat.graphs_and_layers import sublayers
from keras_cascade.exporting.options import ExportOptions
from keras_cascade.exporting.processes import run_child
from keras_cascade.exporting.samples import Samples
from keras_cascade.exporting.writing import Written

# A file with this name says that the child could not load the model.
UNLOADABLE = "unloadable"
# The child imports from where this process does, to find the user's layers.
_START = (
    "import sys; sys.path += {paths!r}; "
    "from keras_cascade.exporting.worker import main; main({request!r})"
)


class NotLoadableError(ValueError):
    """Says that no other process can load the model."""


def write_in_subprocess(
    model: keras.Model,
    path: Path,
    options: ExportOptions,
    samples: Samples | None,
    backend: str,
    report: Callable[[str], None],
    trial: dict[str, Any] | None = None,
) -> Written:
    """Saves the model, and has a process under a backend write the file.

    The file is in a folder of its own. `report` is called with what is being
    done. `trial` has the process run the file, as `runner` is asked to.

    Raises:
        NotLoadableError: The model cannot be saved, or a layer's class is not
            in a module that can be imported, or nothing can load it under the
            running backend either.
        RuntimeError: The process failed.
        TimeoutError: The process took longer than the timeout.
    """
    modules = modules_of(model)
    folder = path.parent
    source, result = folder / "source.keras", folder / "written.json"
    report("saving the model")
    _save(model, source)
    work = {
        "model": str(source),
        "result": str(result),
        "options": {**vars(replace(options, path=path)), "path": str(path)},
        "samples": str(samples.folder) if samples else None,
        "modules": modules,
        "trial": trial,
        "floatx": keras.config.floatx(),
        "image_data_format": keras.config.image_data_format(),
    }
    request = folder / "request.json"
    request.write_text(json.dumps(work))
    try:
        _run(request, backend, options, report)
    except RuntimeError as error:
        is_running = backend == keras.config.backend()
        if is_running and (folder / UNLOADABLE).exists():
            raise NotLoadableError(str(error)) from error
        raise
    if not result.exists():
        raise RuntimeError(
            f"Writing '{options.path.name}' on the {backend} backend ended "
            "the process before the file was complete."
        )
    return Written(**json.loads(result.read_text()))


def _run(
    request: Path,
    backend: str,
    options: ExportOptions,
    report: Callable[[str], None],
) -> None:
    paths = [os.fspath(x) for x in sys.path if x]
    run_child(
        _START.format(paths=paths, request=str(request)),
        what=f"Writing '{options.path.name}' on the {backend} backend",
        log=request.with_name("child.log"),
        timeout=options.timeout,
        environment=_environment(backend),
        report=lambda stage: report(f"{stage} ({backend})"),
    )


def _save(model: keras.Model, path: Path) -> None:
    """Saves a model; raises a NotLoadableError for one that cannot be."""
    try:
        model.save(path)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NotLoadableError(
            f"'{model.name}' cannot be saved for the process that writes the "
            f"file: {error}"
        ) from error


def modules_of(model: keras.Model) -> list[str]:
    """Returns the modules of the layers' classes, but not Keras's own.

    Raises:
        NotLoadableError: A class is in a script or notebook, which no other
            process can import.
    """
    found: dict[str, keras.Layer] = {}
    for layer in sublayers(model):
        found.setdefault(type(layer).__module__, layer)
    if "__main__" in found:
        layer = found["__main__"]
        raise NotLoadableError(
            f"Layer '{layer.name}' is of {type(layer).__name__}, a class of "
            "this script or notebook. The file is written in a process of its "
            "own, which cannot import it: move the class to a module."
        )
    # The child has these already.
    ours = ("keras.", "keras_cascade.")
    return [name for name in found if not name.startswith(ours)]


def _environment(backend: str) -> dict[str, str]:
    """Selects the backend, and the CPU."""
    # This process may have all memory of the GPU.
    return {
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
    }
