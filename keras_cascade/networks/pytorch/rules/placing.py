"""Parts of tensors replaced, and parts that overlap.

Tested by `tests/networks/pytorch/rules/test_placing.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.reshaping import with_part
from keras_cascade.networks.pytorch.values import (
    Value,
    in_plain_order,
    plain,
)


@rule("slice_scatter")
def slice_scatter(
    op: Operation,
    input: Operand,
    src: Operand,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """A range of places along an axis, replaced."""
    if step != 1:
        raise ValueError(
            f"'{op.path}' writes to every {step}th place, which there is no "
            "rule for."
        )
    value, part = _same_for_all(op, input), _same_for_all(op, src)
    return with_part(value, part, dim % value.rank, start or 0)


@rule("select_scatter")
def select_scatter(
    op: Operation, input: Operand, src: Operand, dim: int, index: int
) -> Value:
    """One place along an axis, replaced."""
    value, part = _same_for_all(op, input), op.value(src)
    dim %= value.rank
    shape = (*value.shape[:dim], 1, *value.shape[dim + 1 :])
    row = Value(
        ops.expand_dims(in_plain_order(part).tensor, dim),
        shape,
        plain(value.rank),
    )
    return with_part(value, op.for_each_sample(row), dim, index)


def _same_for_all(op: Operation, operand: Operand) -> Value:
    return op.for_each_sample(op.value(operand))


@rule("copy")
def copy(op: Operation, input: Operand, src: Operand, *_: Any) -> Value:
    """Another tensor, of the shape and type of the first."""
    value = op.elementwise(
        ops.add, op.builder.filled(0, op.shape, op.dtype), src
    )
    return value.with_tensor(ops.cast(value.tensor, op.dtype))


@rule("scatter.src", "scatter.value", "scatter_add")
def scatter(
    op: Operation,
    input: Operand,
    dim: int,
    index: Operand,
    src: Operand = None,
    value: float | None = None,
) -> Value:
    """Elements replaced, or added to, at places along an axis."""
    target = in_plain_order(_same_for_all(op, input))
    places = in_plain_order(op.for_each_sample(op.value(index)))
    dim %= target.rank
    # An axis for all places, before that of the index.
    hits = ops.moveaxis(
        ops.one_hot(places.tensor, target.shape[dim], dtype=op.dtype), -1, dim
    )
    given = 1 if src is None else in_plain_order(op.value(src)).tensor
    if src is not None:
        given = ops.expand_dims(given, dim)
    new = ops.sum(ops.multiply(hits, given), axis=dim + 1)
    if "add" in op.kind:
        return target.with_tensor(ops.add(target.tensor, new))
    is_hit = ops.any(hits, axis=dim + 1)
    new = new if value is None else value
    return target.with_tensor(ops.where(is_hit, new, target.tensor))


@rule("diagonal")
def diagonal(
    op: Operation, input: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Value:
    """The diagonal of two axes, which becomes the last axis."""
    value = in_plain_order(op.value(input))
    tensor = ops.diagonal(value.tensor, offset, dim1, dim2)
    return Value(tensor, op.shape, plain(len(op.shape)))


@rule("unfold")
def unfold(
    op: Operation, input: Operand, dimension: int, size: int, step: int
) -> Value:
    """Windows along an axis; what is in one becomes the last axis."""
    value = in_plain_order(op.value(input))
    dim = dimension % value.rank
    starts = np.arange(op.shape[dim]) * step
    places = starts[:, None] + np.arange(size)
    windows = ops.take(value.tensor, places.astype("int32"), axis=dim)
    tensor = ops.moveaxis(windows, dim + 1, -1)
    return Value(tensor, op.shape, plain(len(op.shape)))


@rule("atleast_1d.Sequence")
def atleast_1d(op: Operation, tensors: Sequence[Operand]) -> tuple[Any, ...]:
    """Tensors, as all have the axis of the batch."""
    return tuple(tensors)


@rule("one_hot")
def one_hot(op: Operation, input: Operand, num_classes: int = -1) -> Value:
    """A row for each number, with 1 at its place."""
    value = op.value(input)
    count = op.shape[-1]
    if not isinstance(count, int):
        raise ValueError(
            f"'{op.path}' counts its classes in the data: num_classes= says "
            "how many there are."
        )
    tensor = ops.cast(ops.one_hot(value.tensor, count), op.dtype)
    return Value(tensor, op.shape, (*value.order, value.rank))
