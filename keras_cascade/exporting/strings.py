"""Checks that a file can hold what a model does with strings.

Strings, and the tables in which layers look up words and numbers, are
TensorFlow's on every backend of Keras.
"""

import keras

from keras_cascade.graph.program import Program

_FORMATS = ("saved_model", "tflite", "keras")
_LAYERS = (
    keras.layers.HashedCrossing,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)


def check_strings(program: Program, format: str, checked: bool) -> None:
    """Raises a ValueError for strings and lookups that nothing can compute.

    Args:
        program: The program that is written.
        format: The format of the file.
        checked: Whether the model has to answer as well.
    """
    inputs = [x.name for x in program.inputs if x.dtype == "string"]
    layers = [x for x in program.steps if isinstance(x.operation, _LAYERS)]
    who = [f"input '{name}'" for name in inputs] + [x.label for x in layers]
    if who and format not in _FORMATS:
        raise ValueError(
            f"A file of format '{format}' has neither strings nor tables of "
            f"words, which {who[0]} needs. Write a SavedModel or a '.keras' "
            "file, or look up the words before the cascade."
        )
    if inputs and checked and keras.config.backend() != "tensorflow":
        raise ValueError(
            f"check_data: input '{inputs[0]}' takes strings, and the model "
            "answers to them on the TensorFlow backend alone. Without "
            "check_data the file is written here too."
        )
