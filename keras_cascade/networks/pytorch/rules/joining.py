"""Tensors side by side, and padding.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.padding import pad_map
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import Value, tensor_in, with_axis


@rule("cat", "concat", "concatenate")
def concatenate(
    op: Operation, tensors: Sequence[Operand], dim: int = 0
) -> Value:
    """Tensors side by side along an axis."""
    # PyTorch takes an empty tensor of one axis as nothing.
    values = [
        _of_each_sample(op, op.value(x), dim)
        for x in tensors
        if tuple(x.shape) != (0,)
    ]
    order = op.common_order(values)
    axis = order.index(dim % len(order))
    parts = [tensor_in(value, order) for value in values]
    if len(parts) == 1:
        return Value(parts[0], op.shape, order)
    layer = layers.Concatenate(axis=axis, name=op.new_name())
    return Value(layer(parts), op.shape, order)


def _of_each_sample(op: Operation, value: Value, dim: int) -> Value:
    """Returns a part with the batch's size, also one made of constants.

    Constants are computed for one sample. All axes but that along which they
    are joined have the sizes of the result.
    """
    shape = list(op.shape)
    shape[dim] = value.shape[dim]
    return op.for_each_sample(replace(value, shape=tuple(shape)))


@rule("stack")
def stack(op: Operation, tensors: Sequence[Operand], dim: int = 0) -> Value:
    """Tensors side by side along a new axis."""
    dim %= len(op.shape)
    shape = (*op.shape[:dim], *op.shape[dim + 1 :])
    values = [
        op.for_each_sample(replace(op.value(x), shape=shape)) for x in tensors
    ]
    inner = max(values, key=lambda x: x.rank).order
    order = with_axis(inner, dim)
    parts = [tensor_in(value, inner) for value in values]
    result = ops.stack(parts, axis=order.index(dim))
    return Value(result, op.shape, order)


@rule(
    "pad",
    "constant_pad_nd",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def pad(
    op: Operation,
    input: Operand,
    pad: Sequence[int] = (),
    mode: str = "constant",
    value: float | None = None,
    padding: Sequence[int] = (),
) -> Value:
    """Rows added; a negative number takes them away."""
    source = op.value(input)
    widths = list(pad or padding)
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)][::-1]
    kind = op.kind.split(".")[1]
    if kind.startswith(("reflection", "replication")):
        mode = "reflect" if kind.startswith("reflection") else "replicate"
    first = source.rank - len(pairs)
    if any(p < 0 for pair in pairs for p in pair):
        source = _cropped(op, source, pairs, first)
        pairs = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if not any(p for pair in pairs for p in pair):
        return Value(source.tensor, op.shape, source.order)
    if mode in _PLACES:
        return _repeated(op, source, pairs, first, _PLACES[mode])
    result = pad_map(op, source, pairs, value or 0.0, mode)
    return Value(result.tensor, op.shape, result.order)


# For a place beyond the edge, and a size, the place that stands there.
_PLACES = {
    "replicate": lambda place, size: place.clip(0, size - 1),
    "circular": lambda place, size: place % size,
}


def _repeated(
    op: Operation, value: Value, pairs: Any, first: int, place: Any
) -> Value:
    """Pads with places of the tensor itself."""
    tensor = value.tensor
    for dim, (before, after) in enumerate(pairs, first):
        size = value.shape[dim]
        if (before or after) and not isinstance(size, int):
            raise ValueError(
                f"'{op.path}' repeats what lies at an edge, along an axis of "
                "unknown size: give the example with this size."
            )
        if before or after:
            places = place(np.arange(-before, size + after), size)
            tensor = ops.take(tensor, places, axis=value.axis(dim))
    return Value(tensor, op.shape, value.order)


def _cropped(op: Operation, value: Value, pairs: Any, first: int) -> Value:
    part: list[Any] = [slice(None)] * value.rank
    shape = list(value.shape)
    for i, (before, after) in enumerate(pairs):
        start, end = max(-before, 0), min(after, 0) or None
        part[value.axis(first + i)] = slice(start, end)
        shape[first + i] += min(before, 0) + min(after, 0)
    return Value(value.tensor[tuple(part)], tuple(shape), value.order)
