"""What the user calls a network -> a functional network."""

from pathlib import Path
from typing import Any

import keras

from keras_cascade import _keras_compat as compat


def load_network(network: object, role: str) -> keras.Model:
    """Loads what the user calls a network.

    Args:
        network: A `keras.Model`, or the path of a `.keras` file.
        role: What it is in the cascade, for errors: "upstream".

    Returns:
        The model.

    Raises:
        ValueError: If there is no such file.
        TypeError: If it is neither.
    """
    if isinstance(network, str | Path):
        network = _from_file(Path(network), role)
    if not isinstance(network, keras.Model):
        raise TypeError(
            f"{role} must be a keras.Model or the path of a '.keras' file; "
            f"received {network!r} of type {type(network).__name__}."
        )
    return network


def as_network(model: keras.Model, role: str) -> keras.Model:
    """A model as a Functional that can be read and copied.

    Args:
        model: A Functional or Sequential model; a subclassed one, which has
            no graph, becomes a network with one layer: itself.
        role: What it is in the cascade, for errors: "upstream".

    Returns:
        The model itself where it is functional.

    Raises:
        ValueError: If it has no defined input shape.
    """
    functional = as_functional(model)
    return _black_box(model, role) if functional is None else functional


def as_functional(network: keras.Layer) -> keras.Model | None:
    """The network as a Functional model, or None where it has no graph."""
    if isinstance(network, keras.Sequential):
        if not network.built or not network.layers:
            return None
        outputs = network.outputs
        return keras.Model(
            network.inputs[0],
            outputs if len(outputs) > 1 else outputs[0],
            name=network.name,
        )
    if compat.is_functional(network):
        return network
    return None


def _from_file(path: Path, role: str) -> keras.Model:
    if path.suffix != ".keras":
        raise ValueError(
            f"{role}='{path}' is no path of a '.keras' file. Give one, or the "
            "model itself."
        )
    if not path.is_file():
        raise ValueError(f"{role}: there is no file '{path}'.")
    network: Any = keras.saving.load_model(path, compile=False)
    return network


def _black_box(network: keras.Model, role: str) -> keras.Model:
    """A model without a graph as a network of one layer."""
    inputs = keras.tree.map_shape_structure(
        lambda shape: keras.Input(batch_shape=shape),
        _input_shape(network, role),
    )
    return keras.Model(inputs, network(inputs), name=network.name)


def _input_shape(network: keras.Model, role: str) -> Any:
    if compat.has_inputs(network):
        return keras.tree.map_structure(lambda x: x.shape, network.input)
    shapes = network.get_build_config() if network.built else None
    if shapes and shapes.get("input_shape") is not None:
        return (None, *shapes["input_shape"][1:])
    raise ValueError(
        f"{role} '{network.name}' has no defined input shape. Begin it with "
        "keras.Input, or call network.build(input_shape) or the network on "
        "data once."
    )
