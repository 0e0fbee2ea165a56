"""The base class of adapters: what the library asks of one."""

from typing import Any, Self

import keras

from keras_cascade import data as user_data
from keras_cascade.adapters.protocol import (
    learn,
    one_label_array,
    takes_labels,
)


@keras.saving.register_keras_serializable(package="keras_cascade")
class Adapter(keras.layers.Layer):
    """A layer between a tap and where its features go; extend it.

    Any Keras layer can stand as an adapter. This class is for those that
    learn from data before training, leave their width to the builder, or
    are to be written in stock Keras layers.

    An adapter of your own has `call` (and `build`, `get_config`) like every
    layer. One that learns from data also has `needs_data`, and Keras's three
    methods: `reset_state` forgets, `update_state(batch)` reads the features
    of a batch, `finalize_state` sets the weights. Where `update_state` takes
    `mask` too, it gets the mask of a masked sequence; where it takes
    `labels`, the labels of the batch, which without a default the data must
    have. Its `build` calls
    `super().build(input_shape)`, which adds the weight that keeps `fitted`
    through saving, and its `finalize_state` calls
    `super().finalize_state()`, which sets it.

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

    def __init__(
        self,
        *,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        activity_regularizer: Any = None,
        name: str | None = None,
    ):
        super().__init__(
            trainable=trainable,
            dtype=dtype,
            autocast=autocast,
            activity_regularizer=activity_regularizer,
            name=name,
        )
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
        """A copy whose output has `width` features, for an open width.

        Args:
            width: int, number of output features.

        Returns:
            The copy.

        Raises:
            ValueError: the adapter's width is not open.
        """
        raise ValueError(
            f"The width of adapter '{self.name}' ({type(self).__name__}) is "
            f"not open, it cannot be set to {width}. An adapter with an open "
            "width overrides `open_width` and `with_units`."
        )

    def build(self, input_shape: Any) -> None:
        """Adds the weight that remembers that data was learned from."""
        if self.needs_data and self._fitted is None:
            self._fitted = self.add_weight(
                name="fitted",
                shape=(),
                dtype="bool",
                initializer="zeros",
                trainable=False,
            )

    def reset_state(self) -> None:
        """Forgets what `update_state` has gathered; starts a pass."""

    def update_state(self, batch: Any) -> None:
        """Learns from the features of one batch.

        Args:
            batch: array or tensor of features, outside of any graph.
        """
        if self.needs_data:
            raise NotImplementedError(
                f"{type(self).__name__} has `needs_data` but no "
                "`update_state(batch)`: write how it learns from a batch."
            )

    def finalize_state(self) -> None:
        """Sets the weights from what was gathered; ends a pass."""
        if not self.needs_data:
            return
        if self._fitted is None:
            raise RuntimeError(
                f"Adapter '{self.name}' has no weight that keeps whether it "
                f"is fitted: {type(self).__name__}.build() must call "
                "`super().build(input_shape)`."
            )
        self._fitted.assign(True)

    def adapt(self, data: Any, batch_size: int = 256) -> Self:
        """Learns from features, in one pass over them.

        Inside a cascade, `Cascade.adapt` does this with the tap's features.
        Alone, it fits the adapter on features that you have. An adapter that
        does not learn from data reads nothing.

        Args:
            data: features, as an array or in batches: all that `fit` takes.
                What learns from labels needs `(x, y)`, the others leave
                labels aside.
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
        self.reset_state()
        if takes_labels(self):
            self._learn_with_labels(data, batch_size)
        else:
            for batch in user_data.batches(data, batch_size):
                self._build_on(batch)
                self.update_state(batch)
        self.finalize_state()
        return self

    def copy(self, name: str | None = None) -> Self:
        """An independent copy with equal configuration and weights.

        When the adapter is built, so is the copy, under the surrounding
        `keras.name_scope`, which its weights' paths begin with.

        Args:
            name: str, name of the copy. Defaults to `None`, the same name.

        Returns:
            The copy.
        """
        config = self.get_config()
        if name is not None:
            config["name"] = name
        twin = type(self).from_config(config)
        if self.built:
            twin.build_from_config(self.get_build_config())
            twin.set_weights(self.get_weights())
        return twin

    def to_plain(self) -> list[keras.layers.Layer]:
        """Stock Keras layers that together compute what this computes.

        They are what is left of an adapter in a model that is to load
        without this package.

        Returns:
            The layers, built for the shape that this is built for, with
            their weights, in the order in which they are applied.

        Raises:
            NotImplementedError: the class does not say how.
        """
        raise NotImplementedError(
            f"Adapter '{self.name}' cannot be written in stock Keras layers: "
            f"{type(self).__name__} has no `to_plain()`. Give it one that "
            "returns built layers with their weights set, such as "
            "`[keras.layers.Dense(8)]`."
        )

    def _learn_with_labels(self, data: Any, batch_size: int) -> None:
        for batch, y in user_data.labelled_batches(data, batch_size):
            labels = one_label_array({self.name: self}, y)
            self._build_on(batch)
            learn(self, batch, labels=labels)

    def _build_on(self, batch: Any) -> None:
        """Builds for the shape of a batch, of any number of rows."""
        if not self.built:
            self.build(
                keras.tree.map_structure(lambda x: (None, *x.shape[1:]), batch)
            )
