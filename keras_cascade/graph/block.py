"""Defines the model class of cascades and copies: frozen stays frozen."""

import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from os import PathLike
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph import low_rank
from keras_cascade.graph.inference_inside import (
    augments,
    frozen_in_inference_mode,
)
from keras_cascade.graph.layer_identity import (
    identified_config,
    users_operations,
)
from keras_cascade.graph.names import name_variables, restore_paths
from keras_cascade.graph.paths import LayerPath
from keras_cascade.graph.reconstruction import (
    Provenance,
    part_config,
    part_paths,
    provide_parts,
)
from keras_cascade.graph.stored_values import read_value
from keras_cascade.graph.weight_files import Layout, weights_view
from keras_cascade.networks.archives import naming_file

FilePath = str | PathLike[str]
NO_HDF5 = (
    "Keras's older HDF5 format does not hold a cascade or its blocks: the "
    "file could not be loaded."
)


@keras.saving.register_keras_serializable(package="keras_cascade")
class Block(keras.Model):
    """A Functional model whose frozen layers run in inference mode.

    In a stock Functional, `model(x, training=True)` reaches every layer:
    Dropout and stochastic depth stay active in a layer with `trainable=False`.
    A block calls a layer in training mode only if the layer is to be trained,
    so a network may be frozen in part. Augmentation layers are data and stay
    active. Without a `training` argument a block runs in inference mode, but
    for calls that record `training=True` (Monte Carlo dropout), as in Keras.

    It is made like any Functional, `Block(inputs, outputs, name=...)`, and
    saves and loads like one, flags inside composite layers included.
    """

    # `call` below adds nothing to the graph, so the graph may be read.
    interprets_its_graph = True
    # The names of its layers do not depend on the process: they are kept.
    names_are_stable = True
    # Which of its layers come from a network that only its class can make.
    provenance: Provenance | None = None
    # How the network that it copies has the weights in files; None: as it.
    layout: Layout | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        # Functional's own handling of `trainable=True` would unfreeze every
        # layer that was loaded frozen.
        trainable = kwargs.pop("trainable", None)
        mixed_flags = kwargs.pop("mixed_flags", None) or {}
        ranks = kwargs.pop("low_rank", None) or {}
        layout = kwargs.pop("layout", None)
        super().__init__(*args, **kwargs)
        if layout is not None:
            self.layout = Layout(tuple(map(tuple, layout)))
        for name, own in ranks.items():
            low_rank.restore_ranks(self.get_layer(name), own)
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
        bind = partial(bind_training_mode, training=training)
        return compat.run_graph(self, inputs, mask, bind)

    def compute_mask(
        self, inputs: object, previous_mask: object = None
    ) -> None:
        """Returns None: the layers have attached masks to the outputs."""
        # Without this Keras warns that the mask of an input is lost.

    def get_config(self) -> dict:
        """Returns the graph, flags that layers' configs lack, and ranks."""
        if compat.is_writing_hdf5_model():  # `keras.saving.save_model` is
            raise ValueError(f"{NO_HDF5} Save it as '{self.name}.keras'.")
        paths = {} if self.provenance is None else self.provenance.paths
        parts = [op for op in self.operations if op.name in paths]
        updated = [
            x for y in self._leaves() for x in low_rank.low_rank_layers(y)
        ]
        described = [
            x
            for x in self.operations
            if x.name not in paths and not isinstance(x, Block)
        ]
        with (
            compat.with_configs((part, dict) for part in parts),
            compat.without_low_rank_configs(updated),
        ):
            config = identified_config(described, super().get_config)
        if self.provenance is not None:
            config["origin"] = self.provenance.origin
        config["layers"] = [
            part_config(entry, paths[entry["name"]])
            if entry["name"] in paths
            else entry
            for entry in config["layers"]
        ]
        flags = {layer.name: read_flags(layer) for layer in self._leaves()}
        users = {x.name for x in self._leaves() if any(users_operations([x]))}
        # A layer made with `trainable=False` does not pass that on to the
        # layers that it makes inside; a part has no config of its own, and
        # that of a user's layer may have no flag.
        if mixed := {
            name: own
            for name, own in flags.items()
            if name in paths or name in users or (len(own) > 1 and not all(own))
        }:
            config["mixed_flags"] = mixed
        ranks = {x.name: low_rank.read_ranks(x) for x in self._leaves()}
        if ranks := {name: own for name, own in ranks.items() if own}:
            config["low_rank"] = ranks
        if self.layout is not None:
            config["layout"] = [list(x) for x in self.layout.entries]
        _number_shared(self, config)
        return config

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None):
        """Makes the block of a config, with the variables' paths as before."""
        config = dict(config)
        origin, paths = config.pop("origin", None), part_paths(config)
        with provide_parts(origin), compat.share_objects():
            config = compat.with_made_layers(config, custom_objects)
            block = super().from_config(config, custom_objects)
        if origin is not None:
            block.provenance = Provenance(origin, paths)
        if block.path_prefix is not None:
            name_variables(block, block.path_prefix)
        return block

    def quantize(
        self,
        mode: Any = None,
        config: Any = None,
        filters: Any = None,
        **kwargs: Any,
    ) -> None:
        """Quantizes the weights as Keras does; their paths stay.

        A cascade that is rebuilt has the same layers quantized. The arguments
        are those of Keras's `quantize`.
        """
        # Keras makes the variables anew, and names them by their layer alone.
        super().quantize(mode, config=config, filters=filters, **kwargs)
        restore_paths(self)

    def save_weights(
        self,
        filepath: Any,
        overwrite: bool = True,
        max_shard_size: float | None = None,
    ) -> None:
        """Saves the weights so that they fit the network that it copies.

        The arguments are those of Keras's `save_weights`.
        """
        keras.saving.save_weights(
            self.in_weights_files(), filepath, overwrite, max_shard_size
        )

    def load_weights(
        self, filepath: FilePath, skip_mismatch: bool = False, **kwargs: Any
    ) -> None:
        """Loads weights that it saved, or the network that it copies.

        Args:
            filepath: The path of the file.
            skip_mismatch: As Keras takes it. Defaults to `False`.
            **kwargs: As Keras takes them.

        Raises:
            ValueError: If the file is damaged, or is of another model.
        """
        path, saved = str(filepath), self.in_weights_files()
        with naming_file(path):
            # Files of the first versions are laid out as the block is, and
            # those of whole models in HDF5 need a model.
            if saved is not self and (
                not path.endswith((".keras", "weights.h5", "weights.json"))
                or compat.is_in_weights_file(path, ("layers/block", "vars/0"))
            ):
                saved = self
            keras.saving.load_weights(
                saved, filepath, skip_mismatch=skip_mismatch, **kwargs
            )

    def save_own_variables(self, store: dict) -> None:
        """Saves the states of random layers, which Keras leaves out."""
        for number, state in enumerate(self._seed_states()):
            store[str(number)] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: dict) -> None:
        """Loads the states of random layers, and warns of damaged ones."""
        for number, state in enumerate(self._seed_states()):
            if str(number) not in store:
                continue
            try:
                state.assign(read_value(store, str(number), state, "file"))
            except ValueError as error:
                # Keras forgets an error here: it goes on to another part of
                # the file, in which there are none.
                warnings.warn(
                    f"The random states of '{self.name}' stay as they are, as "
                    f"those in the file cannot be read ({error}).",
                    stacklevel=2,
                )
                return

    def _seed_states(self) -> list[keras.Variable]:
        return [
            variable
            for layer in self._leaves()
            for variable in layer.variables
            if variable.path.endswith("seed_generator_state")
        ]

    def _leaves(self) -> list[keras.Layer]:
        """Returns the layers that are no networks; those write their own."""
        return [x for x in self.layers if not compat.is_functional(x)]

    @property
    def path_prefix(self) -> str | None:
        """The beginning of the paths of its variables; None leaves them."""
        return self.name

    def in_weights_files(self) -> Any:
        """Returns what Keras saves, and loads, in files of weights."""
        # No property: Keras saves those as well.
        return weights_view(self)


