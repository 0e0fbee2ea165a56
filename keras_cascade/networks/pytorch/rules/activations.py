"""Activation functions and dropout.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from typing import Any

import keras
from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import Value

_ALIKE = {
    "relu": ops.relu,
    "relu6": ops.relu6,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "silu": ops.silu,
    "selu": ops.selu,
    "mish": lambda x: ops.multiply(x, ops.tanh(ops.softplus(x))),
    "log_sigmoid": ops.log_sigmoid,
    "hardswish": ops.hard_swish,
    "softsign": ops.softsign,
}


def _add(name: str, function: Any) -> None:
    @rule(name)
    def apply(op: Operation, input: Operand) -> Value:
        return op.elementwise(function, op.value(input))


for _name, _function in _ALIKE.items():
    _add(_name, _function)


@rule("gelu")
def gelu(op: Operation, input: Operand, approximate: str = "none") -> Value:
    """GELU, exact unless "tanh" is asked for."""
    exact = approximate == "none"
    return op.elementwise(
        lambda x: ops.gelu(x, approximate=not exact), op.value(input)
    )


@rule("hardsigmoid")
def hardsigmoid(op: Operation, input: Operand) -> Value:
    """`relu6(x + 3) / 6`."""
    return op.elementwise(ops.hard_sigmoid, op.value(input))


@rule("leaky_relu")
def leaky_relu(
    op: Operation, input: Operand, negative_slope: float = 0.01
) -> Value:
    """Leaky ReLU."""
    return op.elementwise(
        lambda x: ops.leaky_relu(x, negative_slope), op.value(input)
    )


@rule("elu")
def elu(
    op: Operation,
    input: Operand,
    alpha: float = 1.0,
    scale: float = 1.0,
    input_scale: float = 1.0,
) -> Value:
    """ELU."""

    def apply(x: Any) -> Any:
        x = x if input_scale == 1 else ops.multiply(x, input_scale)
        y = ops.elu(x, alpha)
        return y if scale == 1 else ops.multiply(y, scale)

    return op.elementwise(apply, op.value(input))


@rule("celu")
def celu(op: Operation, input: Operand, alpha: float = 1.0) -> Value:
    """CELU."""
    return op.elementwise(lambda x: ops.celu(x, alpha), op.value(input))


@rule("softplus")
def softplus(
    op: Operation, input: Operand, beta: float = 1.0, threshold: float = 20.0
) -> Value:
    """Softplus; above the threshold it is the input."""

    def apply(x: Any) -> Any:
        scaled = x if beta == 1 else ops.multiply(x, beta)
        y = ops.softplus(scaled)
        y = y if beta == 1 else ops.divide(y, beta)
        # Above 20 the two are the same in float32 but for 2e-9.
        return (
            y
            if threshold >= 20
            else ops.where(ops.greater(scaled, threshold), x, y)
        )

    return op.elementwise(apply, op.value(input))


@rule("prelu")
def prelu(op: Operation, input: Operand, weight: Operand) -> Value:
    """PReLU, with one slope or one for each channel."""
    value = op.value(input)
    slopes = op.value(weight)
    shape = [1] * value.rank
    if weight.shape != (1,) and value.rank > 1:
        shape[value.axis(1)] = -1
    slope = ops.reshape(slopes.tensor, shape)
    negative = ops.multiply(slope, ops.minimum(value.tensor, 0.0))
    return value.with_tensor(ops.add(ops.relu(value.tensor), negative))


@rule("softmax", "_softmax")
def softmax(
    op: Operation, input: Operand, dim: int, *_: Any, **__: Any
) -> Value:
    """Softmax along an axis."""
    value = op.value(input)
    axis = value.axis(dim)
    return value.with_tensor(ops.softmax(value.tensor, axis=axis))


@rule("log_softmax", "_log_softmax")
def log_softmax(
    op: Operation, input: Operand, dim: int, *_: Any, **__: Any
) -> Value:
    """Logarithm of the softmax along an axis."""
    value = op.value(input)
    axis = value.axis(dim)
    return value.with_tensor(ops.log_softmax(value.tensor, axis=axis))


@rule("glu")
def glu(op: Operation, input: Operand, dim: int = -1) -> Value:
    """One half of the channels, gated by the other."""
    value = op.value(input)
    return Value(
        ops.glu(value.tensor, axis=value.axis(dim)),
        op.shape,
        value.order,
    )


@rule("hardtanh")
def hardtanh(
    op: Operation, input: Operand, min_val: float = -1.0, max_val: float = 1.0
) -> Value:
    """Cuts off below and above; from 0 to 6 it is relu6."""
    if (min_val, max_val) == (0, 6):
        return op.elementwise(ops.relu6, op.value(input))
    return op.elementwise(
        lambda x: ops.clip(x, min_val, max_val), op.value(input)
    )


@rule("softshrink")
def softshrink(op: Operation, input: Operand, lambd: float = 0.5) -> Value:
    """Elements beyond a threshold, less the threshold."""
    return op.elementwise(lambda x: ops.soft_shrink(x, lambd), op.value(input))


@rule("hardshrink")
def hardshrink(op: Operation, input: Operand, lambd: float = 0.5) -> Value:
    """Elements beyond a threshold, else 0."""
    return op.elementwise(lambda x: ops.hard_shrink(x, lambd), op.value(input))


@rule("threshold")
def threshold(
    op: Operation, input: Operand, threshold: float, value: float
) -> Value:
    """Elements above a threshold, else a number."""
    return op.elementwise(
        lambda x: ops.threshold(x, threshold, value), op.value(input)
    )


@rule("rrelu")
def rrelu(
    op: Operation,
    input: Operand,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    *_: Any,
    **__: Any,
) -> Value:
    """Leaky ReLU of the mean slope, which PyTorch draws in training."""
    slope = (lower + upper) / 2
    return op.elementwise(lambda x: ops.leaky_relu(x, slope), op.value(input))


@rule("dropout", "feature_dropout", "alpha_dropout")
def dropout(op: Operation, input: Operand, p: float, train: bool) -> Value:
    """Dropout with its rate, which is active in training as ever."""
    value = op.value(input)
    if not p:
        return value
    kind = op.kind.split(".")[1]
    layer: keras.Layer
    if kind.startswith("feature") and value.rank == 4:
        layer = layers.SpatialDropout2D(p, name=op.new_name())
    elif kind.startswith("alpha"):
        layer = layers.AlphaDropout(p, name=op.new_name())
    else:
        layer = layers.Dropout(p, name=op.new_name())
    return value.with_tensor(layer(value.tensor))
