"""The model class that cascades are made of: frozen parts stay frozen."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph import low_rank
from keras_cascade.graph.names import name_variables
from keras_cascade.graph.reconstruction import (
    Parts,
    as_part,
    available,
    paths_of_parts,
)

# Augmentation is data, not weights: no flag switches it off.
AUGMENTATIONS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Rand")  # RandAugment too
    or name in ("AugMix", "CutMix", "MixUp", "Pipeline")
)


@keras.saving.register_keras_serializable(package="keras_cascade")
class Block(keras.Model):
    """A Functional model whose frozen layers run in inference mode.

    In a stock Functional, `model(x, training=True)` reaches every layer:
    Dropout and stochastic depth go on in a layer with `trainable=False`. A
    block calls each layer in training mode only where the layer is to be
    trained, so a network may be frozen in part. Augmentation layers are data
    and stay active. Without a `training` argument a block runs in inference
    mode.

    It is made like any Functional, `Block(inputs, outputs, name=...)`, and
    saves and loads like one, flags inside composite layers included.
    """

    # Read by the package's graph walk: `call` below adds nothing to the graph.
    interprets_its_graph = True
    # Its layers got names that do not depend on the process: keep them.
    names_are_stable = True
    # Which of its layers come from a network that its class rebuilds.
    parts: Parts | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        # Functional's own handling of `trainable=True` would unfreeze every
        # layer that was loaded frozen.
        trainable = kwargs.pop("trainable", None)
        mixed_flags = kwargs.pop("mixed_flags", None) or {}
        ranks = kwargs.pop("low_rank", None) or {}
        super().__init__(*args, **kwargs)
        for name, own in ranks.items():
            low_rank.enable_again(self.get_layer(name), own)
        if trainable is False:
            self.trainable = False
        for name, flags in mixed_flags.items():
            apply_flags(self.get_layer(name), flags)
        for name in ranks:
            low_rank.freeze_rest(self.get_layer(name))

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Runs the graph, each layer in the mode that its flag asks for."""
        in_mode = partial(bind_training_mode, training=bool(training))
        return compat.run_graph(self, inputs, mask, in_mode)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Nothing to add: its layers have hung their masks on the outputs.

        Without this Keras warns that the mask of an input is lost.
        """
        return None

    def get_config(self) -> dict:
        """The graph, flags that a layer's own config leaves out, and ranks."""
        paths = {} if self.parts is None else self.parts.paths
        parts = [op for op in self.operations if op.name in paths]
        updated = [
            x for y in self._leaves() for x in low_rank.low_rank_layers(y)
        ]
        with (
            compat.without_configs(parts),
            compat.without_low_rank_configs(updated),
        ):
            config = super().get_config()
        if self.parts is not None:
            config["origin"] = self.parts.origin
        config["layers"] = [
            as_part(entry, paths[entry["name"]])
            if entry["name"] in paths
            else entry
            for entry in config["layers"]
        ]
        if mixed := {
            layer.name: flags
            for layer in self._leaves()
            if _says_too_little(flags := read_flags(layer))
            or layer.name in paths
        }:
            config["mixed_flags"] = mixed
        if ranks := {
            layer.name: own
            for layer in self._leaves()
            if (own := low_rank.ranks_of(layer))
        }:
            config["low_rank"] = ranks
        return config

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None):
        """Rebuilds the graph, with the variables' paths as they were."""
        config = dict(config)
        origin, paths = config.pop("origin", None), paths_of_parts(config)
        with available(origin):
            block = super().from_config(config, custom_objects)
        if origin is not None:
            block.parts = Parts(origin, paths)
        name_variables(block, block.path_prefix)
        return block

    def save_own_variables(self, store: dict) -> None:
        """The states of random layers, which Keras leaves out of a file."""
        for number, state in enumerate(self._seed_states()):
            store[str(number)] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: dict) -> None:
        """Random layers go on where they were."""
        for number, state in enumerate(self._seed_states()):
            if str(number) in store:
                state.assign(store[str(number)])

    def _seed_states(self) -> list[keras.Variable]:
        return [
            variable
            for layer in self._leaves()
            for variable in layer.variables
            if variable.path.endswith("seed_generator_state")
        ]

    def _leaves(self) -> list[keras.Layer]:
        """Its layers that are no networks, which write their own part."""
        return [x for x in self.layers if not compat.is_functional(x)]

    @property
    def path_prefix(self) -> str:
        """What the paths of its variables begin with."""
        return self.name


def bind_training_mode(
    operation: keras.Operation, training: bool
) -> Callable[..., Any]:
    """The operation, to be called in the mode that its flag asks for."""
    if not isinstance(operation, keras.Layer):
        return operation
    if not isinstance(operation, (Block, *AUGMENTATIONS)):
        training = training and operation.trainable

    def call(*args: Any, **kwargs: Any) -> Any:
        return operation(*args, **{**kwargs, "training": training})

    return call


def leaf_layers(
    network: keras.Model, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], keras.Layer]]:
    """The layers that are no networks themselves, with their paths."""
    for layer in network.layers:
        path = (*prefix, layer.name)
        if compat.is_functional(layer):
            yield from leaf_layers(layer, path)
        else:
            yield path, layer


def read_flags(layer: keras.Layer) -> list[bool]:
    """The `trainable` flags of a layer and of the layers inside it."""
    return [inner.trainable for inner in compat.sublayers(layer)]


def _says_too_little(flags: list[bool]) -> bool:
    """Whether a config does not give these flags again.

    A layer that is made with `trainable=False` hands that on to none of those
    that it makes inside.
    """
    return len(flags) > 1 and not all(flags)


def apply_flags(layer: keras.Layer, flags: list[bool]) -> None:
    """Sets the flags that `read_flags` read."""
    # Parents first: the flag of a layer spreads to the layers inside it.
    for inner, flag in zip(compat.sublayers(layer), flags, strict=True):
        inner.trainable = flag
    if any(low_rank.low_rank_layers(layer)):
        low_rank.freeze_rest(layer)
