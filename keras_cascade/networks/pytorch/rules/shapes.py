"""Axes: reshapes, permutations, and new, removed and repeated ones.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.reshaping import reshaped
from keras_cascade.networks.pytorch.values import (
    Value,
    in_plain_order,
    is_one,
    plain,
    with_axis,
    without,
)


@rule(
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "reshape_as",
    "_unsafe_view",
    "view_as",
)
def reshape(op: Operation, input: Operand, *_: Any, **__: Any) -> Value:
    """Another shape of the same elements."""
    value = op.for_each_sample(op.value(input))
    return reshaped(value, op.shape, op.path)


@rule("permute")
def permute(op: Operation, input: Operand, dims: Sequence[int]) -> Value:
    """Axes in another order, which costs nothing."""
    return op.value(input).permuted(dims)


@rule("transpose", "swapaxes", "swapdims")
def transpose(
    op: Operation, input: Operand, *given: int, **named: int
) -> Value:
    """Two axes exchanged, which costs nothing."""
    first, second = (*given, *named.values())
    value = op.value(input)
    dims = list(range(value.rank))
    dims[first], dims[second] = dims[second], dims[first]
    return value.permuted(dims)


@rule("t", "numpy_T", "mT", "adjoint")
def transpose_matrix(op: Operation, input: Operand) -> Value:
    """The last two axes exchanged."""
    value = op.value(input)
    if value.rank < 2:
        return value
    dims = [*range(value.rank - 2), value.rank - 1, value.rank - 2]
    return value.permuted(dims)


@rule("movedim")
def movedim(
    op: Operation, input: Operand, source: Any, destination: Any
) -> Value:
    """Axes moved elsewhere."""
    value = op.value(input)
    sources = [source] if isinstance(source, int) else list(source)
    targets = (
        [destination] if isinstance(destination, int) else list(destination)
    )
    sources = [dim % value.rank for dim in sources]
    targets = [dim % value.rank for dim in targets]
    rest = [dim for dim in range(value.rank) if dim not in sources]
    for target, dim in sorted(zip(targets, sources, strict=True)):
        rest.insert(target, dim)
    return value.permuted(rest)


@rule("unsqueeze")
def unsqueeze(op: Operation, input: Operand, dim: int) -> Value:
    """A new axis of size 1."""
    value = op.value(input)
    dim %= value.rank + 1
    order = with_axis(value.order, dim)
    tensor = ops.expand_dims(value.tensor, order.index(dim))
    return Value(tensor, op.shape, order)


@rule("squeeze")
def squeeze(op: Operation, input: Operand, dim: Any = None) -> Value:
    """Without axes of size 1."""
    value = op.value(input)
    dims = (
        range(value.rank)
        if dim is None
        else [dim]
        if isinstance(dim, int)
        else dim
    )
    gone = [d % value.rank for d in dims if is_one(value.shape[d])]
    if not gone:
        return value
    axes = [value.axis(d) for d in gone]
    tensor = ops.squeeze(value.tensor, axis=axes)
    return Value(tensor, op.shape, without(value.order, gone))


@rule("expand", "expand_as", "broadcast_to")
def expand(op: Operation, input: Operand, *_: Any, **__: Any) -> Value:
    """Axes of size 1 repeated.

    Those of the batch's size stay 1, as what has them is the same for each
    sample, and broadcasts.
    """
    value = op.value(input)
    missing = len(op.shape) - value.rank
    if missing:
        order = (*range(missing), *(axis + missing for axis in value.order))
        tensor = value.tensor
        for axis in range(missing):
            tensor = ops.expand_dims(tensor, axis)
        value = Value(tensor, (1,) * missing + value.shape, order)
    sizes = []
    for axis, dim in enumerate(value.order):
        have = value.tensor.shape[axis]
        want = op.shape[dim]
        grows = have == 1 and isinstance(want, int)
        sizes.append(want if grows else have)
    if tuple(sizes) == tuple(value.tensor.shape):
        return Value(value.tensor, op.shape, value.order)
    repeats = [
        want if have == 1 and want is not None else 1
        for have, want in zip(value.tensor.shape, sizes, strict=True)
    ]
    tensor = ops.tile(value.tensor, repeats)
    return Value(tensor, op.shape, value.order)


@rule("repeat", "tile")
def repeat(op: Operation, input: Operand, *repeats: Any, **named: Any) -> Value:
    """Copies side by side."""
    counts = list(next(iter((*repeats, *named.values()))))
    value = op.value(input)
    missing = len(counts) - value.rank
    value = in_plain_order(value)
    tensor = value.tensor
    for axis in range(missing):
        tensor = ops.expand_dims(tensor, axis)
    batch = [i for i, count in enumerate(counts) if not isinstance(count, int)]
    known = [1 if i in batch else count for i, count in enumerate(counts)]
    if any(count > 1 for count in known):
        tensor = ops.tile(tensor, known)
    return Value(tensor, op.shape, plain(len(op.shape)))


@rule("repeat_interleave.self_int")
def repeat_interleave(
    op: Operation,
    input: Operand,
    repeats: int,
    dim: int | None = None,
    **_: Any,
) -> Value:
    """Each element several times along an axis."""
    value = op.value(input)
    if dim is None:
        raise ValueError(f"'{op.path}' repeats elements without an axis.")
    tensor = ops.repeat(value.tensor, repeats, axis=value.axis(dim))
    return Value(tensor, op.shape, value.order)


@rule("pixel_shuffle")
def pixel_shuffle(op: Operation, input: Operand, upscale_factor: int) -> Value:
    """Channels to places: r * r channels become r by r."""
    return _shuffle(op, input, upscale_factor, up=True)


@rule("pixel_unshuffle")
def pixel_unshuffle(
    op: Operation, input: Operand, downscale_factor: int
) -> Value:
    """Places to channels: r by r become r * r channels."""
    return _shuffle(op, input, downscale_factor, up=False)


def _shuffle(op: Operation, input: Operand, r: int, up: bool) -> Value:
    value = op.value(input)
    batch, channels, height, width = value.shape
    if up:
        split = (batch, channels // (r * r), r, r, height, width)
        dims = (0, 1, 4, 2, 5, 3)
    else:
        split = (batch, channels, height // r, r, width // r, r)
        dims = (0, 1, 3, 5, 2, 4)
    return reshaped(
        reshaped(value, split, op.path).permuted(dims), op.shape, op.path
    )


@rule("channel_shuffle")
def channel_shuffle(op: Operation, input: Operand, groups: int) -> Value:
    """Channels of groups in turn."""
    value = op.value(input)
    batch, channels, *rest = value.shape
    split = (batch, groups, channels // groups, *rest)
    dims = (0, 2, 1, *range(3, len(split)))
    return reshaped(
        reshaped(value, split, op.path).permuted(dims), op.shape, op.path
    )
