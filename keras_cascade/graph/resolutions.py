"""Finds the shapes in a program whose images may have any size.

Tested by `tests/graph/test_stages.py`.
"""

from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Source, Step

Shapes = Mapping[Reference, tuple[int | None, ...]]

# The size that stands for any: a power of two, so that strides divide it.
_SIZE = 256


def known_shapes(program: Program, axes: slice) -> Shapes:
    """Returns the shapes of a program's tensors on an image of a known size.

    Args:
        program: The program.
        axes: The axes of the positions. If the first image has open sizes
            there, they are taken to be 256.
    """
    if not any(None in x.shape[axes] for x in program.inputs):
        return program.shapes
    values: dict[Reference, Any] = {
        port.reference: keras.KerasTensor(_filled(port.shape, axes), port.dtype)
        for port in program.inputs
    }
    for step in program.steps:
        found = keras.tree.flatten(_symbolic(step, values))
        values.update(zip(step.outputs, found, strict=True))
    return {reference: tuple(x.shape) for reference, x in values.items()}


def _filled(
    shape: tuple[int | None, ...], axes: slice
) -> tuple[int | None, ...]:
    sizes = list(shape)
    sizes[axes] = [_SIZE if size is None else size for size in sizes[axes]]
    return tuple(sizes)


def _symbolic(step: Step, values: Mapping[Reference, Any]) -> Any:
    """Returns the symbolic outputs of a step, without adding it to a graph."""

    def value(x: Any) -> Any:
        if not isinstance(x, Source):
            return x
        return None if x.reference is None else values.get(x.reference)

    given = step.map_arguments(value)
    # A function of `keras.ops` has no such method.
    call = getattr(step.operation, "compute_output_spec", step.operation)
    return call(*given.args, **given.kwargs)
