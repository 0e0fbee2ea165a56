"""Finds the streams whose size may differ from another's when it runs.

Tested by `tests/behaviour/test_unknown_sizes.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_cascade._keras_compat.annotations import Shape
from keras_cascade.adapters.size_matching import position_axes

Tensors = Mapping[str, keras.KerasTensor]
# Sizes that all usual strides and paddings tell apart.
_PROBES = (128, 203)
# Keras and the backends raise these if shapes do not fit.
_SHAPE_ERRORS = (ValueError, TypeError, RuntimeError)


def find_other_sizes(
    streams: Tensors,
    inputs: Sequence[keras.KerasTensor],
    data_format: str | None,
) -> list[str]:
    """Returns the streams that may have other positions than the first.

    Args:
        streams: Symbolic tensors by name.
        inputs: The inputs that they were computed from. Without these, two
            sizes that are not known may differ.
        data_format: Where maps have their channels.
    """
    shapes = [[tuple(x.shape) for x in streams.values()]]
    if inputs and any(None in shape[1:] for shape in shapes[0]):
        shapes = _probed_shapes(list(streams.values()), inputs) or shapes
    sizes = [[_positions(x, data_format) for x in row] for row in shapes]
    return [
        name
        for i, name in enumerate(streams)
        if i and any(None in row[i] or row[i] != row[0] for row in sizes)
    ]


def has_open_size(x: keras.KerasTensor, data_format: str | None) -> bool:
    """Whether a size of a tensor is not known before it runs."""
    return None in _positions(tuple(x.shape), data_format)


def _positions(shape: Shape, data_format: str | None) -> Shape:
    return tuple(shape[i] for i in position_axes(len(shape), data_format))


def _probed_shapes(
    tensors: Sequence[keras.KerasTensor], inputs: Sequence[keras.KerasTensor]
) -> list[list[tuple]]:
    """Returns the shapes at two sizes of the inputs; none if one fails."""
    function = keras.Function(list(inputs), list(tensors))
    try:
        found: list[Any] = [
            function.compute_output_spec(_sized(inputs, size))
            for size in _PROBES
        ]
    except _SHAPE_ERRORS:
        return []
    return [[tuple(x.shape) for x in specs] for specs in found]


def _sized(
    inputs: Sequence[keras.KerasTensor], size: int
) -> list[keras.KerasTensor]:
    """Returns tensors like inputs, of a size in place of unknown ones.

    Each input has a size of its own: two that the user gives may differ.
    """
    return [
        keras.KerasTensor(
            (x.shape[0], *(n or size + 32 * i for n in x.shape[1:])),
            dtype=x.dtype,
        )
        for i, x in enumerate(inputs)
    ]
