"""Loads the networks that users name, as functional models."""

from pathlib import Path
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._reporting.messages import closest
from keras_cascade.networks import torch_presets
from keras_cascade.networks.applications import APPLICATIONS, load_application
from keras_cascade.networks.archives import load_archive
from keras_cascade.networks.presets import PREFIX, load_preset


def load_network(
    network: object, role: str, weights: bool = True
) -> keras.Model:
    """Loads a network that the user named, or takes it as it is.

    Args:
        network: A `keras.Model`, the name of a Keras application
            ("MobileNetV3Small": ImageNet weights, without its top, at its
            default size), a KerasHub preset ("hub:resnet_18_imagenet"), a
            network of timm or transformers ("timm:resnet18",
            "hf:google/vit-base-patch16-224"), or the path of a `.keras` file.
        role: The network's role in the cascade, for errors: "upstream".
        weights: Whether an application gets its weights, which may have to
            be downloaded. Defaults to `True`.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such application, preset or file.
        TypeError: If `network` is none of these.
        ImportError: If it is a preset and KerasHub is not installed.
        RuntimeError: If weights cannot be downloaded.
    """
    if isinstance(network, str) and network in APPLICATIONS:
        return load_application(network, role, weights)
    if isinstance(network, str) and network.startswith(PREFIX):
        return load_preset(network, role)
    if isinstance(network, str) and network.startswith(torch_presets.PREFIXES):
        return torch_presets.load_torch_preset(network, role, weights)
    if isinstance(network, str | Path):
        network = _from_file(network, role)
    if compat.is_torch_module(network):
        raise TypeError(
            f"{role} is a PyTorch module, {type(network).__name__}. Make a "
            f"Keras network of it: {torch_presets.call_for(network)}."
        )
    if not isinstance(network, keras.Model):
        raise TypeError(
            f"{role} must be a keras.Model, {_STRINGS}; received {network!r} "
            f"of type {type(network).__name__}."
        )
    return network


def as_network(model: keras.Model, role: str) -> keras.Model:
    """Returns a model as a Functional that can be read and copied.

    Args:
        model: A Functional model, which is returned; a Sequential; or a
            subclassed one, which has no graph and becomes a network with one
            layer: itself.
        role: As in `load_network`.

    Raises:
        ValueError: If the model has no defined input shape.
    """
    functional = as_functional(model)
    return _black_box(model, role) if functional is None else functional


def as_functional(network: keras.Operation) -> keras.Model | None:
    """Returns a network as a Functional model, or None without a graph."""
    if isinstance(network, keras.Sequential):
        if not network.built or not network.layers:
            return None
        outputs = network.outputs
        return keras.Model(
            network.inputs[0],
            outputs if len(outputs) > 1 else outputs[0],
            name=network.name,
        )
    is_model = isinstance(network, keras.Model)
    return network if is_model and compat.is_functional(network) else None


_STRINGS = (
    "the name of a Keras application ('MobileNetV3Small'), the path of a "
    "'.keras' file, a KerasHub preset ('hub:resnet_18_imagenet'), or a network "
    "of timm or transformers ('timm:resnet18', 'hf:user/model')"
)


def _from_file(name: str | Path, role: str) -> keras.Model:
    path = Path(name)
    if path.suffix != ".keras":
        suggested = closest(str(name), APPLICATIONS)
        raise ValueError(
            f"{role}='{name}' is no network.{suggested} A string is {_STRINGS}."
        )
    return load_archive(path, role)


def _black_box(network: keras.Model, role: str) -> keras.Model:
    """Returns a model without a graph as a network of one layer."""
    if compat.has_inputs(network):
        inputs = keras.tree.map_structure(_input_like, network.input)
    else:
        shape = _input_shape(network, role)
        inputs = keras.Input(batch_shape=shape)
    return keras.Model(inputs, network(inputs), name=network.name)


def _input_like(tensor: keras.KerasTensor) -> Any:
    """Returns an input as another one is."""
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        name=tensor.name,
        optional=compat.may_be_none(tensor),
    )


def _input_shape(network: keras.Model, role: str) -> tuple[int | None, ...]:
    shapes = network.get_build_config() if network.built else None
    if shapes and shapes.get("input_shape") is not None:
        return (None, *shapes["input_shape"][1:])
    raise ValueError(
        f"{role} '{network.name}' has no defined input shape. Begin it with "
        "keras.Input, or call network.build(input_shape) or the network on "
        "data once."
    )
