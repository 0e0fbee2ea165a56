"""Convolutions, with channels last whatever the module has.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.padding import pad_map, same_fits
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import (
    Value,
    channels_last,
    in_order,
)

_LAYERS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
_DEPTHWISE = {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}
_TRANSPOSED = {
    1: layers.Conv1DTranspose,
    2: layers.Conv2DTranspose,
    3: layers.Conv3DTranspose,
}


def each(setting: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Returns a setting for each axis of space: PyTorch writes [1] for all."""
    values = (setting,) if isinstance(setting, int) else tuple(setting)
    return values * count if len(values) == 1 else values


@rule("conv1d", "conv2d", "conv3d", weights=("weight", "bias"))
def convolution(
    op: Operation,
    input: Operand,
    weight: Operand,
    bias: Operand = None,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Value:
    """A convolution: a layer, or the function for a computed kernel."""
    rank = len(weight.shape) - 2
    stride, dilation = each(stride, rank), each(dilation, rank)
    value = in_order(op.value(input), channels_last(rank + 2))
    sizes = [
        d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)
    ]
    value, mode = _padded(op, value, padding, sizes, stride)
    settings = {
        "strides": stride,
        "padding": mode,
        "dilation_rate": dilation,
    }
    if op.makes_layer:
        layer = _layer(op, weight, bias, groups, settings)
        tensor = layer(value.tensor)
    else:
        tensor = _function(op, value, weight, bias, groups, settings)
    return Value(tensor, op.shape, channels_last(rank + 2))


def _padded(
    op: Operation,
    value: Value,
    padding: Any,
    sizes: Sequence[int],
    stride: Sequence[int],
) -> tuple[Value, str]:
    """Returns the value with what the layer's own padding cannot do."""
    if padding == "valid":
        return value, "valid"
    if padding == "same":
        # PyTorch's own, which has no strides: the odd one comes last.
        return value, "same"
    padding = each(padding, len(sizes))
    if not any(padding):
        return value, "valid"
    if same_fits(value.shape[2:], sizes, stride, padding):
        return value, "same"
    return pad_map(op, value, [(p, p) for p in padding], 0.0), "valid"


def _layer(
    op: Operation,
    weight: Operand,
    bias: Operand,
    groups: int,
    settings: dict[str, Any],
) -> keras.Layer:
    rank = len(weight.shape) - 2
    kernel = weight.shape[2:]
    shared = {
        "kernel_size": kernel,
        "use_bias": bias is not None,
        "data_format": "channels_last",
    }
    depthwise = _as_depthwise(weight, groups, settings)
    if depthwise:
        multiplier = weight.shape[0] // groups
        make = partial(
            _DEPTHWISE[rank],
            depth_multiplier=multiplier,
            **shared,
            **_for_depthwise(settings, rank),
        )
    else:
        make = partial(
            _LAYERS[rank],
            weight.shape[0],
            groups=groups,
            **shared,
            **settings,
        )
    return op.layer(
        make,
        {"kernel": weight, "bias": bias},
        {"kernel": _of_depthwise(groups) if depthwise else to_last},
    )


def _as_depthwise(
    weight: Operand, groups: int, settings: dict[str, Any]
) -> bool:
    rank = len(weight.shape) - 2
    equal = len(set(settings["strides"])) == 1
    return groups > 1 and weight.shape[1] == 1 and rank in _DEPTHWISE and equal


def _for_depthwise(settings: dict[str, Any], rank: int) -> dict[str, Any]:
    if rank == 1:
        return {
            k: x[0] if isinstance(x, tuple) else x for k, x in settings.items()
        }
    return settings


def to_last(array: np.ndarray) -> np.ndarray:
    """Returns a kernel of Keras's: sizes, inputs, outputs."""
    return array.transpose(*range(2, array.ndim), 1, 0)


def _of_depthwise(groups: int) -> Callable[[np.ndarray], np.ndarray]:
    def convert(array: np.ndarray) -> np.ndarray:
        sizes = array.shape[2:]
        kernel = array.reshape(groups, -1, *sizes)
        return kernel.transpose(*range(2, kernel.ndim), 0, 1)

    return convert


def _function(
    op: Operation,
    value: Value,
    weight: Operand,
    bias: Operand,
    groups: int,
    settings: dict[str, Any],
) -> Any:
    kernel = op.value(weight)
    kernel = in_order(kernel, (*range(2, kernel.rank), 1, 0))
    parts = [
        ops.conv(maps, filters, data_format="channels_last", **settings)
        for maps, filters in zip(
            _in_groups(value.tensor, groups),
            _in_groups(kernel.tensor, groups),
            strict=True,
        )
    ]
    tensor = parts[0] if groups == 1 else ops.concatenate(parts, axis=-1)
    return tensor if bias is None else ops.add(tensor, op.operand(bias, (0,)))


def _in_groups(tensor: Any, groups: int) -> Any:
    return [tensor] if groups == 1 else ops.split(tensor, groups, axis=-1)


@rule(
    "conv_transpose1d",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    weights=("weight", "bias"),
)
def transposed_convolution(
    op: Operation,
    input: Operand,
    weight: Parameter,
    bias: Operand = None,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Value:
    """A transposed convolution: the layer without padding, then cropped."""
    rank = len(weight.shape) - 2
    if (
        groups > 1
        or not op.makes_layer
        or any(d > 1 for d in each(dilation, rank))
    ):
        raise ValueError(
            f"'{op.path}' is a transposed convolution with groups, with "
            "dilation, or whose kernel is computed, which Keras has not."
        )
    stride = each(stride, rank)
    value = in_order(op.value(input), channels_last(rank + 2))
    layer = op.layer(
        lambda **names: _TRANSPOSED[rank](
            weight.shape[1],
            weight.shape[2:],
            strides=stride,
            padding="valid",
            use_bias=bias is not None,
            data_format="channels_last",
            **names,
        ),
        {"kernel": weight, "bias": bias},
        {"kernel": lambda a: a.transpose(*range(2, a.ndim), 1, 0)},
    )
    full = layer(value.tensor)
    crops = list(
        zip(each(padding, rank), each(output_padding, rank), strict=True)
    )
    if not any(p or q for p, q in crops):
        return Value(full, op.shape, channels_last(rank + 2))
    return _cropped(op, full, op.shape[2:], crops)


def _cropped(
    op: Operation, full: Any, sizes: Sequence[Any], crops: Any
) -> Value:
    """Returns the part of a full transposed convolution that PyTorch keeps."""
    index: list[slice] = [slice(None)]
    for axis, (before, extra) in enumerate(crops, start=1):
        size = full.shape[axis]
        end = None if before == extra else extra - before
        if size is not None and extra > before:
            full = ops.pad(
                full,
                [
                    (0, extra - before) if a == axis else (0, 0)
                    for a in range(len(full.shape))
                ],
            )
            end = None
        index.append(slice(before, end))
    result = full[(*index, slice(None))]
    return Value(result, op.shape, channels_last(len(sizes) + 2))
