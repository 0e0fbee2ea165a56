"""An operation of a module's graph, as the rules see it.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade.networks.pytorch.builder import Builder
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.values import (
    Order,
    Value,
    is_one,
    plain,
    tensor_in,
)

Operand = Any  # Value, Parameter, torch.Tensor, or a number


@dataclass
class Operation:
    """One operation.

    Attributes:
        builder: What is built so far.
        path: The module in which it stands, and its kind: `layer1.0.add`.
        kind: The operation: `aten.add.Tensor`.
        shape: PyTorch's shape of its result; a tuple of shapes for several.
        dtype: The name of the result's data type.
        key: Its settings, by which two calls of one layer are told.
        makes_layer: Whether its parameters are weights of one layer.
    """

    builder: Builder
    path: str
    kind: str
    shape: Any
    dtype: str
    key: Hashable
    makes_layer: bool

    def new_name(self) -> str:
        """Returns a name for a layer or an operation that stands for it."""
        return self.builder.names.new(self.path)

    def value(self, operand: Operand) -> Value:
        """Returns an operand as a value.

        Parameters are read from their own layer, large constants also; a
        small one is refused, as Keras has no tensor for it.
        """
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, Parameter):
            return self.builder.parameter(operand)
        return self.builder.constant(operand, self.path)

    def array(self, operand: Operand) -> np.ndarray:
        """Returns a constant as an array of a data type that Keras knows."""
        return self.builder.as_array(operand)

    def operand(self, operand: Operand, order: Order) -> Any:
        """Returns an operand of an elementwise operation, ready to broadcast.

        Args:
            operand: A value, a parameter, a constant or a number.
            order: The order of the result's axes.
        """
        if isinstance(operand, bool | int | float):
            return operand
        if not isinstance(operand, Value | Parameter):
            array = self.array(operand)
            if array.size <= self.builder.largest_literal:
                array = array.reshape(
                    [1] * (len(order) - array.ndim) + list(array.shape)
                )
                return array.transpose(order) if array.ndim else array
        value = self.value(operand)
        missing = len(order) - value.rank
        if missing and (
            order != plain(len(order)) or value.order != plain(value.rank)
        ):
            value = _with_leading_axes(value, missing)
        elif missing:
            return value.tensor
        return tensor_in(value, order)

    def elementwise(
        self, function: Callable[..., Any], *operands: Operand
    ) -> Value:
        """Returns a function of operands, element by element.

        The axes lie as they do in the largest operand.
        """
        order = self.common_order(operands)
        tensors = [self.operand(x, order) for x in operands]
        return Value(function(*tensors), self.shape, order)

    def common_order(self, operands: Sequence[Operand]) -> Order:
        """Returns the order of axes in which operands meet."""
        values = [x for x in operands if isinstance(x, Value)]
        rank = len(self.shape)
        full = [x for x in values if x.rank == rank]
        if not full:
            return plain(rank)
        return max(
            full, key=lambda x: sum(not is_one(s) for s in x.shape)
        ).order

    def for_each_sample(self, value: Value) -> Value:
        """Returns a value whose tensor has the batch's size where it should.

        What is the same for each sample, such as a class token, has 1.
        """
        return self.builder.for_each_sample(value)

    def layer(
        self,
        make: Callable[..., keras.Layer],
        weights: Mapping[str, Operand],
        conversions: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {},
    ) -> keras.Layer:
        """Returns the layer with some weights: the same for a second call.

        Args:
            make: Makes it; called with `name` and `trainable`.
            weights: For each of its variables, by attribute, the parameter or
                the array. Those that are None are left out.
            conversions: For variables whose axes are not PyTorch's, what
                makes Keras's array of PyTorch's.
        """
        return self.builder.layer(
            self.kind, self.key, self.path, make, weights, conversions
        )


def _with_leading_axes(value: Value, count: int) -> Value:
    """Returns a value with axes of size 1 before all others."""
    order = tuple(axis + count for axis in value.order)
    sizes = [-1 if size is None else size for size in value.tensor.shape]
    return Value(
        ops.reshape(value.tensor, [1] * count + sizes),
        (1,) * count + value.shape,
        (*range(count), *order),
    )
