"""What a child process does: loads a model, and writes it in a format."""

import importlib
import json
from pathlib import Path
from typing import Any

import keras

from keras_cascade.exporting.freezing import freeze
from keras_cascade.exporting.processes import STAGE
from keras_cascade.exporting.request import Request
from keras_cascade.exporting.samples import open_samples
from keras_cascade.exporting.writing import write


def main(request_path: str) -> None:
    """Does what a request file says, and writes what came of it.

    Args:
        request_path: The JSON that `rehosting` wrote.
    """
    work = json.loads(Path(request_path).read_text())
    keras.config.set_floatx(work["floatx"])
    keras.config.set_image_data_format(work["image_data_format"])
    for module in work["modules"]:
        importlib.import_module(module)
    _say("loading the model")
    model: Any = keras.saving.load_model(work["model"], compile=False)
    request = _request(work["request"])
    _say("folding")
    frozen = freeze(model, list(request.outputs), request.fold)
    samples = work["samples"] and open_samples(Path(work["samples"]))
    _say("writing")
    written = write(model, frozen, request.path, request, samples)
    Path(work["result"]).write_text(json.dumps(written._asdict()))


def _request(values: dict[str, Any]) -> Request:
    values = {**values, "path": Path(values["path"])}
    return Request(**{**values, "outputs": tuple(values["outputs"])})


def _say(stage: str) -> None:
    print(f"{STAGE}{stage}", flush=True)  # noqa: T201
