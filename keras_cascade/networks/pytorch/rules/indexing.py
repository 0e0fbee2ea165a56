"""Parts of tensors.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import (
    Value,
    in_plain_order,
    plain,
    without,
)

# PyTorch writes "to the end" as the largest number there is.
_END = 2**31 - 1


@rule("python.getitem")
def getitem(op: Operation, **arguments: Any) -> Any:
    """One of several results."""
    results, index = arguments["0"], arguments["1"]
    return results[index]


@rule("select.int")
def select(op: Operation, input: Operand, dim: int, index: int) -> Value:
    """One place along an axis, which goes."""
    value = op.value(input)
    dim %= value.rank
    part = [slice(None)] * value.rank
    part[value.axis(dim)] = index  # type: ignore[call-overload]
    tensor = value.tensor[tuple(part)]
    return Value(tensor, op.shape, without(value.order, [dim]))


@rule("slice.Tensor")
def slice_along(
    op: Operation,
    input: Operand,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """A range of places along an axis."""
    value = op.value(input)
    start = start or 0
    size = value.shape[dim % value.rank]
    is_whole = (
        end is None or (isinstance(end, int) and end >= _END) or end == size
    )
    if is_whole and start == 0 and step == 1:
        return value
    return _sliced(
        op, value, dim, start, None if is_whole else end, step, op.shape
    )


def _sliced(
    op: Operation,
    value: Value,
    dim: int,
    start: int,
    end: int | None,
    step: int,
    shape: Any,
) -> Value:
    part = [slice(None)] * value.rank
    part[value.axis(dim)] = slice(start, end, step)
    return Value(value.tensor[tuple(part)], shape, value.order)


@rule("narrow")
def narrow(
    op: Operation, input: Operand, dim: int, start: int, length: int
) -> Value:
    """A range of places along an axis."""
    return _sliced(op, op.value(input), dim, start, start + length, 1, op.shape)


@rule("unbind")
def unbind(op: Operation, input: Operand, dim: int = 0) -> tuple[Value, ...]:
    """Each place along an axis by itself."""
    value = op.value(input)
    dim %= value.rank
    count = value.shape[dim]
    part: list[Any] = [slice(None)] * value.rank
    found = []
    for index in range(count):
        part[value.axis(dim)] = index
        tensor = value.tensor[tuple(part)]
        found.append(
            Value(tensor, op.shape[index], without(value.order, [dim]))
        )
    return tuple(found)


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def split(
    op: Operation, input: Operand, *sizes: Any, dim: int = 0, **_: Any
) -> tuple[Value, ...]:
    """Parts along an axis."""
    value = op.value(input)
    # The axis comes after the sizes, also where it has no name.
    if len(sizes) > 1:
        dim = sizes[1]
    dim %= value.rank
    found, start = [], 0
    for shape in op.shape:
        end = start + shape[dim]
        found.append(_sliced(op, value, dim, start, end, 1, shape))
        start = end
    return tuple(found)


@rule("index", "_unsafe_index")
def index(op: Operation, input: Operand, indices: Sequence[Any]) -> Value:
    """Places by tensors of their numbers."""
    value = op.value(input)
    used = [(dim, x) for dim, x in enumerate(indices) if x is not None]
    if len(used) == 1:
        return _taken(op, value, *used[0])
    if len(used) == 2 and used[0][0] == 0 and used[1][0] == 1:
        rows, columns = used[0][1], used[1][1]
        if _counts_samples(value, rows):
            each = (
                _one_of_each_sample
                if isinstance(columns, Value)
                else _same_of_each_sample
            )
            return each(op, value, columns)
    if all(not isinstance(x, Value) for _, x in used):
        return _constant_places(op, value, used)
    raise ValueError(
        f"'{op.path}' picks elements by several computed indices, which Keras "
        "has no operation for."
    )


def _taken(op: Operation, value: Value, dim: int, places: Any) -> Value:
    rank = len(places.shape)
    axis = value.axis(dim)
    if rank != 1:
        value = in_plain_order(value)
        axis = dim
    taken = ops.take(
        value.tensor,
        in_plain_order(places).tensor
        if isinstance(places, Value)
        else _numbers(op, places),
        axis=axis,
    )
    order = value.order if rank == 1 else plain(len(op.shape))
    return Value(taken, op.shape, order)


def _numbers(op: Operation, places: Any) -> Any:
    array = op.array(places)
    return array.nonzero()[0].astype("int32") if array.dtype == bool else array


def _counts_samples(value: Value, rows: Any) -> bool:
    """Returns whether an index is `arange(batch)`, folded for a batch of 1."""
    return not isinstance(value.shape[0], int) and (
        not isinstance(rows, Value) and rows.numel() == 1
    )


def _one_of_each_sample(op: Operation, value: Value, columns: Any) -> Value:
    value = in_plain_order(value)
    places = op.value(columns).tensor
    shape = [-1, *[1] * (value.rank - 1)]
    taken = ops.take_along_axis(
        value.tensor, ops.reshape(places, shape), axis=1
    )
    return Value(ops.squeeze(taken, 1), op.shape, plain(len(op.shape)))


def _same_of_each_sample(op: Operation, value: Value, columns: Any) -> Value:
    """Picks the same places of each sample, the batch being the first axis."""
    value = in_plain_order(value)
    taken = ops.take(value.tensor, op.array(columns).ravel(), axis=1)
    sizes = [size if isinstance(size, int) else -1 for size in op.shape]
    return Value(ops.reshape(taken, sizes), op.shape, plain(len(sizes)))


def _constant_places(op: Operation, value: Value, used: list[Any]) -> Value:
    """Picks by constants along axes side by side, flattened to one."""
    import numpy as np

    dims = [dim for dim, _ in used]
    if dims != list(range(dims[0], dims[0] + len(dims))):
        raise ValueError(f"'{op.path}' picks along axes that are apart.")
    value = in_plain_order(value)
    sizes = [value.shape[dim] for dim in dims]
    arrays = np.broadcast_arrays(*(op.array(x) for _, x in used))
    flat = np.zeros_like(arrays[0])
    for size, array in zip(sizes, arrays, strict=True):
        flat = flat * size + array % size
    merged = [
        -1 if size is None else size
        for size in (
            *value.tensor.shape[: dims[0]],
            int(np.prod(sizes)),
            *value.tensor.shape[dims[-1] + 1 :],
        )
    ]
    tensor = ops.reshape(value.tensor, merged)
    taken = ops.take(tensor, flat.astype("int32"), axis=dims[0])
    return Value(taken, op.shape, plain(len(op.shape)))


@rule("index_select")
def index_select(
    op: Operation, input: Operand, dim: int, index: Operand
) -> Value:
    """Places along an axis."""
    value = op.value(input)
    return _taken(op, value, dim % value.rank, index)


@rule("gather")
def gather(
    op: Operation, input: Operand, dim: int, index: Operand, **_: Any
) -> Value:
    """For each place of an index, the element there along an axis."""
    value = in_plain_order(op.value(input))
    places = in_plain_order(op.for_each_sample(op.value(index)))
    taken = ops.take_along_axis(
        value.tensor, places.tensor, axis=dim % value.rank
    )
    return Value(taken, op.shape, plain(len(op.shape)))


@rule("roll")
def roll(op: Operation, input: Operand, shifts: Any, dims: Any = ()) -> Value:
    """Places moved round along axes."""
    value = op.value(input)
    tensor = value.tensor
    shifts = [shifts] if isinstance(shifts, int) else shifts
    dims = [dims] if isinstance(dims, int) else dims
    for shift, dim in zip(shifts, dims, strict=True):
        tensor = ops.roll(tensor, shift, axis=value.axis(dim))
    return value.with_tensor(tensor)


@rule("flip")
def flip(op: Operation, input: Operand, dims: Sequence[int]) -> Value:
    """Axes the other way round."""
    value = op.value(input)
    tensor = ops.flip(value.tensor, axis=[value.axis(dim) for dim in dims])
    return value.with_tensor(tensor)


@rule("diff")
def diff(
    op: Operation, input: Operand, n: int = 1, dim: int = -1, *_: Any
) -> Value:
    """Differences of neighbours."""
    value = op.value(input)
    tensor = ops.diff(value.tensor, n=n, axis=value.axis(dim))
    return Value(tensor, op.shape, value.order)


@rule("tril")
def tril(op: Operation, input: Operand, diagonal: int = 0) -> Value:
    """The lower triangle."""
    value = in_plain_order(op.value(input))
    return value.with_tensor(ops.tril(value.tensor, diagonal))


@rule("triu")
def triu(op: Operation, input: Operand, diagonal: int = 0) -> Value:
    """The upper triangle."""
    value = in_plain_order(op.value(input))
    return value.with_tensor(ops.triu(value.tensor, diagonal))
