"""Pooling, with channels last.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.padding import pad_map, same_fits
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.rules.convolutions import each
from keras_cascade.networks.pytorch.values import Value, channels_last, in_order

_MAX = {1: layers.MaxPooling1D, 2: layers.MaxPooling2D, 3: layers.MaxPooling3D}
_AVERAGE = {
    1: layers.AveragePooling1D,
    2: layers.AveragePooling2D,
    3: layers.AveragePooling3D,
}
_ADAPTIVE_AVERAGE = {
    1: layers.AdaptiveAveragePooling1D,
    2: layers.AdaptiveAveragePooling2D,
    3: layers.AdaptiveAveragePooling3D,
}
_ADAPTIVE_MAX = {
    1: layers.AdaptiveMaxPooling1D,
    2: layers.AdaptiveMaxPooling2D,
    3: layers.AdaptiveMaxPooling3D,
}
_GLOBAL = {
    1: layers.GlobalAveragePooling1D,
    2: layers.GlobalAveragePooling2D,
    3: layers.GlobalAveragePooling3D,
}
# No float that a network computes is below it, and half precision has it.
_LOWEST = -65504.0


@rule("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    op: Operation,
    input: Operand,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Value:
    """Largest values of windows."""
    value, rank = _map(op, input)
    if any(d > 1 for d in each(dilation, rank)):
        raise ValueError(
            f"'{op.path}' pools with dilation, which Keras has not."
        )
    kernel = each(kernel_size, rank)
    stride = each(stride, rank) if stride else kernel
    pairs = _pairs(op, value, kernel, stride, each(padding, rank))
    mode = "valid"
    if (
        same_fits(value.shape[2:], kernel, stride, each(padding, rank))
        and not ceil_mode
    ):
        mode = "same" if any(each(padding, rank)) else "valid"
    elif any(p for pair in pairs for p in pair):
        value = pad_map(op, value, pairs, _LOWEST)
    return _pooled(op, value, _MAX[rank], kernel, stride, mode)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pool(
    op: Operation,
    input: Operand,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """Means of windows, which count the rows that pad the map if asked."""
    value, rank = _map(op, input)
    kernel = each(kernel_size, rank)
    stride = each(stride, rank) if stride else kernel
    padding = each(padding, rank)
    pairs = _pairs(op, value, kernel, stride, padding)
    counts = _counts(value, kernel, stride, padding, pairs, count_include_pad)
    if any(p for pair in pairs for p in pair):
        value = pad_map(op, value, pairs, 0.0)
    result = _pooled(op, value, _AVERAGE[rank], kernel, stride, "valid")
    size = int(np.prod(kernel))
    if divisor_override is not None:
        counts = np.asarray(divisor_override, "float32")
    if counts is None or (counts == size).all():
        return result
    factor = (size / counts).astype("float32")
    tensor = ops.multiply(result.tensor, factor)
    return result.with_tensor(tensor)


def _counts(
    value: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    include: bool,
) -> np.ndarray | None:
    """Returns the number of elements in each window; None if all are full."""
    over = [after > p for (_, after), p in zip(pairs, padding, strict=True)]
    if not any(over) and (include or not any(padding)):
        return None
    counts: Any = np.ones((1,), "float32")
    for axis, size in enumerate(value.shape[2:]):
        if not isinstance(size, int):
            raise ValueError(
                "A mean over windows that reach over the edge needs the map's "
                "size: give the example with it, rather than None."
            )
        before, after = pairs[axis]
        inside = np.ones(size)
        edge = 1.0 if include else 0.0
        line = np.concatenate(
            [
                np.full(before, edge),
                inside,
                np.full(min(after, padding[axis]), edge),
                np.zeros(max(after - padding[axis], 0)),
            ]
        )
        starts = range(0, len(line) - kernel[axis] + 1, stride[axis])
        along = np.array([line[s : s + kernel[axis]].sum() for s in starts])
        counts = counts[..., None] * along
    return counts.reshape(1, *counts.shape[1:], 1).astype("float32")


def _map(op: Operation, input: Operand) -> tuple[Value, int]:
    value = op.value(input)
    return in_order(value, channels_last(value.rank)), value.rank - 2


def _pairs(
    op: Operation,
    value: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> list[tuple[int, int]]:
    """Returns the rows before and after, so that PyTorch's windows fit."""
    found = []
    for axis, p in enumerate(padding):
        size, windows = value.shape[2 + axis], op.shape[2 + axis]
        after = p
        if isinstance(size, int) and isinstance(windows, int):
            reach = (windows - 1) * stride[axis] + kernel[axis]
            after = max(reach - size - p, p) if reach > size + 2 * p else p
        found.append((p, after))
    return found


def _pooled(
    op: Operation, value: Value, layer: Any, kernel: Any, stride: Any, mode: str
) -> Value:
    rank = len(kernel)
    pooled = layer(
        pool_size=kernel if rank > 1 else kernel[0],
        strides=stride if rank > 1 else stride[0],
        padding=mode,
        data_format="channels_last",
        name=op.new_name(),
    )(value.tensor)
    return Value(pooled, op.shape, value.order)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_average_pool(
    op: Operation, input: Operand, output_size: Any
) -> Value:
    """Means of windows, as many as asked."""
    value, rank = _map(op, input)
    wanted = op.shape[2:]
    if value.shape[2:] == wanted:
        return value
    if all(size == 1 for size in wanted):
        layer = _GLOBAL[rank](
            keepdims=True, data_format="channels_last", name=op.new_name()
        )
        return Value(layer(value.tensor), op.shape, value.order)
    return _adaptive(op, value, _AVERAGE, _ADAPTIVE_AVERAGE)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(op: Operation, input: Operand, output_size: Any) -> Any:
    """Largest values of windows, as many as asked."""
    value, _ = _map(op, input)
    if isinstance(op.shape[0], tuple):
        op.shape = op.shape[0]
        return _adaptive(op, value, _MAX, _ADAPTIVE_MAX), None
    return _adaptive(op, value, _MAX, _ADAPTIVE_MAX)


def _adaptive(op: Operation, value: Value, fixed: Any, adaptive: Any) -> Value:
    """Pools by windows of one size where they are, which every runtime has."""
    sizes, wanted = value.shape[2:], op.shape[2:]
    rank = len(sizes)
    even = all(
        isinstance(s, int) and isinstance(w, int) and s % w == 0
        for s, w in zip(sizes, wanted, strict=True)
    )
    if even:
        kernel = tuple(s // w for s, w in zip(sizes, wanted, strict=True))
        return _pooled(op, value, fixed[rank], kernel, kernel, "valid")
    layer = adaptive[rank](
        wanted if rank > 1 else wanted[0],
        data_format="channels_last",
        name=op.new_name(),
    )
    return Value(layer(value.tensor), op.shape, value.order)