def _number_shared(network: keras.Model, config: dict) -> None:
    """Numbers the layers in a config that several networks share.

    So they are one layer again where the config is loaded.
    """
    found: dict[int, list[dict]] = defaultdict(list)
    for operation, entry in _configs(network, config):
        entry.pop(compat.SHARED, None)
        found[id(operation)].append(entry)
    shared = [entries for entries in found.values() if len(entries) > 1]
    for number, entries in enumerate(shared):
        for entry in entries:
            entry[compat.SHARED] = f"layer {number}"


def _configs(
    network: keras.Model, config: dict
) -> Iterator[tuple[keras.Operation, dict]]:
    """Yields the operations at every level, with their configs."""
    operations = {x.name: x for x in network.operations}
    for entry in config["layers"]:
        operation = operations[entry["name"]]
        yield operation, entry
        # The network that a layer calls once per step has a config there.
        while isinstance(operation, keras.layers.TimeDistributed):
            operation, entry = operation.layer, entry["config"]["layer"]
        if isinstance(operation, Block):
            yield from _configs(operation, entry["config"])


def bind_training_mode(
    operation: keras.Operation, training: bool | None
) -> Callable[..., Any]:
    """Returns the operation, to be called in the mode of its flag.

    Args:
        operation: The operation.
        training: The mode of the network; None is the one that the call
            records, or inference mode.
    """
    if not isinstance(operation, keras.Layer):
        return operation

    def call(*args: Any, **kwargs: Any) -> Any:
        recorded = recorded_mode(operation, kwargs)
        mode = recorded if training is None else training
        # Else a default of a layer before, such as Resizing's, counts here.
        if not isinstance(operation, Block):
            mode = bool(mode)
        if mode and not isinstance(operation, Block):
            mode = operation.trainable or augments(operation)
        kwargs = {**kwargs, "training": mode}
        if not mode or isinstance(operation, Block):
            return operation(*args, **kwargs)
        with frozen_in_inference_mode(operation):
            return operation(*args, **kwargs)

    return call


def recorded_mode(
    operation: keras.Operation, kwargs: Mapping[str, Any]
) -> bool | None:
    """Returns the `training` that a call records, if it is not the default.

    Keras records the defaults of its augmentation.
    """
    recorded = kwargs.get("training")
    if recorded is None:
        return None
    parameters = inspect.signature(operation.call).parameters
    is_default = (
        "training" in parameters and parameters["training"].default is recorded
    )
    return None if is_default else recorded


def leaf_layers(
    network: keras.Model, prefix: LayerPath = ()
) -> Iterator[tuple[LayerPath, keras.Layer]]:
    """Yields the layers that are no networks themselves, with their paths."""
    for layer in network.layers:
        path = (*prefix, layer.name)
        if compat.is_functional(layer):
            yield from leaf_layers(layer, path)
        else:
            yield path, layer


def read_flags(layer: keras.Layer) -> list[bool]:
    """Returns the `trainable` flags of a layer and of the layers inside it."""
    return [inner.trainable for inner in compat.sublayers(layer)]


def apply_flags(layer: keras.Layer, flags: list[bool]) -> None:
    """Sets the flags that `read_flags` read."""
    # Parents first: the flag of a layer spreads to the layers inside it.
    for inner, flag in zip(compat.sublayers(layer), flags, strict=True):
        inner.trainable = flag
    if any(low_rank.low_rank_layers(layer)):
        low_rank.freeze_rest(layer)
