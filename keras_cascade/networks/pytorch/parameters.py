"""Parameters of a module, and how each becomes a weight of a Keras layer.

A parameter that one kind of call uses, as the weight of a convolution, is that
layer's weight. Any other is bare: a class token, a scale, an embedding that
the output layer uses too. It becomes the weight of an `Embedding`, read row by
row: the one layer of Keras that gives its weight whatever its input is.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np
from keras import layers, ops


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of the module.

    Attributes:
        name: Its name in the module's `state_dict`.
        array: Its value.
        trainable: Whether PyTorch computes its gradient.
    """

    name: str
    array: np.ndarray
    trainable: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns its shape."""
        return self.array.shape


@dataclass(frozen=True)
class Weight:
    """A variable of a layer, and what it holds of the module's parameters.

    Attributes:
        sources: The parameters, or arrays that are none (constants, moments).
            There are several where Keras has one weight for them: the two
            biases of an LSTM.
        find: Returns the variable of the layer, once that is built.
        to_keras: Makes the variable's value of the sources' values.
    """

    sources: "tuple[Parameter | np.ndarray, ...]"
    find: Callable[[], keras.Variable]
    to_keras: Callable[..., np.ndarray]

    def load(self) -> None:
        """Gives the variable its value."""
        arrays = (
            source.array if isinstance(source, Parameter) else source
            for source in self.sources
        )
        # JAX keeps NumPy's memory, which may be the module's own.
        self.find().assign(np.array(self.to_keras(*arrays)))


def table_layer(array: np.ndarray, name: str, trainable: bool) -> keras.Layer:
    """Returns the layer that holds an array in rows."""
    rows, columns = rows_and_columns(array.shape)
    return layers.Embedding(
        rows,
        columns,
        name=name,
        trainable=trainable,
        dtype=None if trainable else "float32",
    )


def read_table(
    layer: keras.Layer, shape: tuple[int, ...], zero: keras.KerasTensor
) -> Any:
    """Returns what a layer of `table_layer` holds, in the array's shape.

    Args:
        layer: The layer.
        shape: The shape of the array.
        zero: One integer that is 0, of shape (1,), which depends on an input
            as everything in a functional model must.
    """
    rows, _ = rows_and_columns(shape)
    index = ops.add(zero, np.arange(rows, dtype="int32")) if rows > 1 else zero
    return ops.reshape(layer(index), shape)


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the sizes of the matrix in which an array is kept."""
    columns = shape[-1] if shape else 1
    return max(prod(shape[:-1]), 1), columns
