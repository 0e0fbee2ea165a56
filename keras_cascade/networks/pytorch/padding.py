"""Pads maps, as PyTorch's convolutions and pools do on both sides.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence

from keras import ops

from keras_cascade.networks.pytorch.operation import Operation
from keras_cascade.networks.pytorch.values import Size, Value


def same_fits(
    sizes: Sequence[Size],
    kernels: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
) -> bool:
    """Returns whether "same" pads as PyTorch does.

    "same" gives as many windows as there are strides in the map, and puts the
    odd row at the end; PyTorch pads both sides alike.

    Args:
        sizes: The map's sizes, without channels.
        kernels: The kernel's sizes, dilation included.
        strides: The strides.
        padding: PyTorch's padding, for each side.
    """
    return all(
        _same_fits(*axis)
        for axis in zip(sizes, kernels, strides, padding, strict=True)
    )


def _same_fits(size: Size, kernel: int, stride: int, padding: int) -> bool:
    if stride == 1:
        return 2 * padding == kernel - 1
    if not isinstance(size, int):
        return False
    windows = -(-size // stride)
    return 2 * padding == max((windows - 1) * stride + kernel - size, 0)


def pad_map(
    op: Operation,
    value: Value,
    padding: Sequence[tuple[int, int]],
    fill: float,
    mode: str = "constant",
) -> Value:
    """Returns a map with rows added.

    Args:
        op: The operation that needs it.
        value: The map, in any order of axes.
        padding: Rows before and after, for each of PyTorch's last axes.
        fill: What they hold.
        mode: "constant", "reflect" or "symmetric".
    """
    first = value.rank - len(padding)
    by_dim = {first + i: pair for i, pair in enumerate(padding)}
    widths = [by_dim.get(dim, (0, 0)) for dim in value.order]
    fills = {"constant_values": fill} if mode == "constant" else {}
    tensor = ops.pad(value.tensor, widths, mode=mode, **fills)
    shape = tuple(
        size + sum(by_dim.get(dim, (0, 0)))
        for dim, size in enumerate(value.shape)
    )
    return Value(tensor, shape, value.order)
