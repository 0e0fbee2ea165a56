"""The base of adapters that resize positions and project channels.

Tested by `tests/adapters/test_spatial.py` and `tests/adapters/test_tokens.py`.
"""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_cascade._keras_compat.annotations import Shape, Tensor
from keras_cascade.adapters.adapter import layer_arguments
from keras_cascade.adapters.plain import Layers, with_weights
from keras_cascade.adapters.pooling import channel_axis
from keras_cascade.adapters.projection import ProjectedAdapter
from keras_cascade.adapters.resampling import (
    INTERPOLATIONS,
    Resampling,
    resampled_shape,
    resizing_model,
)

Pair = tuple[int | None, int | None]


class ResizingAdapter(ProjectedAdapter):
    """An adapter that resamples axes, projects each position, and activates.

    A subclass passes the `locals()` of its constructor: the names of the
    arguments are the same in all.
    """

    _width_argument = "channels"
    _open_value = "auto"

    def __init__(self, arguments: Mapping[str, Any]):
        super().__init__(**layer_arguments(arguments))
        self._set_projection(arguments)
        self.channels = arguments["channels"]
        if self.channels not in (None, "auto"):
            kind = "a positive int, 'auto'"
            self.channels = self._positive("channels", self.channels, kind)
        self.interpolation = self._one_of(
            "interpolation", arguments["interpolation"], INTERPOLATIONS
        )
        self.antialias = bool(arguments["antialias"])
        self.data_format = self._format(arguments["data_format"])
        self.supports_masking = True
        self._projects_first = False

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "interpolation": self.interpolation,
            "antialias": self.antialias,
            "data_format": self.data_format,
        }

    def _resampling(self, axis: int, size: int | None) -> Resampling:
        return Resampling(axis, size, self.interpolation, self.antialias)

    def _map_steps(self, size: Pair) -> list[Resampling]:
        first = 2 if self.data_format == "channels_first" else 1
        return [self._resampling(first + i, n) for i, n in enumerate(size)]

    def _build_stages(self, shape: Shape, steps: list[Resampling]) -> None:
        """Adds the projection's weights, and chooses the order of the stages.

        The weights of a resampling add up to one, so it commutes with a
        projection and its bias. A resampling that makes more positions comes
        last: it then works on the narrower map.
        """
        resized = resampled_shape(shape, steps)
        counts = [shape[step.axis] for step in steps]
        sizes = [resized[step.axis] for step in steps]
        self._projects_first = None in (*counts, *sizes) or math.prod(
            n or 0 for n in sizes
        ) > math.prod(n or 0 for n in counts)
        if self.channels is not None:
            axis = channel_axis(len(shape), self.data_format)
            self._add_projection(shape[axis], self._settled_width())

    def _run_stages(
        self, x: Tensor, steps: list[Resampling], mask: Tensor | None = None
    ) -> Any:
        if self._projects_first:
            x = self._project_channels(x)
        for step in steps:
            x = step(x) if mask is None else step.masked(x, mask)
        if not self._projects_first:
            x = self._project_channels(x)
        return self.activation(x)

    def _project_channels(self, x: Tensor) -> Any:
        if self.kernel is None:
            return x
        rank = len(x.shape)
        if channel_axis(rank, self.data_format) == rank - 1:
            return self._project(x)
        # Not a convolution: TensorFlow's CPU has none for channels that come
        # first.
        last: Any = ops.moveaxis(x, 1, -1)
        return ops.moveaxis(self._project(last), -1, 1)

    def _staged_shape(self, shape: Shape, steps: list[Resampling]) -> Shape:
        shape = resampled_shape(shape, steps)
        if self.channels is None:
            return shape
        axis = channel_axis(len(shape), self.data_format)
        return (*shape[:axis], self._settled_width(), *shape[axis + 1 :])

    def _plain_stages(self, shape: Shape, steps: list[Resampling]) -> Layers:
        """Returns stock layers for `_run_stages` on an input of `shape`."""
        if self._projects_first:
            layers = self._plain_projection(shape)
            projected = self._staged_shape(shape, [])
            layers += self._plain_resampling(projected, steps)
        else:
            layers = self._plain_resampling(shape, steps)
            layers += self._plain_projection(resampled_shape(shape, steps))
        return [*layers, *self._plain_activation()]

    def _plain_resampling(
        self, shape: Shape, steps: list[Resampling]
    ) -> Layers:
        # A step that keeps a known size would be a product with the identity.
        due = [s for s in steps if s.size not in (None, shape[s.axis])]
        if any(shape[step.axis] is None for step in due):
            name = f"{self.name}_resize"
            return [resizing_model(shape, steps, self.data_format, name)]
        layers = []
        for step in due:
            name = f"{self.name}_resize_{step.axis}"
            layers.append(step.layer(shape, name, self.dtype_policy))
            shape = step.sized(shape)
        return layers

    def _plain_projection(self, shape: Shape) -> Layers:
        if self.kernel is None:
            return []
        weights = [self.kernel, self.bias]
        rank = len(shape)
        if channel_axis(rank, self.data_format) == rank - 1:
            return [self._plain_dense(shape, self.name, weights)]
        if self.use_bias and shape[-1] in (None, self.kernel.shape[1]):
            return self._plain_last_channels(shape, weights)
        # `Dense` projects the last axis only.
        layer = keras.layers.EinsumDense(
            "abcd,bz->azcd",
            (self.kernel.shape[1], *shape[2:]),
            bias_axes="z" if self.use_bias else None,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=self.name,
            **self._rule_configs(),
        )
        return [with_weights(layer, shape, weights)]

    def _plain_last_channels(self, shape: Shape, weights: list) -> Layers:
        # Keras 3.15 on TensorFlow adds a bias of the channels to the last
        # axis if that has as many entries (`ops.add`).
        last = (shape[0], *shape[2:], shape[1])
        names = [f"{self.name}_channels_{x}" for x in ("last", "first")]
        dtype = self.dtype_policy
        there = keras.layers.Permute((2, 3, 1), dtype=dtype, name=names[0])
        back = keras.layers.Permute((3, 1, 2), dtype=dtype, name=names[1])
        there.build(shape)
        back.build((*last[:-1], self.kernel.shape[1]))
        return [there, self._plain_dense(last, self.name, weights), back]

    def _plain_activation(self) -> Layers:
        # A layer of its own, as the resampling may come after the projection.
        linear = self.activation is keras.activations.linear
        if linear and self.activity_regularizer is None:
            return []
        layer = keras.layers.Activation(
            self.activation,
            activity_regularizer=self.activity_regularizer,
            dtype=self.dtype_policy,
            name=f"{self.name}_activation",
        )
        return [layer]

    def _pair(self, argument: str, value: object) -> Pair:
        """Returns (height, width), either of which may be None."""
        pair = value if isinstance(value, tuple | list) else (value, value)
        if len(pair) != 2:
            raise ValueError(
                f"Adapter '{self.name}': `{argument}` is (height, width), "
                f"received {value!r}."
            )
        kind = "a positive int, for height and width,"
        height, width = (
            None if n is None else self._positive(argument, n, kind)
            for n in pair
        )
        return height, width

    def _refuse(self, shape: Shape, problem: str) -> ValueError:
        """Returns the error for an input shape that does not fit."""
        return ValueError(
            f"Adapter '{self.name}' ({type(self).__name__}) received an input "
            f"of shape {shape}: {problem}."
        )
