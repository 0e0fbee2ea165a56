"""Holds what is built of a Keras network while a module's graph is read.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade.networks.pytorch.naming import Names, module_of
from keras_cascade.networks.pytorch.parameters import (
    Parameter,
    Weight,
    read_table,
    rows_and_columns,
    table_layer,
)
from keras_cascade.networks.pytorch.values import (
    Size,
    Tensor,
    Value,
    plain,
)


@dataclass
class Builder:
    """The layers and weights so far.

    Attributes:
        inputs: What the module's arguments are, by name, in their order.
        entries: The network's inputs; preprocessing lies between.
        names: The names that are given.
        weights: What each variable gets, when all layers are built.
        ends: The path of the last operation of each module that has several.
        largest_literal: Constants of at most as many elements stand where
            they are used.
        largest_constant: Those of at most as many stand in the network's
            config once, so that nothing can train them; larger ones are
            frozen weights.
    """

    inputs: dict[str, Value] = field(default_factory=dict)
    entries: dict[str, keras.KerasTensor] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    weights: list[Weight] = field(default_factory=list)
    ends: Mapping[str, str] = field(default_factory=dict)
    largest_literal: int = 256
    largest_constant: int = 2**18
    _layers: dict[Hashable, keras.Layer] = field(default_factory=dict)
    _tables: dict[Any, Value] = field(default_factory=dict)
    _seen: dict[int, keras.KerasTensor] = field(default_factory=dict)
    _zero: Tensor = None

    def name_new(self, tensor: keras.KerasTensor, path: str) -> None:
        """Names the operations that made a tensor and have no name yet.

        Functions of `keras.ops` take none, and Keras's numbers could clash
        with names that are given here.

        Args:
            tensor: The tensor.
            path: The path of the operation that gave it; what that took on
                the way is named after its own kind, below this path.
        """
        pending = [tensor]
        while pending:
            tensor = pending.pop()
            if id(tensor) in self._seen:
                continue
            self._seen[id(tensor)] = tensor
            operation, inputs = compat.producer(tensor)
            if not isinstance(operation, keras.Layer):
                operation.name = self.names.new(path)
            kind = type(operation).__name__.lower()
            path = path if pending else f"{path}.{kind}"
            pending.extend(inputs)

    def layer(
        self,
        kind: str,
        key: Hashable,
        path: str,
        make: Callable[..., keras.Layer],
        weights: Mapping[str, Any],
        conversions: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    ) -> keras.Layer:
        """Returns the layer of an operation; see `Operation.layer`."""
        given = {k: w for k, w in weights.items() if w is not None}
        parameters = [w for w in given.values() if isinstance(w, Parameter)]
        found = (kind, key) if parameters else None
        if found in self._layers:
            return self._layers[found]
        layer = make(
            name=self.names.new(self._owner(parameters, path)),
            trainable=not parameters or any(p.trainable for p in parameters),
        )
        for attribute, weight in given.items():
            self._note(layer, attribute, weight, conversions.get(attribute))
        if found:
            self._layers[found] = layer
        return layer

    def _owner(self, parameters: Sequence[Parameter], path: str) -> str:
        """Returns the path of the module that a layer stands for.

        If other operations follow in that module, its name is theirs.
        """
        if not parameters:
            return path
        owner = module_of(parameters[0].name)
        return owner if self.ends.get(owner, path) == path else path

    def _note(
        self,
        layer: keras.Layer,
        attribute: str,
        weight: Any,
        conversion: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        is_parameter = isinstance(weight, Parameter)
        self.weights.append(
            Weight(
                (weight if is_parameter else self.as_array(weight),),
                lambda: getattr(layer, attribute),
                conversion or np.asarray,
            )
        )

    def recurrent(
        self,
        path: str,
        key: Hashable,
        make: Callable[..., keras.Layer],
        kernels: Sequence[tuple[str, Parameter, Callable[..., np.ndarray]]],
        bias: tuple[str, Sequence[Parameter], Callable[..., np.ndarray]] | None,
    ) -> keras.Layer:
        """Returns a recurrent layer, the weights of which lie in its cell.

        Args:
            path: The module's path.
            key: What tells its calls.
            make: Makes the layer; called with `name` and `trainable`.
            kernels: Attribute, parameter, and what makes Keras's of it.
            bias: The same for the one bias that Keras has for PyTorch's two.
        """
        if key in self._layers:
            return self._layers[key]
        sources = [parameter for _, parameter, _ in kernels]
        layer = make(
            name=self.names.new(path),
            trainable=any(parameter.trainable for parameter in sources),
        )
        entries: list[Any] = [(name, (p,), make_) for name, p, make_ in kernels]
        if bias is not None:
            entries.append((bias[0], tuple(bias[1]), bias[2]))
        for name, parameters, convert in entries:
            find = partial(_of_cell, layer, name)
            self.weights.append(Weight(parameters, find, convert))
        self._layers[key] = layer
        return layer

    def parameter(self, parameter: Parameter) -> Value:
        """Returns a parameter as a value, always the same one."""
        if parameter.name not in self._tables:
            self._tables[parameter.name] = self._table(
                parameter.array, parameter.name, parameter
            )
        return self._tables[parameter.name]

    def constant(self, constant: Any, path: str) -> Value:
        """Returns a constant as a value."""
        key = id(constant)
        if key not in self._tables:
            array = self.as_array(constant)
            self._tables[key] = self._constant(array, f"{path}.constant")
            # What has an id must not go while the id is a key.
            self._tables["kept", key] = constant
        return self._tables[key]

    def _constant(self, array: np.ndarray, path: str) -> Value:
        dtype = array.dtype.name
        if array.size > self.largest_constant:
            value = self._table(array.astype("float32"), path)
            if dtype != "float32":
                value = value.with_tensor(ops.cast(value.tensor, dtype))
            return value
        zero = ops.reshape(ops.cast(self.zero(), dtype), [1] * array.ndim)
        join = ops.logical_or if dtype == "bool" else ops.add
        tensor: Any = ops.cast(join(zero, array), dtype)
        self.name_new(tensor, path)
        return Value(tensor, array.shape, plain(array.ndim))

    def _table(
        self, array: np.ndarray, path: str, parameter: Parameter | None = None
    ) -> Value:
        trainable = parameter is not None and parameter.trainable
        layer = table_layer(array, self.names.new(path), trainable)
        tensor = read_table(layer, array.shape, self.zero())
        matrix = rows_and_columns(array.shape)
        self.weights.append(
            Weight(
                (parameter if parameter else array,),
                lambda: layer.embeddings,
                lambda x: np.reshape(x, matrix),
            )
        )
        return Value(tensor, array.shape, plain(array.ndim))

    def repeated(
        self, constant: Any, shape: Sequence[Size], dim: int, path: str
    ) -> Value:
        """Returns a constant, computed for one sample, once for each sample.

        Args:
            constant: The constant.
            shape: Its shape, with the batch's size in an axis.
            dim: That axis, along which samples come one after the other.
            path: The path of what computed it.
        """
        value = self.constant(constant, path)
        sizes = [*value.tensor.shape]
        apart = Value(
            ops.expand_dims(value.tensor, dim),
            (*shape[:dim], shape[dim] / sizes[dim], *sizes[dim:]),
            plain(len(sizes) + 1),
        )
        rows = self.for_each_sample(apart).tensor
        joined = [*sizes[:dim], -1, *sizes[dim + 1 :]]
        return Value(ops.reshape(rows, joined), tuple(shape), value.order)

    def literal(self, array: np.ndarray, path: str) -> Any:
        """Returns an array as it is if it is small, else a frozen weight."""
        if array.size <= self.largest_literal:
            return array
        return self.constant(array, path).tensor

    def filled(self, number: float, shape: Sequence[Size], dtype: str) -> Value:
        """Returns one number everywhere, the same for each sample."""
        sizes = [size if isinstance(size, int) else 1 for size in shape]
        one = ops.add(ops.cast(self.zero(), dtype), number)
        one = ops.cast(one, dtype)
        tensor = ops.broadcast_to(ops.reshape(one, [1] * len(sizes)), sizes)
        return Value(tensor, tuple(shape), plain(len(sizes)))

    def batch_sizes(self) -> set[Any]:
        """Returns the symbols that stand for the batch's size."""
        sizes = (value.shape[0] for value in self.inputs.values())
        symbols = (getattr(size, "free_symbols", set()) for size in sizes)
        return set().union(*symbols)

    def zero(self) -> Tensor:
        """Returns an integer that is 0 whatever the input is, of shape (1,)."""
        if self._zero is None:
            tensor = next(iter(self.entries.values()))
            first = tensor[tuple(slice(0, 1) for _ in tensor.shape)]
            one = ops.reshape(first, (1,))
            self._zero = ops.zeros_like(one, dtype="int32")
            self.name_new(self._zero, "zero")
        return self._zero

    def for_each_sample(self, value: Value) -> Value:
        """Returns a value with the batch's size; see `Operation`."""
        dims = [
            dim
            for dim, size in enumerate(value.shape)
            if not isinstance(size, int)
            and value.tensor.shape[value.axis(dim)] == 1
        ]
        if not dims:
            return value
        source = next(iter(self.inputs.values()))
        rows = source.tensor[
            (slice(None), *(slice(0, 1) for _ in source.order[1:]))
        ]
        shape = [1] * value.rank
        shape[value.axis(dims[0])] = -1
        ones = ops.ones_like(ops.reshape(rows, shape), dtype=value.dtype)
        return value.with_tensor(
            ops.logical_and(value.tensor, ones)
            if value.dtype == "bool"
            else ops.multiply(value.tensor, ones)
        )

    @staticmethod
    def as_array(constant: Any) -> np.ndarray:
        """Returns a constant of PyTorch's as an array, in types that Keras has.

        Keras's integers have 32 bits unless asked, and so have its floats.
        """
        array = np.asarray(
            constant.detach().cpu().numpy()
            if hasattr(constant, "detach")
            else constant
        )
        smaller = {"int64": "int32", "float64": "float32"}.get(array.dtype.name)
        if array.dtype == np.int64:
            limits = np.iinfo(np.int32)
            array = array.clip(limits.min, limits.max)
        return array.astype(smaller) if smaller else array


def _of_cell(layer: Any, name: str) -> keras.Variable:
    return getattr(layer.cell, name)
