"""Assembles the preprocessing between a cascade's inputs and its networks."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade.adapters import SpatialAdapter
from keras_cascade.graph.block import Block
from keras_cascade.graph.layer_copying import (
    copy_known_state,
    copy_operation,
)
from keras_cascade.graph.tensors import input_like
from keras_cascade.networks.preprocessing import Preprocess
from keras_cascade.planning.inputs import CascadeInput, NetworkInput
from keras_cascade.planning.plan import Plan

Tensors = Mapping[str, keras.KerasTensor]


def prepare_inputs(plan: Plan, inputs: Tensors) -> dict[str, dict[str, Any]]:
    """Returns the tensors for each network's inputs, by network and input.

    Images of a shared input are resized for each network, and each has its
    own preprocessing: all of it in one block, `preprocessing`.

    Args:
        plan: The plan.
        inputs: The cascade's inputs by their names.
    """
    prepared: dict[str, dict[str, Any]] = {}
    networks: dict[str, tuple[CascadeInput, NetworkInput, keras.Model]] = {}
    for one in plan.inputs:
        for fed in one.feeds:
            prepared.setdefault(fed.network, {})[fed.name] = inputs[one.name]
            if (network := _preparation(plan, one, fed)) is not None:
                networks[network.name] = (one, fed, network)
    if networks:
        for name, tensor in _through_block(inputs, networks).items():
            _, fed, _ = networks[name]
            prepared[fed.network][fed.name] = tensor
    return prepared


def _preparation(
    plan: Plan, given: CascadeInput, fed: NetworkInput
) -> keras.Model | None:
    """Returns the network that prepares an input for a network, if any."""
    chosen = plan.spec.preprocess.get(fed.network)
    # Names of the block's outputs, each of one input of one network.
    alone = len(plan.graphs[fed.network].inputs) == 1
    name = fed.network if alone else f"{fed.network}_{fed.name}"
    return preparation(given, fed, chosen, name)


def preparation(
    given: CascadeInput,
    fed: NetworkInput,
    chosen: Preprocess | None,
    name: str,
) -> keras.Model | None:
    """Returns a network that resizes and preprocesses, or None for nothing.

    Args:
        given: The input of the cascade.
        fed: The input of the network.
        chosen: The preprocessing of the network.
        name: The name of the model.
    """
    layers = (*_resizing(given, fed), *(chosen.layers if chosen else ()))
    return preprocessing_network(Preprocess(name, layers), given.tensor, name)


def _resizing(given: CascadeInput, fed: NetworkInput) -> list[keras.Layer]:
    """Returns a layer if the network takes another size than the input's."""
    axes = (2, 3) if fed.data_format == "channels_first" else (1, 2)
    shapes = given.tensor.shape, fed.tensor.shape
    if len(shapes[1]) != 4:
        return []
    wanted = [shapes[1][axis] for axis in axes]
    if None in wanted or wanted == [shapes[0][axis] for axis in axes]:
        return []
    # Not keras.layers.Resizing: TensorFlow compiles it with XLA, and exports
    # it to LiteRT, only without antialiasing.
    return [SpatialAdapter(wanted, data_format=fed.data_format, name="resize")]


def _through_block(
    inputs: Tensors,
    networks: Mapping[str, tuple[CascadeInput, NetworkInput, keras.Model]],
) -> Tensors:
    used = dict.fromkeys(given.name for given, _, _ in networks.values())
    raw = {name: input_like(inputs[name], name) for name in used}
    results = {
        name: network(raw[given.name])
        for name, (given, _, network) in networks.items()
    }
    block = Block(list(raw.values()), results, name="preprocessing")
    return block([inputs[name] for name in used])


def preprocessing_network(
    preprocess: Preprocess | None,
    tensor: keras.KerasTensor,
    name: str,
    dtype: str | None = None,
) -> keras.Model | None:
    """Returns a stock Functional model that preprocesses, or None.

    Args:
        preprocess: The layers, which are copied.
        tensor: An input of the shape of the images, batch included.
        name: The name of the model, of its input and its output.
        dtype: The dtype of the raw images. Defaults to that of `tensor`.
    """
    if preprocess is None or not preprocess.layers:
        return None
    images = keras.Input(
        batch_shape=tensor.shape, dtype=dtype or tensor.dtype, name=name
    )
    result: Any = images
    for layer in preprocess.layers:
        # Not graph.layers.call_copy: it makes a nested network a Block, and
        # preprocessing is stock Keras.
        copy: Any = copy_operation(layer, layer.name)
        result = copy(result)
        copy_known_state(layer, copy)
    return keras.Model(images, result, name=name)
