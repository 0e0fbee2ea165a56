"""Writes a SavedModel, on the TensorFlow backend."""

from pathlib import Path
from typing import Any

from keras_cascade.graph.program import Program

SIGNATURE = "serving_default"


def write(program: Program, path: Path) -> None:
    """Writes a folder that TensorFlow loads without Keras.

    Args:
        program: What is written, on TensorFlow's variables.
        path: The folder, which is made.
    """
    import tensorflow as tf

    module: Any = tf.Module()
    module.weights = [
        x.value for layer in program.layers for x in layer.variables
    ]
    module.serve = traced(program)
    signatures = {SIGNATURE: module.serve}
    tf.saved_model.save(module, str(path), signatures=signatures)


def traced(program: Program) -> Any:
    """The program as a function with the inputs' names as arguments."""
    import tensorflow as tf

    specs = {
        port.name: tf.TensorSpec(port.shape, port.dtype, name=port.name)
        for port in program.inputs
    }

    def serve(**inputs: Any) -> dict[str, Any]:
        found = program(*(inputs[port.name] for port in program.inputs))
        return {name: tf.identity(x, name) for name, x in found.items()}

    return tf.function(serve).get_concrete_function(**specs)
