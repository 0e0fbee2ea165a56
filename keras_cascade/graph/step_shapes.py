"""Tells layers that call a network once per step, and the shapes of steps.

Tested by `tests/graph/test_taps_of_steps.py`.
"""

import keras

Shape = tuple[int | None, ...]


def is_called_per_step(operation: keras.Operation) -> bool:
    """Returns whether an operation calls the layer inside it once per step."""
    kind = type(operation)
    return isinstance(operation, keras.layers.TimeDistributed) and (
        kind.call is keras.layers.TimeDistributed.call
        or hasattr(kind, "weights_kind")  # of this package
    )


def without_steps(shape: Shape) -> Shape:
    """Returns the shape of one step."""
    return (shape[0], *shape[2:])


def of_all_steps(x: keras.KerasTensor, steps: int | None) -> keras.KerasTensor:
    """Returns the symbolic tensor of all steps, of that of one."""
    return keras.KerasTensor((x.shape[0], steps, *x.shape[1:]), x.dtype)
