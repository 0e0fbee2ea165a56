"""Writes a SavedModel, on the TensorFlow backend.

Tested by `tests/exporting/test_every_format.py`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_cascade.exporting.port_names import as_identifiers
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
    module.tables = _lookup_tables(program)
    module.serve = traced(program)
    signatures = {SIGNATURE: module.serve}
    tf.saved_model.save(module, str(path), signatures=signatures)
    _restore_names(path / "saved_model.pb", _identifiers(program))


def _lookup_tables(program: Program) -> list[Any]:
    """Returns the tables of layers such as `StringLookup`, each once."""
    import tensorflow as tf
    from tensorflow.saved_model.experimental import TrackableResource

    found = {
        id(x): x
        for step in program.steps
        if isinstance(step.operation, keras.Layer)
        for x in tf.train.TrackableView(step.operation).descendants()
        if isinstance(x, TrackableResource)
    }
    return list(found.values())


@contextmanager
def temporary(program: Program, parent: Path) -> Iterator[Path]:
    """Yields a SavedModel that is deleted afterwards, in a folder `parent`."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        path = Path(folder, "saved_model")
        write(program, path)
        yield path


def traced(program: Program) -> Any:
    """Returns a concrete function with the inputs as arguments.

    They have the names of the inputs as far as these are identifiers.
    """
    import tensorflow as tf

    own, of_outputs = _identifiers(program), as_identifiers(program.outputs)
    specs = {
        own[port.name]: tf.TensorSpec(port.shape, port.dtype, own[port.name])
        for port in program.inputs
    }

    # Keyword arguments: their names become those of the signature's inputs.
    def serve(**inputs: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        found = program(*(inputs[own[port.name]] for port in program.inputs))
        # The name of the tensor becomes that of the output in the file.
        return {k: tf.identity(x, of_outputs[k]) for k, x in found.items()}

    return tf.function(serve).get_concrete_function(**specs)


def _identifiers(program: Program) -> dict[str, str]:
    return as_identifiers(port.name for port in program.inputs)


def _restore_names(path: Path, identifiers: dict[str, str]) -> None:
    """Gives the inputs in a written file the names that they had.

    The names of a function's arguments are identifiers, those of a signature's
    inputs any text.
    """
    names = {own: name for name, own in identifiers.items() if name != own}
    if not names:
        return
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString(path.read_bytes())
    (graph,) = saved.meta_graphs
    # Servers and converters read the signature, and Python the functions.
    inputs = graph.signature_def[SIGNATURE].inputs
    for own in names.keys() & inputs.keys():
        inputs[names[own]].CopyFrom(inputs[own])
        del inputs[own]
    for node in graph.object_graph_def.nodes:
        if node.WhichOneof("kind") == "bare_concrete_function":
            keywords = node.bare_concrete_function.argument_keywords
            keywords[:] = [names.get(own, own) for own in keywords]
    path.write_bytes(saved.SerializeToString())
    # It has the hash of the file as TensorFlow wrote it.
    path.with_name("fingerprint.pb").unlink(missing_ok=True)
