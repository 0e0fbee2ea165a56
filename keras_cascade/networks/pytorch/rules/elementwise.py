"""Arithmetic, comparison and logic, element by element.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import Value

_UNARY: dict[str, Callable[..., Any]] = {
    "neg": ops.negative,
    "abs": ops.abs,
    "exp": ops.exp,
    "expm1": ops.expm1,
    "log": ops.log,
    "log1p": ops.log1p,
    "log2": ops.log2,
    "sqrt": ops.sqrt,
    "rsqrt": ops.rsqrt,
    "square": ops.square,
    "reciprocal": ops.reciprocal,
    "sin": ops.sin,
    "cos": ops.cos,
    "tan": ops.tan,
    "sinh": ops.sinh,
    "cosh": ops.cosh,
    "asin": ops.arcsin,
    "acos": ops.arccos,
    "atan": ops.arctan,
    "asinh": ops.arcsinh,
    "acosh": ops.arccosh,
    "atanh": ops.arctanh,
    "exp2": ops.exp2,
    "log10": ops.log10,
    "erfc": lambda x: ops.subtract(1, ops.erf(x)),
    "erf": ops.erf,
    "erfinv": ops.erfinv,
    "floor": ops.floor,
    "ceil": ops.ceil,
    "round": ops.round,
    "sign": ops.sign,
    "trunc": ops.trunc,
    "isposinf": ops.isposinf,
    "isneginf": ops.isneginf,
    "isnan": ops.isnan,
    "isinf": ops.isinf,
    "logical_not": ops.logical_not,
}
_BINARY: dict[str, Callable[..., Any]] = {
    "mul": ops.multiply,
    "maximum": ops.maximum,
    "max.other": ops.maximum,
    "minimum": ops.minimum,
    "min.other": ops.minimum,
    "remainder": ops.mod,
    "fmod": lambda x, y: ops.subtract(
        x, ops.multiply(ops.trunc(ops.divide(x, y)), y)
    ),
    "hypot": ops.hypot,
    "atan2": ops.arctan2,
    "eq": ops.equal,
    "ne": ops.not_equal,
    "ge": ops.greater_equal,
    "gt": ops.greater,
    "le": ops.less_equal,
    "lt": ops.less,
    "logical_and": ops.logical_and,
    "logical_or": ops.logical_or,
    "logical_xor": ops.logical_xor,
    "floor_divide": ops.floor_divide,
}


def _add_unary(name: str, function: Callable[..., Any]) -> None:
    @rule(name)
    def apply(op: Operation, input: Operand) -> Value:
        return op.elementwise(function, op.value(input))


def _add_binary(name: str, function: Callable[..., Any]) -> None:
    @rule(name)
    def apply(op: Operation, input: Operand, other: Operand) -> Value:
        return binary(op, function, input, other)


def binary(
    op: Operation, function: Callable[..., Any], left: Operand, right: Operand
) -> Value:
    """Returns a function of two operands, one of which may be a parameter."""
    left, right = _read(op, left), _read(op, right)
    return op.elementwise(function, left, right)


def _read(op: Operation, operand: Operand) -> Operand:
    return op.value(operand) if isinstance(operand, Parameter) else operand


for _name, _function in _UNARY.items():
    _add_unary(_name, _function)
for _name, _function in _BINARY.items():
    _add_binary(_name, _function)


@rule("add")
def add(
    op: Operation, input: Operand, other: Operand, alpha: float = 1
) -> Value:
    """`input + alpha * other`."""
    return binary(op, _scaled(_sum, alpha), input, other)


def _sum(x: Any, y: Any) -> Any:
    """Returns a sum as NumPy has it.

    Keras 3.15 on TensorFlow takes a second operand of one long axis for a
    bias, and adds it along the last axis or axis 1 of the first (`ops.add`).
    """
    sizes, others = getattr(y, "shape", ()), getattr(x, "shape", ())
    long = [axis for axis, size in enumerate(sizes) if size != 1]
    is_bias = long == [len(sizes) - 1] and (not others or others[-1] != 1)
    if len(long) != 1 or is_bias:
        return ops.add(x, y)
    return ops.subtract(x, ops.negative(y))


@rule("sub")
def subtract(
    op: Operation, input: Operand, other: Operand, alpha: float = 1
) -> Value:
    """`input - alpha * other`."""
    return binary(op, _scaled(ops.subtract, alpha), input, other)


@rule("rsub")
def subtract_from(
    op: Operation, input: Operand, other: Operand, alpha: float = 1
) -> Value:
    """`other - alpha * input`."""
    return binary(op, _scaled(ops.subtract, alpha), other, input)


def _scaled(function: Callable[..., Any], alpha: float) -> Callable[..., Any]:
    if alpha == 1:
        return function
    return lambda x, y: function(x, ops.multiply(y, alpha))


@rule("div")
def divide(
    op: Operation,
    input: Operand,
    other: Operand,
    rounding_mode: str | None = None,
) -> Value:
    """A quotient, rounded if asked."""
    if rounding_mode is None:
        return binary(op, ops.divide, input, other)
    if rounding_mode == "floor":
        return binary(op, ops.floor_divide, input, other)
    return binary(op, lambda x, y: ops.trunc(ops.divide(x, y)), input, other)


@rule("pow")
def power(op: Operation, input: Operand, exponent: Operand) -> Value:
    """A power; small whole ones by multiplication."""
    if exponent == 2 and isinstance(exponent, int | float):
        return op.elementwise(ops.square, op.value(input))
    if exponent == 0.5 and isinstance(exponent, float):
        return op.elementwise(ops.sqrt, op.value(input))
    return binary(op, ops.power, input, exponent)


@rule("bitwise_not")
def negation(op: Operation, input: Operand) -> Value:
    """The opposite, of truth values or bits."""
    function = ops.logical_not if op.dtype == "bool" else ops.bitwise_not
    return op.elementwise(function, op.value(input))


@rule("__and__", "bitwise_and")
def conjunction(op: Operation, input: Operand, other: Operand) -> Value:
    """Both, of truth values or bits."""
    function = ops.logical_and if op.dtype == "bool" else ops.bitwise_and
    return binary(op, function, input, other)


@rule("__or__", "bitwise_or")
def disjunction(op: Operation, input: Operand, other: Operand) -> Value:
    """Either, of truth values or bits."""
    function = ops.logical_or if op.dtype == "bool" else ops.bitwise_or
    return binary(op, function, input, other)


@rule("clamp")
def clamp(
    op: Operation, input: Operand, min: Operand = None, max: Operand = None
) -> Value:
    """Cuts off below and above."""

    def apply(x: Any) -> Any:
        x = x if min is None else ops.maximum(x, min)
        return x if max is None else ops.minimum(x, max)

    return op.elementwise(apply, op.value(input))


@rule("clamp_min")
def clamp_min(op: Operation, input: Operand, min: Operand) -> Value:
    """Cuts off below."""
    return binary(op, ops.maximum, input, min)


@rule("clamp_max")
def clamp_max(op: Operation, input: Operand, max: Operand) -> Value:
    """Cuts off above."""
    return binary(op, ops.minimum, input, max)


@rule("where")
def where(
    op: Operation, condition: Operand, input: Operand, other: Operand
) -> Value:
    """One of two, by a condition."""
    return op.elementwise(
        ops.where, _read(op, condition), _read(op, input), _read(op, other)
    )


@rule("masked_fill")
def masked_fill(
    op: Operation, input: Operand, mask: Operand, value: Operand
) -> Value:
    """A value where a mask is set."""
    return op.elementwise(
        ops.where,
        mask,
        value if not hasattr(value, "item") else value.item(),
        _read(op, input),
    )


@rule("addcmul")
def addcmul(
    op: Operation,
    input: Operand,
    tensor1: Operand,
    tensor2: Operand,
    value: float = 1,
) -> Value:
    """`input + value * tensor1 * tensor2`."""

    def apply(x: Any, y: Any, z: Any) -> Any:
        product = ops.multiply(y, z)
        return ops.add(
            x, product if value == 1 else ops.multiply(product, value)
        )

    return op.elementwise(
        apply, *(_read(op, x) for x in (input, tensor1, tensor2))
    )


@rule("lerp")
def lerp(op: Operation, input: Operand, end: Operand, weight: Operand) -> Value:
    """A point between two."""
    return op.elementwise(
        lambda x, y, w: ops.add(x, ops.multiply(w, ops.subtract(y, x))),
        *(_read(op, x) for x in (input, end, weight)),
    )


@rule("to", "_to_copy", "type_as", "to.other")
def cast(op: Operation, input: Operand, *_: Any, **__: Any) -> Value:
    """Another data type; on other devices nothing changes."""
    value = op.value(input)
    if value.dtype == op.dtype:
        return value
    return value.with_tensor(ops.cast(value.tensor, op.dtype))


@rule("contiguous", "clone", "alias", "detach", "lift_fresh_copy", "positive")
def identity(op: Operation, input: Operand, *_: Any, **__: Any) -> Value:
    """The same."""
    return op.value(input)


@rule("fill", "zero")
def full(op: Operation, input: Operand, *args: Any, **given: Any) -> Value:
    """One number everywhere."""
    number = next(
        (given[k] for k in ("fill_value", "value") if k in given),
        args[0] if args else 0,
    )
    return _filled(op, input, number)


def _filled(op: Operation, input: Operand, number: Any) -> Value:
    if hasattr(number, "item"):
        number = number.item()
    return op.builder.filled(number, op.shape, op.dtype)
