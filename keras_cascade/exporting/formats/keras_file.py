"""Writes the plain model as a `.keras` file, on any backend.

Tested by `tests/exporting/test_exporter.py`.
"""

from collections.abc import Sequence
from pathlib import Path

import keras

from keras_cascade._cascade_view import is_cascade
from keras_cascade.graph.flattening import as_program


def write(model: keras.Model, path: Path, outputs: Sequence[str]) -> None:
    """Writes a file with some outputs that loads without this package."""
    plain = model.to_plain() if is_cascade(model) else model
    _with_outputs(plain, outputs).save(path)


def _with_outputs(model: keras.Model, outputs: Sequence[str]) -> keras.Model:
    """Returns the model with some outputs, still in a dict if it has one."""
    names = list(as_program(model).outputs)
    if not outputs or set(names) == set(outputs):
        return model
    tensors = zip(names, keras.tree.flatten(model.output), strict=True)
    kept = {name: tensor for name, tensor in tensors if name in outputs}
    given = kept if isinstance(model.output, dict) else list(kept.values())
    return keras.Model(model.input, given, name=model.name)
