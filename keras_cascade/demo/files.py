"""Writes a cascade in several formats, runs the files, and compares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

import keras_cascade as kc
from keras_cascade.demo.ways import predictions

FILES = {
    "keras": "digits_cascade.keras",
    "saved_model": "digits_cascade_saved_model",
    "tflite": "digits_cascade.tflite",
    "int8": "digits_cascade_int8.tflite",
}

Inputs = dict[str, np.ndarray]


class Check(NamedTuple):
    """How far the answers of a file are from those of the model.

    Attributes:
        path: the file or folder.
        size: in bytes.
        difference: the largest one, in deviations of the model's answers.
        agreement: share of images whose most likely digit is the same.
    """

    path: Path
    size: int
    difference: float
    agreement: float


def write_files(
    cascade: kc.Cascade,
    inputs: Inputs,
    calibration: Inputs,
    output: Path,
    console: Console,
) -> dict[str, Check]:
    """Writes the cascade in each format, runs the files, compares.

    A file takes its place in `output` once it was found to be right. What
    nothing installed here can write is skipped, saying so.

    Args:
        cascade: what is written.
        inputs: what the files are compared on.
        calibration: what 8 bits are calibrated on.
        output: the folder.
        console: where progress is shown.
    """
    checks = {}
    for name in track(FILES, "exports", console=console):
        path = output / FILES[name]
        try:
            checks[name] = _WRITERS[name](cascade, path, inputs, calibration)
        except ModuleNotFoundError as error:
            console.print(str(error), markup=False, soft_wrap=True)
    return checks


def _keras(
    cascade: kc.Cascade, path: Path, inputs: Inputs, calibration: Inputs
) -> Check:
    """The cascade itself, which trains on where it is loaded."""
    cascade.save(path)
    answers = predictions(keras.models.load_model(path), inputs)
    expected = predictions(cascade, inputs)
    difference = np.abs(answers - expected).max() / expected.std()
    agreement = (answers.argmax(1) == expected.argmax(1)).mean()
    size = path.stat().st_size
    return Check(path, size, float(difference), float(agreement))


def _float32(
    cascade: kc.Cascade, path: Path, inputs: Inputs, calibration: Inputs
) -> Check:
    return _export(cascade, path, inputs)


def _int8(
    cascade: kc.Cascade, path: Path, inputs: Inputs, calibration: Inputs
) -> Check:
    return _export(
        cascade, path, inputs, quantize="int8", calibration_data=calibration
    )


def _export(
    cascade: kc.Cascade, path: Path, inputs: Inputs, **how: Any
) -> Check:
    report = kc.export(
        cascade,
        path,
        check_data=inputs,
        labels=[str(digit) for digit in range(10)],
        verbose=False,
        **how,
    )
    (parity,) = report.parity.values()
    agreement = float(parity.agreement or 0)
    return Check(path, report.size_bytes, parity.maximum, agreement)


_WRITERS: dict[str, Callable[..., Check]] = {
    "keras": _keras,
    "saved_model": _float32,
    "tflite": _float32,
    "int8": _int8,
}
