"""The base class of adapters, and the checks of their arguments."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, SupportsIndex, TypedDict, TypeVar

import keras

from keras_cascade._keras_compat.annotations import (
    DType,
    Regularizer,
    Shape,
    Tensor,
)
from keras_cascade.adapters.protocol import learn, learning_batches
from keras_cascade.graph.data_formats import FORMATS

_T = TypeVar("_T")


class LayerArguments(TypedDict, total=False):
    """The arguments of every adapter, as `Adapter` has them."""

    trainable: bool
    dtype: DType
    autocast: bool
    activity_regularizer: Regularizer
    name: str | None


def layer_arguments(given: Mapping[str, Any]) -> LayerArguments:
    """Returns the arguments of every adapter from `locals()` of a constructor.

    They stand in each public constructor, for its signature, and nowhere else.
    """
    names = LayerArguments.__annotations__
    return LayerArguments(**{n: given[n] for n in names if n in given})


@keras.saving.register_keras_serializable(package="keras_cascade")
class Adapter(keras.layers.Layer):
    """The class to extend for layers between taps and other networks.

    Any Keras layer can be an adapter. This class is for adapters that learn
    from data before training, leave their width to the builder, or can be
    replaced by stock Keras layers.

    An adapter of your own has `call` (and `build`, `get_config`) like every
    layer. One that learns from data also has `needs_data`, and three methods:
    `reset_state()` starts a pass, `update_state(batch, labels=None,
    mask=None)` reads the features of a batch, `finalize_state()` sets the
    weights. An override of `update_state` may leave out the arguments that it
    does not use. Its `build` calls `super().build(input_shape)`, which adds
    the weight that keeps `fitted` through saving, and its `finalize_state`
    calls `super().finalize_state()`, which sets that weight.

    Attributes:
        needs_labels: bool, whether the data must have labels to learn from.
            They must as well if `update_state` has `labels` without a
            default. `False` here.
        uses_labels: bool, whether `update_state` reads the `labels` that it
            takes. `True` here.

    Args:
        trainable: bool, whether training moves its weights. Defaults to
            `True`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        autocast: bool, whether Keras casts inputs and weights to the compute
            dtype. Defaults to `True`.
        activity_regularizer: regularizer of the output. Defaults to `None`.
        name: str, name of the layer. Defaults to `None`.

    Example:
    An adapter that centres the features on the mean of the data:

    >>> import numpy as np
    >>> @keras.saving.register_keras_serializable(package="my_project")
    ... class Centre(Adapter):
    ...     needs_data = True
    ...
    ...     def build(self, input_shape):
    ...         super().build(input_shape)
    ...         self.mean = self.add_weight(
    ...             name="mean",
    ...             shape=input_shape[-1:],
    ...             initializer="zeros",
    ...             trainable=False,
    ...         )
    ...
    ...     def reset_state(self):
    ...         self.sum, self.count = 0.0, 0
    ...
    ...     def update_state(self, batch):
    ...         self.sum = self.sum + batch.sum(axis=0)
    ...         self.count = self.count + len(batch)
    ...
    ...     def finalize_state(self):
    ...         self.mean.assign(self.sum / self.count)
    ...         super().finalize_state()
    ...
    ...     def call(self, inputs):
    ...         return inputs - self.mean
    >>> centre = Centre().adapt(np.array([[0.0, 2.0], [2.0, 4.0]]))
    >>> keras.ops.convert_to_numpy(centre.mean)
    array([1., 3.], dtype=float32)
    """

    needs_labels: bool = False
    uses_labels: bool = True

    def __init__(
        self,
        *,
        trainable: bool = True,
        dtype: DType = None,
        autocast: bool = True,
        activity_regularizer: Regularizer = None,
        name: str | None = None,
    ):
        super().__init__(
            trainable=trainable,
            dtype=dtype,
            autocast=autocast,
            activity_regularizer=activity_regularizer,
            name=name,
        )
        # A weight, so that files and copies have it; `build` adds it.
        self._fitted: Any = None

    @property
    def needs_data(self) -> bool:
        """Whether it learns from data before training; `False` here."""
        return False

    @property
    def fitted(self) -> bool:
        """Whether nothing is to be learned from data, or it has been."""
        if not self.needs_data:
            return True
        if self._fitted is None:
            return False
        return bool(keras.ops.convert_to_numpy(self._fitted))

    @property
    def open_width(self) -> bool:
        """Whether the builder is to decide the output's width."""
        return False

    def with_units(self, width: int) -> "Adapter":
        """Returns a copy whose output has `width` features, an int.

        Raises:
            ValueError: the adapter's width is not open.
        """
        raise ValueError(
            f"The width of adapter '{self.name}' ({type(self).__name__}) is "
            f"not open, it cannot be set to {width}. An adapter with an open "
            "width overrides `open_width` and `with_units`."
        )

    def build(self, input_shape: Shape) -> None:
        """Adds the weight that keeps `fitted`, where there is data to learn."""
        if self.needs_data and self._fitted is None:
            self._fitted = self.add_weight(
                name="fitted",
                shape=(),
                dtype="bool",
                initializer="zeros",
                trainable=False,
            )

    def reset_state(self) -> None:
        """Forgets the batches seen so far; starts a pass."""

    def update_state(
        self,
        batch: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Learns from the features of one batch, outside of any graph.

        Args:
            batch: array or tensor of features.
            labels: array of the batch's labels, where `uses_labels` and the
                data has them. Defaults to `None`.
            mask: boolean array `(batch, steps)` of a sequence's steps that
                count. Defaults to `None`, all.
        """
        if self.needs_data:
            raise NotImplementedError(
                f"{type(self).__name__} has `needs_data` but no "
                "`update_state(batch)`: write how it learns from a batch."
            )

    def finalize_state(self) -> None:
        """Sets the weights from the batches seen; ends a pass."""
        if not self.needs_data:
            return
        if self._fitted is None:
            raise RuntimeError(
                f"Adapter '{self.name}' has no weight that keeps whether it "
                f"is fitted: {type(self).__name__}.build() must call "
                "`super().build(input_shape)`."
            )
        self._fitted.assign(True)

    def adapt(self, data: object, batch_size: int = 256) -> Self:
        """Learns from features, in one pass over them.

        Inside a cascade, `Cascade.adapt` does this with the tap's features.
        Alone, it fits the adapter on features that you have. An adapter that
        does not learn from data reads nothing.

        Args:
            data: features, as an array or in batches: all that `fit` takes.
                An adapter that learns from labels needs `(x, y)`; the others
                leave labels unread.
            batch_size: int, rows at a time when `data` is an array. The
                result does not depend on it. Defaults to `256`.

        Returns:
            The adapter itself.

        Raises:
            TypeError: `data` is of no known kind.
            ValueError: `data` is empty, lacks labels that are needed, or
                cannot be learned from.
        """
        if not self.needs_data:
            return self
        batches = learning_batches({self.name: self}, data, batch_size)
        for number, (batch, labels) in enumerate(batches):
            # As in a cascade, a pass starts on an adapter that is built.
            self._build_for(batch)
            if number == 0:
                self.reset_state()
            learn(self, batch, labels)
        self.finalize_state()
        return self

    def copy(self, name: str | None = None) -> Self:
        """Returns an independent copy with equal configuration and weights.

        If the adapter is built, so is the copy, under the surrounding
        `keras.name_scope`, with which its weights' paths begin.

        Args:
            name: str, name of the copy. Defaults to `None`, the same name.
        """
        config = self.get_config()
        if name is not None:
            config["name"] = name
        twin = type(self).from_config(config)
        # Built for the same shape, the copy has the same weights in order.
        if self.built:
            twin.build_from_config(self.get_build_config())
            twin.set_weights(self.get_weights())
        return twin

    def to_plain(self) -> list[keras.layers.Layer]:
        """Returns stock Keras layers that compute the same together.

        They replace the adapter in a model that is to load without this
        package. They are built for the adapter's input shape, have weights,
        and are in the order in which they are applied.

        Raises:
            NotImplementedError: the class does not override `to_plain`.
        """
        raise NotImplementedError(
            f"Adapter '{self.name}' cannot be written in stock Keras layers: "
            f"{type(self).__name__} has no `to_plain()`. Give it one that "
            "returns built layers with their weights set, such as "
            "`[keras.layers.Dense(8)]`."
        )

    def _build_for(self, batch: object) -> None:
        """Builds for the shape of a batch, of any number of rows."""
        if not self.built:
            shape: Any = keras.tree.map_structure(
                lambda x: (None, *x.shape[1:]), batch
            )
            self.build(shape)

    def _built_shape(self) -> Shape:
        """Returns the input shape that the adapter is built for."""
        config = self.get_build_config()
        if config is None:
            raise ValueError(
                f"Adapter '{self.name}' is not built, and so has no weights "
                "to hand on. Call it on features, or `build(shape)`, first."
            )
        return tuple(config["input_shape"])

    @contextmanager
    def _named_errors(self, where: str = "") -> Iterator[None]:
        """Puts the adapter's name before the errors of checks."""
        try:
            yield
        except ValueError as error:
            raise ValueError(
                f"Adapter '{self.name}'{where}: {error}"
            ) from error

    def _one_of(self, argument: str, value: _T, allowed: Sequence) -> _T:
        """Returns the value of an argument if it is one of those allowed."""
        if value not in allowed:
            raise ValueError(
                f"Adapter '{self.name}': `{argument}` is one of {allowed}, "
                f"received {value!r}."
            )
        return value

    def _format(self, data_format: str | None) -> str:
        """Returns a `data_format`, by default that of Keras's configuration."""
        if data_format is None:
            return keras.config.image_data_format()
        return self._one_of("data_format", data_format, FORMATS)

    def _positive(self, argument: str, value: object, kind: str) -> int:
        """Returns the value of an argument as a positive int."""
        # A bool is an int, but a size of True is a mistake.
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            count = operator.index(value)
            if count > 0:
                return count
        raise ValueError(
            f"Adapter '{self.name}': `{argument}` is {kind} or None, received "
            f"{value!r}."
        )
