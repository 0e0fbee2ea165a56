"""Linear layers, products of matrices, and embeddings.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from string import ascii_lowercase
from typing import Any

from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import (
    Value,
    in_order,
    in_plain_order,
    plain,
    tensor_in,
)


def last_in_place(value: Value) -> Value:
    """Returns a value whose last axis is PyTorch's last."""
    last = value.rank - 1
    if value.order[-1] == last:
        return value
    order = (*(axis for axis in value.order if axis != last), last)
    return in_order(value, order)


@rule("linear", weights=("weight", "bias"))
def linear(
    op: Operation, input: Operand, weight: Operand, bias: Operand = None
) -> Value:
    """`x @ weight.T + bias`: a Dense layer."""
    value = op.value(input)
    if not op.makes_layer:
        return _affine(op, value, weight, bias, transposed=True)
    return _dense(op, value, weight, bias, transposed=True)


@rule("addmm", weights=("mat2", "input"))
def addmm(
    op: Operation, input: Operand, mat1: Operand, mat2: Operand, **scales: Any
) -> Value:
    """`mat1 @ mat2 + input`, as GPT-2 has it: a Dense layer."""
    value = op.value(mat1)
    if op.makes_layer and not scales and len(input.shape) == 1:
        return _dense(op, value, mat2, input, transposed=False)
    return _affine(op, value, mat2, input, transposed=False)


@rule("matmul", "mm", "bmm", weights=("other", "mat2"))
def matmul(
    op: Operation,
    input: Operand,
    other: Operand = None,
    mat2: Operand = None,
) -> Value:
    """A product of two tensors; with a parameter, a Dense layer."""
    other = mat2 if other is None else other
    if op.makes_layer and len(other.shape) == 2:
        return _dense(op, op.value(input), other, None, transposed=False)
    left, right = op.value(input), op.value(other)
    if left.rank > 1 and right.rank > 1:
        order = _shared_outer_order(left, right)
        result = ops.matmul(_factor(op, left, order), _factor(op, right, order))
        return Value(result, op.shape, order)
    result = ops.matmul(
        in_plain_order(left).tensor, in_plain_order(right).tensor
    )
    return Value(result, op.shape, plain(len(op.shape)))


def _shared_outer_order(left: Value, right: Value) -> tuple[int, ...]:
    """Returns the order of a product: the axes before the last two as given."""
    longer = left if left.rank >= right.rank else right
    outer = longer.rank - 2
    order = tuple(axis for axis in longer.order if axis < outer)
    return (*order, outer, outer + 1)


def _factor(op: Operation, value: Value, order: tuple[int, ...]) -> Any:
    return op.operand(value, order)


def _dense(
    op: Operation,
    value: Value,
    kernel: Operand,
    bias: Operand,
    transposed: bool,
) -> Value:
    units = kernel.shape[0 if transposed else 1]
    layer = op.layer(
        lambda **names: layers.Dense(units, use_bias=bias is not None, **names),
        {"kernel": kernel, "bias": bias},
        {"kernel": _transpose} if transposed else {},
    )
    value = last_in_place(value)
    return Value(layer(value.tensor), op.shape, value.order)


def _affine(
    op: Operation,
    value: Value,
    kernel: Operand,
    bias: Operand,
    transposed: bool,
) -> Value:
    """Returns the same with a kernel that is computed, or used elsewhere."""
    value = last_in_place(value)
    matrix = op.value(kernel)
    order = (1, 0) if transposed else (0, 1)
    result = ops.matmul(value.tensor, tensor_in(matrix, order))
    if bias is not None:
        result = ops.add(result, op.operand(bias, (0,)))
    return Value(result, op.shape, value.order)


def _transpose(array: Any) -> Any:
    return array.T


