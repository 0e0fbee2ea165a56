"""Runs files as their users do, with nothing of this package or of Keras."""

import subprocess
import sys
from pathlib import Path

import numpy as np

# A plain TensorFlow process, by name through the signature.
SERVE = """
import sys
sys.modules["keras"] = None  # importing it would fail
import numpy as np
import tensorflow as tf

path, given, answers = sys.argv[1:]
serve = tf.saved_model.load(path).signatures["serving_default"]
with np.load(given) as arrays:
    inputs = {name: tf.constant(x) for name, x in arrays.items()}
found = {name: x.numpy() for name, x in serve(**inputs).items()}
single = serve(**{name: x[:1] for name, x in inputs.items()})
for name, x in single.items():
    np.testing.assert_allclose(
        x.numpy(), found[name][:1], rtol=1e-4, atol=1e-5
    )
assert not any(name.startswith("keras_cascade") for name in sys.modules)
np.savez(answers, **found)
"""


def run(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answers of a SavedModel, LiteRT or ONNX file."""
    if path.is_dir():
        return _saved_model(path, inputs)
    return {".tflite": _litert, ".onnx": _onnx}[path.suffix](path, inputs)


def _saved_model(path, inputs):
    given, answers = path.with_name("given.npz"), path.with_name("answers.npz")
    np.savez(given, **inputs)
    command = [sys.executable, "-c", SERVE, str(path), str(given), str(answers)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(answers) as arrays:
        return dict(arrays)


def _litert(path, inputs):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    return runner(**inputs)


def _onnx(path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
