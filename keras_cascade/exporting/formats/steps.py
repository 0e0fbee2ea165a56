"""Has networks that are called once per step called once for all of them.

`TimeDistributed` repeats its network in the file for each step, and loops over
an open number of steps in ways that converters do not write. Layers treat
samples alone in inference mode, so that steps can be samples of a larger batch.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.inference_inside import takes_training
from keras_cascade.graph.program import Program

# Of any other layer it is not known what it computes.
_KNOWN = ("keras.", "keras_cascade.")


def steps_as_samples(program: Program) -> AbstractContextManager[None]:
    """Has the steps of a program's `TimeDistributed` layers run as one batch.

    Within the context; but for layers of the user's own, which may compute
    with all samples of a batch, and for steps with a mask.
    """
    found = {
        id(inner): inner
        for layer in program.layers
        for inner in compat.sublayers(layer)
        if isinstance(inner, keras.layers.TimeDistributed)
        and _treats_samples_alone(inner.layer)
    }
    return compat.with_methods(
        "call", ((x, partial(_all_at_once, x, x.call)) for x in found.values())
    )


def _treats_samples_alone(layer: keras.Layer) -> bool:
    return all(
        type(inner).__module__.startswith(_KNOWN)
        and not isinstance(inner, keras.layers.Lambda)
        and all(x.shape and x.shape[0] is None for x in _tensors(inner))
        for inner in compat.sublayers(layer)
    )


def _tensors(layer: keras.Layer) -> Iterator[keras.KerasTensor]:
    """Yields the symbolic tensors inside a network."""
    if compat.is_functional(layer):
        for operation in layer.operations:
            yield from keras.tree.flatten(operation.output)


def _all_at_once(
    layer: Any,
    original: Any,
    inputs: Any,
    training: bool | None = None,
    mask: Any = None,
) -> Any:
    if mask is not None:
        return original(inputs, training=training, mask=mask)
    shape: Any = ops.shape(inputs)
    batch, steps, *sizes = shape
    call = layer.layer.call
    how = {"training": training} if takes_training(call) else {}
    found = call(ops.reshape(inputs, (-1, *sizes)), **how)

    def apart(x: Any) -> Any:
        inner: Any = ops.shape(x)[1:]  # type: ignore[index]
        first = (-1, steps) if isinstance(steps, int) else (batch, steps)
        return ops.reshape(x, (*first, *inner))

    return keras.tree.map_structure(apart, found)
