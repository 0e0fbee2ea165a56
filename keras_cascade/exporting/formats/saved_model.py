"""Writes a SavedModel, on the TensorFlow backend.

Tested by `tests/exporting/test_every_format.py`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_cascade.graph.program import Program

if TYPE_CHECKING:
    import tensorflow as tf

SIGNATURE = "serving_default"


def write(program: Program, path: Path) -> None:
    """Writes a folder that TensorFlow loads without Keras."""
    import tensorflow as tf

    module: Any = tf.Module()
    # TensorFlow saves the variables that are attributes of the module; those
    # that only the function refers to would be missing in the file.
    module.weights = [
        x.value for layer in program.layers for x in layer.variables
    ]
    module.serve = traced(program)
    signatures = {SIGNATURE: module.serve}
    tf.saved_model.save(module, str(path), signatures=signatures)


@contextmanager
def temporary(program: Program, parent: Path) -> Iterator[Path]:
    """Yields a SavedModel that is deleted afterwards, in a folder `parent`."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        path = Path(folder, "saved_model")
        write(program, path)
        yield path


def traced(program: Program) -> Any:
    """Returns a concrete function with the inputs' names as arguments."""
    import tensorflow as tf

    specs = {
        port.name: tf.TensorSpec(port.shape, port.dtype, name=port.name)
        for port in program.inputs
    }

    # Keyword arguments: their names become those of the signature's inputs.
    def serve(**inputs: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        found = program(*(inputs[port.name] for port in program.inputs))
        # The name of the tensor becomes that of the output in the file.
        return {name: tf.identity(x, name) for name, x in found.items()}

    return tf.function(serve).get_concrete_function(**specs)