@rule("embedding", weights=("weight",))
def embedding(
    op: Operation, weight: Operand, indices: Operand, *_: Any, **__: Any
) -> Value:
    """Rows of a table."""
    if not isinstance(indices, Value):
        return _rows_of_constants(op, weight, indices)
    rank = len(op.shape)
    order = (*indices.order, rank - 1)
    if op.makes_layer:
        layer = op.layer(
            lambda **names: layers.Embedding(*weight.shape, **names),
            {"embeddings": weight},
        )
        return Value(layer(indices.tensor), op.shape, order)
    table = in_plain_order(op.value(weight))
    rows = ops.take(table.tensor, indices.tensor, axis=0)
    return Value(rows, op.shape, order)


def _rows_of_constants(op: Operation, weight: Operand, indices: Any) -> Value:
    """Returns rows that are the same for each sample: positions."""
    table = in_plain_order(op.value(weight))
    rows = ops.take(table.tensor, op.array(indices), axis=0)
    return Value(rows, op.shape, plain(len(op.shape)))


@rule("embedding_bag")
def embedding_bag(
    op: Operation,
    weight: Operand,
    indices: Operand,
    offsets: Operand,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Operand = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Value, ...]:
    """The sum, mean or maximum of the rows of a table, for each sample."""
    count = indices.shape[0] / op.shape[0][0]
    even = isinstance(indices, Value) and not isinstance(offsets, Value)
    plain_sums = per_sample_weights is None and padding_idx in (None, -1)
    if not even or not count.is_Integer or not plain_sums:
        raise ValueError(
            f"'{op.path}' sums bags of different sizes, weighted ones, or "
            "leaves out padding, which there is no rule for."
        )
    rows = ops.reshape(indices.tensor, (-1, int(count)))
    taken = ops.take(op.value(weight).tensor, rows, axis=0)
    merge = (ops.sum, ops.mean, ops.max)[mode]
    found = Value(merge(taken, axis=1), op.shape[0], plain(2))
    return found, found, found, found


@rule("bilinear")
def bilinear(
    op: Operation,
    input1: Operand,
    input2: Operand,
    weight: Operand,
    bias: Operand = None,
) -> Value:
    """For each output, a product of two vectors by a matrix between them."""
    given = [in_plain_order(op.value(x)).tensor for x in (input1, input2)]
    kernel = op.value(weight).tensor
    result = ops.einsum("...i,kij,...j->...k", given[0], kernel, given[1])
    if bias is not None:
        result = ops.add(result, op.operand(bias, (0,)))
    return Value(result, op.shape, plain(len(op.shape)))


@rule("cdist")
def distances(
    op: Operation, x1: Operand, x2: Operand, p: float = 2, *_: Any, **__: Any
) -> Value:
    """The distance of each vector of one from each of the other."""
    left, right = (in_plain_order(op.value(x)).tensor for x in (x1, x2))
    apart = ops.subtract(ops.expand_dims(left, -2), ops.expand_dims(right, -3))
    if p not in (1, 2):
        raise ValueError(
            f"'{op.path}' takes distances of order {p}; 1 and 2 are possible."
        )
    result = (
        ops.sum(ops.abs(apart), axis=-1)
        if p == 1
        else _root(ops.sum(ops.square(apart), axis=-1))
    )
    return Value(result, op.shape, plain(len(op.shape)))


def _root(squares: Any) -> Any:
    """Returns square roots; the gradient at 0 is 0, as in PyTorch."""
    is_zero = ops.equal(squares, 0)
    roots = ops.sqrt(ops.where(is_zero, 1.0, squares))
    return ops.where(is_zero, 0.0, roots)


@rule("einsum")
def einsum(
    op: Operation, equation: str, tensors: list[Operand], **_: Any
) -> Value:
    """A sum of products by an equation."""
    given = [in_plain_order(op.value(x)).tensor for x in tensors]
    result = ops.einsum(_lower(equation), *given)
    return Value(result, op.shape, plain(len(op.shape)))


def _lower(equation: str) -> str:
    """Returns an equation in small letters: Keras reads "J" as a number."""
    used = dict.fromkeys(x for x in equation if x.isalpha())
    letters = dict(zip(used, ascii_lowercase, strict=False))
    return "".join(letters.get(x, x) for x in equation if x != " ")
