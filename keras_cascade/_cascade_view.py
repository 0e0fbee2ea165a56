"""Declares the members of a cascade that lower folders use.

A `Cascade` stands above the folders that train, cache, show and export it, so
they cannot import it; they annotate it as a `CascadeView`.

Tested by `tests/cascade/test_cascade.py`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, TypeGuard, cast

import keras


class SpecView(Protocol):
    """The normalised arguments of a cascade, of which lower folders read these.

    Attributes:
        networks: Network name to the description of the network.
        roles: Block name to the names of the networks that it is.
        inject: Tap or extra input to the layers that it enters.
        preprocess: Network to the preprocessing of its input.
        retention: Path pattern to method.
        shares: Whether the cascade trains the layers of the networks
            themselves (`copy=False`).
        reinitialized: The paths of weights that a rebuild initialised.
    """

    @property
    def networks(self) -> Mapping[str, Any]: ...
    @property
    def roles(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def inject(self) -> Mapping[str, Sequence[Any]]: ...
    @property
    def preprocess(self) -> Mapping[str, Any]: ...
    @property
    def retention(self) -> Mapping[str, Any]: ...
    @property
    def shares(self) -> bool: ...
    @property
    def reinitialized(self) -> Sequence[str]: ...


class CascadeView(Protocol):
    """A cascade as the folders below it see it.

    Attributes:
        name: The name of the model.
        input: Its symbolic input, or the structure of several.
        inputs: Its symbolic inputs.
        output: Its symbolic output, or the structure of several.
        history: The history of its last `fit`.
        spec: Its normalised arguments.
        blocks: Block name to layer.
        upstreams: The names of the blocks that taps are read from.
        taps: Tap name to its path in the upstream.
        adapters: Tap or extra input to its adapter.
        compiled: Whether it has a loss and an optimizer.
        optimizer: Its optimizer.
        rates: Path pattern to the rate that it was compiled with.
        taught: The blocks that `LwF` holds to their old outputs.
        variables: All variables.
        trainable_variables: The variables that train.
        trainable_weights: The same, as Keras calls them for gradients.
        stop_training: Whether `fit` ends after the running epoch.
    """

    name: str
    compiled: bool
    stop_training: bool
    history: keras.callbacks.History

    @property
    def input(self) -> Any: ...
    @property
    def inputs(self) -> list[keras.KerasTensor]: ...
    @property
    def output(self) -> Any: ...
    @property
    def spec(self) -> SpecView: ...
    @property
    def blocks(self) -> dict[str, keras.Layer]: ...
    @property
    def upstreams(self) -> list[str]: ...
    @property
    def taps(self) -> dict[str, str]: ...
    @property
    def adapters(self) -> dict[str, keras.Layer]: ...
    @property
    def optimizer(self) -> Any: ...
    @property
    def rates(self) -> dict[str, Any]: ...
    @property
    def taught(self) -> list[str]: ...
    @property
    def variables(self) -> list[keras.Variable]: ...
    @property
    def trainable_variables(self) -> list[keras.Variable]: ...
    @property
    def trainable_weights(self) -> list[keras.Variable]: ...
    def source(self, block: str) -> keras.Model | None:
        """Returns the network that a block was copied from, if it lives."""
        ...

    def flags(self) -> list[bool]:
        """Returns the `trainable` flags of all layers."""
        ...

    def restore_flags(self, flags: Sequence[bool]) -> None:
        """Sets the flags of all layers, as `flags` returned them."""
        ...

    def learning_rates(self) -> dict[str, float]:
        """Returns the current rate of each trainable variable by its path."""
        ...

    def taking_features(
        self, part: keras.Model
    ) -> AbstractContextManager[None]:
        """Returns a context in which `part` answers to cached features."""
        ...

    def to_plain(self) -> keras.Model:
        """Returns the same model in stock Keras layers."""
        ...

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the model."""
        ...

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> Self:
        """Returns the model of a config."""
        ...


def as_model(cascade: CascadeView) -> keras.Model:
    """Returns the cascade itself, typed as the Keras model that it is."""
    # A protocol cannot extend a class.
    return cast(keras.Model, cascade)


def is_cascade(value: object) -> TypeGuard[CascadeView]:
    """Whether a value is a `Cascade`, which lower folders cannot import."""
    return hasattr(type(value), "taking_features")
