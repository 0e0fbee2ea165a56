"""Sums, means and the like along axes.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import Value, without


def reduced(
    op: Operation,
    function: Callable[..., Any],
    input: Operand,
    dim: Any,
    keepdim: bool,
    shape: Any = None,
) -> Value:
    """Returns a function of all elements along some axes."""
    value = op.value(input)
    if dim is None or dim == []:
        dims = list(range(value.rank))
    else:
        dims = [dim] if isinstance(dim, int) else list(dim)
    dims = [d % value.rank for d in dims]
    axes = tuple(value.axis(d) for d in dims)
    tensor = function(value.tensor, axis=axes, keepdims=keepdim)
    order = value.order if keepdim else without(value.order, dims)
    return Value(tensor, op.shape if shape is None else shape, order)


_SIMPLE: dict[str, Callable[..., Any]] = {
    "mean": ops.mean,
    "sum": ops.sum,
    "amax": ops.max,
    "amin": ops.min,
    "logsumexp": ops.logsumexp,
    "any": ops.any,
    "all": ops.all,
    "prod": ops.prod,
}


def _add(name: str, function: Callable[..., Any]) -> None:
    @rule(name)
    def apply(
        op: Operation,
        input: Operand,
        dim: Any = None,
        keepdim: bool = False,
        **_: Any,
    ) -> Value:
        return reduced(op, function, input, dim, keepdim)


for _name, _function in _SIMPLE.items():
    _add(_name, _function)


@rule("max.dim", "min.dim")
def extreme(
    op: Operation, input: Operand, dim: int, keepdim: bool = False
) -> tuple[Value, Value]:
    """The extreme along an axis, and its place."""
    largest = "max" in op.kind
    values, places = op.shape
    first = reduced(
        op, ops.max if largest else ops.min, input, dim, keepdim, values
    )
    find = ops.argmax if largest else ops.argmin
    return first, _place(op, find, input, dim, keepdim, places)


@rule("argmax", "argmin")
def place(
    op: Operation, input: Operand, dim: int | None = None, keepdim: bool = False
) -> Value:
    """The place of the extreme along an axis."""
    if dim is None:
        raise ValueError(f"'{op.path}' looks for one place in all samples.")
    find = ops.argmax if "argmax" in op.kind else ops.argmin
    return _place(op, find, input, dim, keepdim, op.shape)


def _place(
    op: Operation,
    find: Any,
    input: Operand,
    dim: int,
    keepdim: bool,
    shape: Any,
) -> Value:
    value = op.value(input)
    tensor = find(value.tensor, axis=value.axis(dim), keepdims=keepdim)
    order = value.order if keepdim else without(value.order, [dim % value.rank])
    return Value(tensor, shape, order)


@rule("var", "std")
def spread(
    op: Operation,
    input: Operand,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    correction: float | None = None,
) -> Value:
    """Variance or standard deviation, unbiased unless said otherwise."""
    return _spread(op, input, dim, unbiased, keepdim, correction, op.shape)


@rule("var_mean", "std_mean")
def spread_and_mean(
    op: Operation,
    input: Operand,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    correction: float | None = None,
) -> tuple[Value, Value]:
    """Variance or standard deviation, and the mean."""
    spread, mean = op.shape
    return (
        _spread(op, input, dim, unbiased, keepdim, correction, spread),
        reduced(op, ops.mean, input, dim, keepdim, mean),
    )


def _spread(
    op: Operation,
    input: Operand,
    dim: Any,
    unbiased: bool | None,
    keepdim: bool,
    correction: float | None,
    shape: Any,
) -> Value:
    value = op.value(input)
    dims = list(range(value.rank)) if dim is None else dim
    dims = [dims] if isinstance(dims, int) else dims
    count = 1
    for d in dims:
        count *= value.shape[d]
    off = 1 if correction is None else correction
    off = off if unbiased is None else int(unbiased)

    def apply(x: Any, axis: Any, keepdims: bool) -> Any:
        y = ops.multiply(
            ops.var(x, axis=axis, keepdims=keepdims), count / (count - off)
        )
        return ops.sqrt(y) if ".std" in op.kind else y

    return reduced(op, apply, input, dims, keepdim, shape)


@rule("norm", "linalg_vector_norm")
def norm(
    op: Operation,
    input: Operand,
    p: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    **named: Any,
) -> Value:
    """The length of vectors."""
    kind = named.get("ord", p)
    kind = 2 if kind is None else kind
    if kind not in (1, 2):
        raise ValueError(
            f"'{op.path}' takes a norm of order {kind}; 1 and 2 are possible."
        )

    def apply(x: Any, axis: Any, keepdims: bool) -> Any:
        if kind == 1:
            return ops.sum(ops.abs(x), axis=axis, keepdims=keepdims)
        return ops.sqrt(ops.sum(ops.square(x), axis=axis, keepdims=keepdims))

    return reduced(op, apply, input, dim, keepdim)


@rule("cumsum", "cumprod")
def accumulated(op: Operation, input: Operand, dim: int, **_: Any) -> Value:
    """Sums or products so far along an axis."""
    value = op.value(input)
    function = ops.cumsum if ".cumsum" in op.kind else ops.cumprod
    tensor = function(value.tensor, axis=value.axis(dim))
    if value.dtype != op.dtype:
        tensor = ops.cast(tensor, op.dtype)
    return value.with_tensor(tensor)


@rule("topk")
def topk(
    op: Operation, input: Operand, k: int, dim: int = -1, *_: Any, **__: Any
) -> tuple[Value, Value]:
    """The largest along the last axis, and their places."""
    value = op.value(input)
    if value.axis(dim) != value.rank - 1:
        raise ValueError(
            f"'{op.path}' sorts along an axis that is not the last."
        )
    found: Any = ops.top_k(value.tensor, k)
    values, places = found
    return (
        Value(values, op.shape[0], value.order),
        Value(places, op.shape[1], value.order),
    )
