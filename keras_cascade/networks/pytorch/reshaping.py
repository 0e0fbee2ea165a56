"""Reshapes a value without a transpose where its axes allow it.

A reshape merges and splits runs of axes. Each run can be reshaped by itself,
wherever it lies in the tensor, as long as its axes lie side by side.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from math import prod

from keras import layers, ops

from keras_cascade.networks.pytorch.values import (
    Order,
    Size,
    Tensor,
    Value,
    in_plain_order,
    is_one,
    plain,
    tensor_in,
    with_axis,
)

# PyTorch's axes before and after, which hold the same elements.
_Run = tuple[list[int], list[int]]


def reshaped(value: Value, shape: Sequence[Size], name: str) -> Value:
    """Returns a value of another of PyTorch's shapes.

    Args:
        value: The value.
        shape: The new shape, no size of which is -1.
        name: The name of the operation.

    Raises:
        ValueError: If two sizes of the result are unknown, beside the batch's.
    """
    shape = tuple(shape)
    if shape == value.shape:
        return value
    runs = _runs(value.shape, shape)
    order = _order_after(value, shape, runs)
    if order is None:
        value, order = in_plain_order(value), plain(len(shape))
    sizes = [shape[dim] for dim in order]
    return Value(_reshape(value, sizes, name), shape, order)


def with_part(value: Value, part: Value, dim: int, start: int) -> Value:
    """Returns a value with a range along an axis replaced.

    Args:
        value: The value.
        part: What stands there, with the same axes.
        dim: The axis of PyTorch's.
        start: Where it begins; counted from the end if it is negative.
    """
    size = value.shape[dim]
    start = start % size if start < 0 else start
    end = start + part.shape[dim]
    axis = value.axis(dim)
    before, after = [slice(None)] * value.rank, [slice(None)] * value.rank
    before[axis], after[axis] = slice(0, start), slice(end, None)
    pieces: list[Tensor] = [tensor_in(part, value.order)]
    if start:
        pieces.insert(0, value.tensor[tuple(before)])
    if end < size:
        pieces.append(value.tensor[tuple(after)])
    tensor = pieces[0] if len(pieces) == 1 else ops.concatenate(pieces, axis)
    return value.with_tensor(tensor)


def _reshape(value: Value, sizes: Sequence[Size], name: str):
    known = [size if isinstance(size, int) else -1 for size in sizes]
    if (
        tuple(known)
        == tuple(-1 if size is None else size for size in value.tensor.shape)
        and known.count(-1) < 2
    ):
        return value.tensor
    if known.count(-1) < 2:
        return ops.reshape(value.tensor, known)
    keeps_batch = value.order[0] == 0 and sizes[0] == value.shape[0]
    if keeps_batch and known.count(-1) == 2:
        return layers.Reshape(known[1:])(value.tensor)
    raise ValueError(
        f"'{name}' reshapes {value.shape} to {tuple(sizes)}, of which more "
        "than one size is unknown beside the batch's: give the example with "
        "these sizes, rather than None."
    )


def _runs(before: Sequence[Size], after: Sequence[Size]) -> list[_Run] | None:
    """Returns the runs of axes longer than 1; None if sizes do not tell."""
    old = [i for i, size in enumerate(before) if not is_one(size)]
    new = [i for i, size in enumerate(after) if not is_one(size)]
    runs: list[_Run] = []
    while old or new:
        run: _Run = ([], [])
        while True:
            left = prod(before[i] for i in run[0])
            right = prod(after[i] for i in run[1])
            if run[0] and run[1] and left == right:
                break
            shorter = _is_less(left, right) if run[0] and run[1] else not run[0]
            source, taken = (old, run[0]) if shorter else (new, run[1])
            if not source:
                return None
            taken.append(source.pop(0))
        runs.append(run)
    return runs


def _is_less(left: Size, right: Size) -> bool:
    """Returns whether a product is the smaller, symbols being at least 2."""
    ratio = right / left
    if isinstance(ratio, int | float):
        return ratio > 1
    return bool(ratio.subs(dict.fromkeys(ratio.free_symbols, 10_007)) > 1)


def _order_after(
    value: Value, shape: Sequence[Size], runs: list[_Run] | None
) -> Order | None:
    """Returns the order of the axes after it; None if they must move first."""
    if runs is None:
        return None
    long = [dim for dim in value.order if not is_one(value.shape[dim])]
    found = []
    for old, new in runs:
        place = long.index(old[0])
        if long[place : place + len(old)] != old:
            return None
        found.append((place, new))
    order = tuple(dim for _, new in sorted(found) for dim in new)
    return _with_short_axes(order, len(shape))


def _with_short_axes(order: Order, rank: int) -> Order:
    """Returns an order with the axes of size 1, each after the one before."""
    present = sorted(order)
    order = tuple(present.index(dim) for dim in order)
    for dim in range(rank):
        if dim not in present:
            order = with_axis(order, dim)
    return order
