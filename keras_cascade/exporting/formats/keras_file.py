"""Writes the plain model as a `.keras` file, on any backend."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_cascade.graph.program import as_program


def write(model: Any, path: Path, outputs: Sequence[str]) -> None:
    """Writes what Keras loads without this package.

    Args:
        model: A cascade, whose `to_plain()` it is, or a stock model.
        path: The file.
        outputs: The names of the outputs that are written; none is all.
    """
    plain = model.to_plain() if hasattr(model, "to_plain") else model
    _with_outputs(plain, outputs).save(path)


def _with_outputs(model: Any, outputs: Sequence[str]) -> keras.Model:
    """The model with some of its outputs, packed as it packs them."""
    names = list(as_program(model).outputs)
    if not outputs or set(names) == set(outputs):
        return model
    tensors = zip(names, keras.tree.flatten(model.output), strict=True)
    kept = {name: tensor for name, tensor in tensors if name in outputs}
    given = kept if isinstance(model.output, dict) else list(kept.values())
    return keras.Model(model.input, given, name=model.name)
