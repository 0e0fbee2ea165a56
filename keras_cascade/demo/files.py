"""Writes a cascade in several formats, runs the files, and compares."""

import tempfile
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
    "tf_saved_model": "digits_cascade_saved_model",
    "litert": "digits_cascade.tflite",
}
# Largest difference of a file's answers, in standard deviations of the
# cascade's. A .tflite adds in another order.
TOLERANCE = 1e-3
_SKIPPED = (
    "SavedModel and .tflite are skipped: they need the TensorFlow backend. Run "
    'pip install "keras_cascade[tensorflow]" and set KERAS_BACKEND=tensorflow.'
)

Inputs = dict[str, np.ndarray]


class Check(NamedTuple):
    """How far the answers of a file are from those of the model.

    Attributes:
        path: the file or folder.
        difference: the largest one, in standard deviations of the answers.
        agreement: share of images whose most likely digit is the same.
    """

    path: Path
    difference: float
    agreement: float


def write_files(
    cascade: kc.Cascade, inputs: Inputs, output: Path, console: Console
) -> dict[str, Check]:
    """Writes the cascade in each format, runs the files, compares.

    A file takes its place in `output` once it was found to be right.
    """
    formats = list(FILES)
    if keras.config.backend() != "tensorflow":
        formats = ["keras"]
        console.print(_SKIPPED, markup=False, soft_wrap=True)
    expected = predictions(cascade, inputs)
    checks = {}
    with tempfile.TemporaryDirectory(dir=output, prefix=".demo-") as folder:
        for name in track(formats, "exports", console=console):
            staged, path = Path(folder) / FILES[name], output / FILES[name]
            answers = _WRITE_AND_RUN[name](cascade, staged, inputs)
            checks[name] = _compare(path, answers, expected)
            _put(staged, path)
    return checks


def _keras(cascade: kc.Cascade, path: Path, inputs: Inputs) -> np.ndarray:
    cascade.save(path)
    return predictions(keras.models.load_model(path), inputs)


def _saved_model(cascade: kc.Cascade, path: Path, inputs: Inputs) -> np.ndarray:
    import tensorflow as tf

    cascade.export(path, format="tf_saved_model", verbose=False)
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    tensors = {name: tf.constant(x) for name, x in inputs.items()}
    return signature(**tensors)["output_0"].numpy()


def _litert(cascade: kc.Cascade, path: Path, inputs: Inputs) -> np.ndarray:
    import tensorflow as tf

    # Keras asks for TensorFlow's own operators too, which need a larger
    # interpreter.
    builtin = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    cascade.export(path, format="litert", target_spec=builtin, verbose=False)
    run = _interpreter(path).get_signature_runner("serving_default")
    return run(**inputs)["output_0"]


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter  # noqa: N806
    return Interpreter(str(path))


_WRITE_AND_RUN = {
    "keras": _keras,
    "tf_saved_model": _saved_model,
    "litert": _litert,
}


def _compare(path: Path, answers: np.ndarray, expected: np.ndarray) -> Check:
    difference = np.abs(answers - expected).max() / expected.std()
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"{path.name} does not answer as the cascade does: the largest "
            f"difference is {difference:.2g} standard deviations of the "
            f"answers, at most {TOLERANCE:g} is right. It was not kept."
        )
    agreement = (answers.argmax(1) == expected.argmax(1)).mean()
    return Check(path, float(difference), float(agreement))


def _put(staged: Path, path: Path) -> None:
    """Moves a file or folder to its place, over an earlier one."""
    if path.is_dir():  # which, unlike a file, cannot be replaced
        path.rename(staged.with_name("earlier"))
    staged.replace(path)
