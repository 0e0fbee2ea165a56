"""Maps in another size.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import (
    Value,
    channels_last,
    in_order,
    in_plain_order,
    plain,
)


@rule("upsample_nearest2d", "_upsample_nearest_exact2d")
def nearest(op: Operation, input: Operand, *_: Any, **__: Any) -> Value:
    """The nearest pixel; whole factors repeat it."""
    value = in_order(op.value(input), channels_last(4))
    old, new = value.shape[2:], op.shape[2:]
    if all(isinstance(s, int) for s in (*old, *new)) and all(
        n % o == 0 for o, n in zip(old, new, strict=True)
    ):
        factors = tuple(n // o for o, n in zip(old, new, strict=True))
        layer = layers.UpSampling2D(
            factors, data_format="channels_last", name=op.new_name()
        )
        return Value(layer(value.tensor), op.shape, value.order)
    exact = "exact" in op.kind
    return _resized(op, value, lambda n, o: _nearest_matrix(n, o, exact))


@rule(
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "upsample_bicubic2d",
    "_upsample_bicubic2d_aa",
)
def interpolated(
    op: Operation,
    input: Operand,
    output_size: Any = None,
    align_corners: bool = False,
    *_: Any,
    **__: Any,
) -> Value:
    """Bilinear or bicubic, as a product with a matrix for each axis."""
    value = in_order(op.value(input), channels_last(4))
    antialias = "_aa" in op.kind
    # PIL's and TensorFlow's cubic kernel where there is antialiasing.
    cubic = _cubic(-0.5 if antialias else -0.75), 2.0
    kernel, support = cubic if "bicubic" in op.kind else (_triangle, 1.0)
    return _resized(
        op,
        value,
        lambda n, o: _matrix(n, o, kernel, support, align_corners, antialias),
    )


def _resized(op: Operation, value: Value, matrix: Any) -> Value:
    old, new = value.shape[2:], op.shape[2:]
    if not all(isinstance(size, int) for size in (*old, *new)):
        raise ValueError(
            f"'{op.path}' resizes a map whose size is open: give the example "
            "with its size, rather than None."
        )
    tensor = value.tensor
    for axis, equation in ((0, "ab,nbwc->nawc"), (1, "ab,nhbc->nhac")):
        if old[axis] != new[axis]:
            factor = matrix(new[axis], old[axis]).astype("float32")
            tensor = ops.einsum(
                equation, op.builder.literal(factor, op.path), tensor
            )
    return Value(tensor, op.shape, value.order)


def _nearest_matrix(new: int, old: int, exact: bool) -> np.ndarray:
    """Returns the matrix that picks the nearest pixels, rounded down."""
    places = (np.arange(new) + 0.5 * exact) * old / new
    return np.eye(old)[np.minimum(places.astype(int), old - 1)]


def _matrix(
    new: int,
    old: int,
    kernel: Any,
    support: float,
    align_corners: bool,
    antialias: bool,
) -> np.ndarray:
    """Returns the weights of old pixels for new ones.

    Args:
        new: The number of new pixels.
        old: The number of old pixels.
        kernel: The weight by the distance in pixels.
        support: The distance beyond which it is 0.
        align_corners: Whether corner pixels lie on one another, rather than
            the corners of pixels.
        antialias: Whether the kernel widens where the map shrinks.
    """
    scale = (old - 1) / (new - 1) if align_corners and new > 1 else old / new
    wide = max(scale, 1.0) if antialias else 1.0
    shift = 0.0 if align_corners else 0.5
    centers = (np.arange(new) + shift) * scale - shift
    reach = int(np.ceil(support * wide)) + 1
    weights = np.zeros((new, old))
    for row, center in enumerate(centers):
        if not antialias and support == 1.0:
            center = min(max(center, 0.0), old - 1.0)
        start = int(np.floor(center)) - reach
        for place in range(start, start + 2 * reach + 2):
            weight = kernel(abs(place - center) / wide)
            inside = 0 <= place < old
            if weight and (inside or not antialias):
                weights[row, min(max(place, 0), old - 1)] += weight
    return weights / weights.sum(1, keepdims=True)


def _triangle(distance: float) -> float:
    return max(0.0, 1.0 - distance)


def _cubic(a: float) -> Any:
    def weight(x: float) -> float:
        if x <= 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        if x < 2:
            return ((x - 5) * x + 8) * a * x - 4 * a
        return 0.0

    return weight


@rule("im2col")
def im2col(
    op: Operation,
    input: Operand,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """Windows side by side."""
    value = in_plain_order(op.value(input))
    unfold: Any = ops.unfold  # says that it takes one number for both axes
    result = unfold(
        value.tensor,
        tuple(kernel_size),
        tuple(dilation),
        tuple(padding),
        tuple(stride),
    )
    return Value(result, op.shape, plain(3))


@rule("col2im")
def col2im(
    op: Operation,
    input: Operand,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """Sums of windows that lie side by side, each put back in its place.

    `keras.ops.conv_transpose` fails in functional models (Keras 3.15), which
    pass it the padding as the output's: the windows are spread by hand.
    """
    value = in_plain_order(op.value(input))
    axes = (output_size, kernel_size, dilation, padding, stride)
    windows = [_windows(*axis) for axis in zip(*axes, strict=True)]
    maps = ops.reshape(value.tensor, (-1, prod(kernel_size), *windows))
    spread = _spread(ops.transpose(maps, (0, 2, 3, 1)), windows, stride)
    kernel = _places(kernel_size, dilation)
    edges = [
        # So many rows that the convolution's are those that are asked for.
        (reach - 1 - p, p + size - count * step)
        for reach, p, size, count, step in zip(
            kernel.shape, padding, output_size, windows, stride, strict=False
        )
    ]
    whole: Any = ops.pad(
        spread, [(0, 0), *(_positive(x) for x in edges), (0, 0)]
    )
    rows, columns = (_inside(x) for x in edges)
    kernel = op.builder.literal(kernel, op.path)
    summed = ops.conv(
        whole[:, rows, columns], kernel, data_format="channels_last"
    )
    shape = (-1, op.shape[-3], *output_size)
    return Value(ops.reshape(summed, shape), op.shape, plain(4))


def _windows(
    size: int, kernel: int, dilation: int, padding: int, stride: int
) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _spread(maps: Any, windows: Sequence[int], stride: Sequence[int]) -> Any:
    """Returns maps with zeros after each row and column, a stride apart."""
    (height, width), channels = windows, maps.shape[-1]
    apart = ops.reshape(maps, (-1, height, 1, width, 1, channels))
    down, right = ((0, step - 1) for step in stride)
    nothing = (0, 0)
    padded = ops.pad(apart, [nothing, nothing, down, nothing, right, nothing])
    sizes = [n * step for n, step in zip(windows, stride, strict=True)]
    return ops.reshape(padded, (-1, *sizes, channels))


def _positive(edge: tuple[int, int]) -> tuple[int, int]:
    before, after = edge
    return max(before, 0), max(after, 0)


def _inside(edge: tuple[int, int]) -> slice:
    """Returns the rows that are left where an edge is taken away."""
    before, after = edge
    return slice(max(-before, 0), min(after, 0) or None)


def _places(kernel: Sequence[int], dilation: Sequence[int]) -> np.ndarray:
    """Returns a convolution's kernel that puts each row in its place."""
    rows, columns = kernel
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    places = np.zeros((*reach, rows * columns, 1), "float32")
    for i in range(rows):
        for j in range(columns):
            places[i * dilation[0], j * dilation[1], i * columns + j] = 1
    # A convolution turns no kernel around.
    return places[::-1, ::-1].copy()
