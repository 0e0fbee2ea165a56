"""Tensors in order, and places in an order.

Tested by `tests/networks/pytorch/rules/test_placing.py`.
"""

from typing import Any

from keras import ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import Value, without


@rule("sort")
def sort(
    op: Operation,
    input: Operand,
    dim: int = -1,
    descending: bool = False,
    **_: Any,
) -> tuple[Value, Value]:
    """The elements along an axis in order, and where they were."""
    value = op.value(input)
    places = _places(value, dim, descending)
    tensor = ops.take_along_axis(value.tensor, places, axis=value.axis(dim))
    return value.with_tensor(tensor), value.with_tensor(places)


@rule("argsort")
def argsort(
    op: Operation,
    input: Operand,
    dim: int = -1,
    descending: bool = False,
    **_: Any,
) -> Value:
    """The places of the elements along an axis, in order."""
    value = op.value(input)
    return value.with_tensor(_places(value, dim, descending))


@rule("median.dim")
def median(
    op: Operation, input: Operand, dim: int, keepdim: bool = False
) -> tuple[Value, Value]:
    """The element in the middle, the lower of two, and its place."""
    value = op.value(input)
    axis = value.axis(dim)
    places = _places(value, dim, False)
    middle = ops.take(places, [(value.shape[dim] - 1) // 2], axis=axis)
    found = ops.take_along_axis(value.tensor, middle, axis=axis)
    order = value.order if keepdim else without(value.order, [dim % value.rank])
    pair = [x if keepdim else ops.squeeze(x, axis) for x in (found, middle)]
    return (
        Value(pair[0], op.shape[0], order),
        Value(pair[1], op.shape[1], order),
    )


def _places(value: Value, dim: int, descending: bool) -> Any:
    key = ops.negative(value.tensor) if descending else value.tensor
    return ops.cast(ops.argsort(key, axis=value.axis(dim)), "int32")


@rule("bucketize.Tensor")
def bucketize(
    op: Operation,
    input: Operand,
    boundaries: Operand,
    *,
    right: bool = False,
    **_: Any,
) -> Value:
    """The number of boundaries below each element."""
    value = op.value(input)
    if isinstance(boundaries, Value):
        raise ValueError(f"'{op.path}' has boundaries that are computed.")
    rows = ops.expand_dims(value.tensor, -1)
    compare = ops.greater_equal if right else ops.greater
    below = compare(rows, op.array(boundaries))
    count = ops.sum(ops.cast(below, "int32"), axis=-1)
    return value.with_tensor(count)
