"""The base of adapters that multiply features with a kernel.

Tested by `tests/adapters/test_dense.py` and `tests/adapters/test_spatial.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import keras
from keras import ops

from keras_cascade._keras_compat.annotations import Initializer, Shape, Tensor
from keras_cascade.adapters.adapter import Adapter
from keras_cascade.adapters.plain import with_weights

# The constructor's arguments for the weights, and Keras's modules for them.
_RULES: dict[str, Any] = {
    "kernel_initializer": keras.initializers,
    "bias_initializer": keras.initializers,
    "kernel_regularizer": keras.regularizers,
    "bias_regularizer": keras.regularizers,
    "kernel_constraint": keras.constraints,
    "bias_constraint": keras.constraints,
}


class ProjectedAdapter(Adapter):
    """An adapter with a kernel, a bias and an activation.

    A subclass calls `_set_projection` in its constructor and `_add_projection`
    in its `build`.

    Attributes:
        _width_argument: The constructor's argument for the output's width.
        _open_value: Its value that leaves the width to the builder.
    """

    _width_argument: ClassVar[str]
    _open_value: ClassVar[str | None]
    kernel: Any = None
    bias: Any = None

    def _set_projection(self, arguments: Mapping[str, Any]) -> None:
        """Sets the attributes of `keras.layers.Dense` from its arguments."""
        self.activation: Any = keras.activations.get(arguments["activation"])
        self.use_bias = arguments["use_bias"]
        for name in _RULES.keys() & arguments.keys():
            setattr(self, name, _RULES[name].get(arguments[name]))

    @property
    def open_width(self) -> bool:
        """Whether the width is left to the builder."""
        return getattr(self, self._width_argument) == self._open_value

    def with_units(self, width: int) -> Self:
        """Returns a copy whose output has `width` features."""
        if not self.open_width:
            raise ValueError(
                f"Adapter '{self.name}' has {self._width_argument}="
                f"{getattr(self, self._width_argument)!r}, it cannot be given "
                f"{width}. {self._example(self._open_value)} leaves its "
                "width open."
            )
        kind = "a positive int"
        width = self._positive(self._width_argument, width, kind)
        config = {**self.get_config(), self._width_argument: width}
        return type(self).from_config(config)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            self._width_argument: getattr(self, self._width_argument),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self._rule_configs(),
        }

    def _rule_configs(self) -> dict[str, Any]:
        return {
            name: rules.serialize(getattr(self, name))
            for name, rules in _RULES.items()
            if hasattr(self, name)
        }

    def _settled_width(self) -> int:
        """Returns the width; an error where it is open."""
        if self.open_width:
            raise ValueError(
                f"The width of adapter '{self.name}' is open. A cascade "
                "settles it from the downstream's input; elsewhere give it "
                f"one: {self._example(64)}, or `adapter.with_units(64)`."
            )
        return getattr(self, self._width_argument)

    def _example(self, width: object) -> str:
        return f"{type(self).__name__}({self._width_argument}={width!r})"

    def _add_projection(self, features: int | None, width: int) -> None:
        self.kernel = self._add_like("kernel", "kernel", (features, width))
        if self.use_bias:
            self.bias = self._add_like("bias", "bias", (width,))

    def _add_like(
        self, like: str, name: str, shape: Shape, **other: Initializer
    ) -> Any:
        """Adds a weight by the rules of the kernel or the bias."""
        kinds = ("initializer", "regularizer", "constraint")
        rules = {x: getattr(self, f"{like}_{x}", None) for x in kinds}
        return self.add_weight(name=name, shape=shape, **{**rules, **other})

    def _project(self, x: Tensor) -> Any:
        """Multiplies the last axis with the kernel and adds the bias."""
        # Not a `Dense` inside: its name would be in the paths of the weights.
        product = ops.matmul(x, self.kernel)
        return product if self.bias is None else ops.add(product, self.bias)

    def _plain_dense(
        self, shape: Shape, name: str, weights: Sequence, **arguments: Any
    ) -> keras.layers.Layer:
        """Returns a `Dense` with a kernel, a bias or None, and our rules."""
        layer = keras.layers.Dense(
            weights[0].shape[1],
            use_bias=self.use_bias,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=name,
            **self._rule_configs(),
            **arguments,
        )
        return with_weights(layer, shape, weights)
