"""Keras tensors that know where the axes of the PyTorch tensor are.

A convolution in Keras puts the channels last, in PyTorch first. Rather than
transposing around each, a value says which axis of its tensor holds which of
PyTorch's; reordering the axes then costs nothing, and a transpose is made only
where a shape changes across axes that are not side by side.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import ops

# A size: a number, or an expression of sizes that stay free (of sympy, in
# which torch.export writes them).
Size = Any
Order = tuple[int, ...]
# A symbolic tensor; the functions of `keras.ops` say that they return others.
Tensor = Any


@dataclass(frozen=True)
class Value:
    """A Keras tensor in place of a PyTorch tensor.

    Attributes:
        tensor: The Keras tensor.
        shape: PyTorch's shape. Where it has the batch's size and the tensor
            has 1, the tensor is the same for each sample.
        order: For each axis of `tensor`, the axis of PyTorch's that it holds.
    """

    tensor: Tensor
    shape: tuple[Size, ...]
    order: Order

    @property
    def rank(self) -> int:
        """Returns the number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> str:
        """Returns the name of the data type."""
        return keras.backend.standardize_dtype(self.tensor.dtype)

    def axis(self, dim: int) -> int:
        """Returns the axis of the tensor that holds an axis of PyTorch's."""
        return self.order.index(dim % self.rank)

    def with_tensor(self, tensor: Tensor) -> "Value":
        """Returns a value of the same axes."""
        return replace(self, tensor=tensor)

    def permuted(self, dims: Sequence[int]) -> "Value":
        """Returns the value with PyTorch's axes in another order."""
        dims = [dim % self.rank for dim in dims]
        return Value(
            self.tensor,
            tuple(self.shape[dim] for dim in dims),
            tuple(dims.index(axis) for axis in self.order),
        )


def plain(rank: int) -> Order:
    """Returns the order of a tensor whose axes are PyTorch's."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Returns the order of a map whose channels, PyTorch's axis 1, are last."""
    return (0, *range(2, rank), 1)


def without(order: Order, dims: Iterable[int]) -> Order:
    """Returns an order after axes of PyTorch's are gone."""
    gone = set(dims)
    left = sorted(set(order) - gone)
    return tuple(left.index(dim) for dim in order if dim not in gone)


def with_axis(order: Order, dim: int) -> Order:
    """Returns an order with a new axis of PyTorch's, beside the one before it.

    An axis that comes first in PyTorch's shape comes first in the tensor.
    """
    moved = [axis + (axis >= dim) for axis in order]
    place = moved.index(dim - 1) + 1 if dim else 0
    return (*moved[:place], dim, *moved[place:])


def is_one(size: Size) -> bool:
    """Returns whether a size is 1."""
    return isinstance(size, int) and size == 1


def tensor_in(value: Value, order: Order) -> Tensor:
    """Returns the tensor with its axes in an order.

    Axes of size 1 move by a reshape, which runtimes do for nothing.
    """
    if value.order == order:
        return value.tensor
    axes = tuple(value.order.index(dim) for dim in order)
    sizes = value.tensor.shape
    long = [axis for axis in axes if sizes[axis] != 1]
    target = [-1 if sizes[axis] is None else sizes[axis] for axis in axes]
    if long == sorted(long) and target.count(-1) < 2:
        return ops.reshape(value.tensor, target)
    return ops.transpose(value.tensor, axes)


def in_order(value: Value, order: Order) -> Value:
    """Returns the value with the axes of its tensor in an order."""
    return replace(value, tensor=tensor_in(value, order), order=order)


def in_plain_order(value: Value) -> Value:
    """Returns the value with PyTorch's axes."""
    return in_order(value, plain(value.rank))
