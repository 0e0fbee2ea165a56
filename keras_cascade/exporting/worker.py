"""Loads a model and writes it in a format, as the child of an export.

Tested by `tests/exporting/test_subprocess_export.py`.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import keras

from keras_cascade.exporting import writing
from keras_cascade.exporting.checking import runner
from keras_cascade.exporting.checking.verification import borrowed_operators
from keras_cascade.exporting.inference_program import to_inference_program
from keras_cascade.exporting.options import ExportOptions
from keras_cascade.exporting.processes import STAGE
from keras_cascade.exporting.samples import open_samples
from keras_cascade.exporting.subprocess_export import UNLOADABLE


def main(request_path: str) -> None:
    """Writes the file that a request of `subprocess_export` asks for."""
    work = json.loads(Path(request_path).read_text())
    keras.config.set_floatx(work["floatx"])
    keras.config.set_image_data_format(work["image_data_format"])
    # Importing them registers the user's layers.
    for module in work["modules"]:
        importlib.import_module(module)
    _report("loading the model")
    model = _load(Path(work["model"]))
    options = _options(work["options"])
    _report("folding")
    frozen = to_inference_program(model, options.outputs, options.fold)
    samples = work["samples"] and open_samples(
        Path(work["samples"]), options.batch_size
    )
    _report("writing")
    written = writing.write(model, frozen, options.path, options, samples)
    _try(options, work["trial"])
    Path(work["result"]).write_text(json.dumps(written._asdict()))


def _load(path: Path) -> Any:
    """Loads the model; a file beside it says if that raised an error."""
    loaded = None
    try:
        loaded = keras.saving.load_model(path, compile=False)
    finally:
        # Not written by a process that crashes.
        if loaded is None:
            path.with_name(UNLOADABLE).touch()
    return loaded


def _try(options: ExportOptions, trial: dict[str, Any] | None) -> None:
    """Runs the written file, so that its runtime is seen to take it."""
    used = writing.operators(options.path, options.format) if trial else {}
    if trial and not borrowed_operators(used):
        _report("trying the file")
        runner.answer(trial)


def _options(values: dict[str, Any]) -> ExportOptions:
    # JSON has neither paths nor tuples.
    kinds = {"path": Path, "outputs": tuple, "pixels": tuple}
    changed = {name: kind(values[name]) for name, kind in kinds.items()}
    return ExportOptions(**{**values, **changed})


def _report(stage: str) -> None:
    print(f"{STAGE}{stage}", flush=True)  # noqa: T201
