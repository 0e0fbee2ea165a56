"""Normalization layers.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from typing import Any

from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.rules.dense import last_in_place
from keras_cascade.networks.pytorch.values import (
    Value,
    channels_last,
    in_order,
    in_plain_order,
)


@rule("batch_norm", weights=("weight", "bias"))
def batch_norm(
    op: Operation,
    input: Operand,
    weight: Operand,
    bias: Operand,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
    **__: Any,
) -> Value:
    """BatchNormalization; its momentum is what PyTorch's leaves of 1."""
    value = op.value(input)
    is_layer = op.makes_layer or (weight is None and bias is None)
    if running_mean is None or training or not is_layer:
        return _by_hand(
            op, value, weight, bias, running_mean, running_var, training, eps
        )
    value = (
        in_order(value, channels_last(value.rank)) if value.rank > 2 else value
    )
    layer = op.layer(
        lambda **names: layers.BatchNormalization(
            axis=value.axis(1) if value.axis(1) != value.rank - 1 else -1,
            momentum=1 - momentum,
            epsilon=eps,
            center=bias is not None,
            scale=weight is not None,
            **names,
        ),
        {
            "gamma": weight,
            "beta": bias,
            "moving_mean": running_mean,
            "moving_variance": running_var,
        },
    )
    return Value(layer(value.tensor), op.shape, value.order)


def _by_hand(
    op: Operation,
    value: Value,
    weight: Operand,
    bias: Operand,
    mean: Any,
    variance: Any,
    training: bool,
    eps: float,
) -> Value:
    """Normalizes by operations: a weight, or without running moments."""
    axes = [axis for axis, dim in enumerate(value.order) if dim != 1]
    shape = [1] * value.rank
    shape[value.axis(1)] = -1
    if mean is None or training:
        moments: Any = ops.moments(value.tensor, axes, keepdims=True)
        mean, variance = moments
    else:
        mean = op.array(mean).reshape(shape)
        variance = op.array(variance).reshape(shape)
    result = ops.multiply(
        ops.subtract(value.tensor, mean), ops.rsqrt(ops.add(variance, eps))
    )
    result = _scaled(op, result, shape, weight, bias)
    return value.with_tensor(result)


def _scaled(
    op: Operation,
    tensor: Any,
    shape: Sequence[int],
    weight: Operand,
    bias: Operand,
) -> Any:
    for function, factor in ((ops.multiply, weight), (ops.add, bias)):
        if factor is not None:
            tensor = function(
                tensor, ops.reshape(op.operand(factor, (0,)), shape)
            )
    return tensor


@rule("layer_norm", weights=("weight", "bias"))
def layer_norm(
    op: Operation,
    input: Operand,
    normalized_shape: Sequence[int],
    weight: Operand = None,
    bias: Operand = None,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Value:
    """LayerNormalization over the last axes."""
    value = op.value(input)
    count = len(normalized_shape)
    axes: Any = list(range(-count, 0))
    value = last_in_place(value) if count == 1 else in_plain_order(value)
    if op.makes_layer and weight is not None:
        layer = op.layer(
            lambda **names: layers.LayerNormalization(
                axis=axes if count > 1 else -1,
                epsilon=eps,
                center=bias is not None,
                **names,
            ),
            {"gamma": weight, "beta": bias},
        )
        return Value(layer(value.tensor), op.shape, value.order)
    result = ops.layer_normalization(value.tensor, axis=axes, epsilon=eps)
    result = _scaled(op, result, normalized_shape, weight, bias)
    return value.with_tensor(result)


@rule("rms_norm", weights=("weight",))
def rms_norm(
    op: Operation,
    input: Operand,
    normalized_shape: Sequence[int],
    weight: Operand = None,
    eps: float | None = None,
) -> Value:
    """RMSNormalization over the last axis."""
    value = last_in_place(op.value(input))
    epsilon = 1.1920929e-07 if eps is None else eps
    if op.makes_layer and len(normalized_shape) == 1:
        layer = op.layer(
            lambda **names: layers.RMSNormalization(
                axis=-1, epsilon=epsilon, **names
            ),
            {"scale": weight},
        )
        return Value(layer(value.tensor), op.shape, value.order)
    value = in_plain_order(value)
    axes = list(range(-len(normalized_shape), 0))
    square = ops.mean(ops.square(value.tensor), axis=axes, keepdims=True)
    result = ops.multiply(value.tensor, ops.rsqrt(ops.add(square, epsilon)))
    result = _scaled(op, result, normalized_shape, weight, None)
    return value.with_tensor(result)


@rule("group_norm", weights=("weight", "bias"))
def group_norm(
    op: Operation,
    input: Operand,
    num_groups: int,
    weight: Operand = None,
    bias: Operand = None,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Value:
    """GroupNormalization."""
    value = op.value(input)
    value = in_order(value, channels_last(value.rank))
    is_layer = op.makes_layer or (weight is None and bias is None)
    if not is_layer:
        raise ValueError(
            f"'{op.path}' normalizes groups with weights that are computed, "
            "or used elsewhere too."
        )
    layer = op.layer(
        lambda **names: layers.GroupNormalization(
            groups=num_groups,
            epsilon=eps,
            scale=weight is not None,
            center=bias is not None,
            **names,
        ),
        {"gamma": weight, "beta": bias},
    )
    return Value(layer(value.tensor), op.shape, value.order)


@rule("instance_norm", weights=("weight", "bias"))
def instance_norm(
    op: Operation,
    input: Operand,
    weight: Operand,
    bias: Operand,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    *_: Any,
    **__: Any,
) -> Value:
    """Normalizes each map of each sample: groups of one channel."""
    channels = op.shape[1]
    if not use_input_stats:
        return batch_norm(
            op,
            input,
            weight,
            bias,
            running_mean,
            running_var,
            False,
            momentum,
            eps,
        )
    return group_norm(op, input, channels, weight, bias, eps)


@rule("_weight_norm")
def weight_norm(op: Operation, v: Operand, g: Operand, dim: int = 0) -> Value:
    """A weight of a given length in a direction."""
    direction, length = op.value(v), op.value(g)
    axes = [axis for axis, d in enumerate(direction.order) if d != dim]
    square = ops.sum(ops.square(direction.tensor), axis=axes, keepdims=True)
    unit = ops.multiply(direction.tensor, ops.rsqrt(square))
    scale = ops.reshape(
        length.tensor,
        [-1 if d == dim else 1 for d in direction.order],
    )
    return direction.with_tensor(ops.multiply(unit, scale))
