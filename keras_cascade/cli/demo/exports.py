"""Writes a cascade in several formats, runs the files, and compares.

Tested by `tests/cli/demo/test_run.py`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from keras_cascade.cascade.cascade import Cascade
from keras_cascade.cli.demo.strategies import Inputs
from keras_cascade.exporting import export

FILES = {
    "keras": "digits_cascade.keras",
    "saved_model": "digits_cascade_saved_model",
    "tflite": "digits_cascade.tflite",
    "int8": "digits_cascade_int8.tflite",
}


class Check(NamedTuple):
    """The differences of a file's answers from the model's.

    Attributes:
        path: The file or folder.
        size: The size in bytes.
        difference: The largest difference, in standard deviations of the
            model's answers.
        agreement: The share of images whose most likely digit is the same.
    """

    path: Path
    size: int
    difference: float
    agreement: float


def write_files(
    cascade: Cascade,
    inputs: Inputs,
    calibration: Inputs,
    output: Path,
    console: Console,
) -> dict[str, Check]:
    """Writes the cascade in each format, runs the files, compares.

    A file takes its place in the folder `output` once it was found to be
    right. Formats that nothing installed here can write are skipped with one
    message. `inputs` are compared; 8 bits are calibrated on `calibration`.
    """
    int8 = {"quantize": "int8", "calibration_data": calibration}
    checks, left_out = {}, {}
    for name in track(FILES, "exports", console=console):
        path = output / FILES[name]
        try:
            if name == "keras":
                checks[name] = _save(cascade, path, inputs)
            else:
                how = int8 if name == "int8" else {}
                checks[name] = _export(cascade, path, inputs, how)
        except ModuleNotFoundError as error:
            left_out[path.name] = error
    if left_out:
        reason = next(iter(left_out.values()))
        text = f"Left out: {', '.join(left_out)}. {reason}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return checks


def _save(cascade: Cascade, path: Path, inputs: Inputs) -> Check:
    """Saves the cascade itself, which can train on after it is loaded."""
    cascade.save(path)
    loaded: Any = keras.models.load_model(path)
    answers = loaded.predict(inputs, verbose=0)
    expected = cascade.predict(inputs, verbose=0)
    difference = np.abs(answers - expected).max() / expected.std()
    agreement = (answers.argmax(1) == expected.argmax(1)).mean()
    size = path.stat().st_size
    return Check(path, size, float(difference), float(agreement))


def _export(
    cascade: Cascade, path: Path, inputs: Inputs, how: dict[str, Any]
) -> Check:
    report = export(
        cascade,
        path,
        check_data=inputs,
        # The file keeps them in its model card.
        labels=[str(digit) for digit in range(10)],
        verbose=False,
        **how,
    )
    (parity,) = report.parity.values()
    agreement = float(parity.agreement or 0)
    return Check(path, report.size_bytes, parity.maximum, agreement)
