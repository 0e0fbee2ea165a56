"""Loads KerasHub presets, "hub:resnet_18_imagenet", and their scaling."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from keras_cascade._reporting.messages import closest
from keras_cascade.networks.downloads import Download
from keras_cascade.networks.preprocessing import Scaling

PREFIX = "hub:"


def load_preset(name: str, role: str) -> keras.Model:
    """Loads the backbone of a KerasHub preset, with its weights.

    An image backbone that takes images of any size gets the size that its
    preset was trained on, as an application has when loaded by name.

    Args:
        name: "hub:" and an argument of `keras_hub.models.Backbone.from_preset`:
            the name of a preset, a handle ("hf://..."), a folder.
        role: The network's role in the cascade, for errors: "upstream".

    Returns:
        The backbone.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If there is no such preset.
        RuntimeError: If it cannot be loaded.
    """
    hub = _keras_hub(name, role)
    preset = _check_preset(name, role, hub)
    with _download(name, role):
        backbone = hub.models.Backbone.from_preset(preset)
        converter = _image_converter(preset, backbone, hub)
    return _of_size(backbone, converter and converter.image_size)


def preset_scaling(
    name: str, role: str, network: keras.Model
) -> Scaling | None:
    """Returns the scaling of a preset's images for its backbone.

    Args:
        name: As in `load_preset`.
        role: As in `load_preset`.
        network: The loaded backbone.

    Returns:
        The scaling; None if the preset has none, as for text and audio, and
        for images that are taken as they are.

    Raises:
        ValueError: If the preset prepares images by more than a scaling.
    """
    hub = _keras_hub(name, role)
    with _download(name, role):
        converter = _image_converter(name.removeprefix(PREFIX), network, hub)
    if converter is None:
        _warn_of_images(name, role, network)
        return None
    if type(converter).call is not hub.layers.ImageConverter.call:
        raise ValueError(
            f"{role}='{name}' prepares its images in a way of its own "
            f"({type(converter).__name__}), which is no scaling. Pass "
            f"preprocess={{'{role}': a Keras layer}}, or None if you feed it "
            "what that gives."
        )
    if converter.scale is None and converter.offset is None:
        return None
    scale = _plain(1.0 if converter.scale is None else converter.scale)
    offset = _plain(0.0 if converter.offset is None else converter.offset)
    text = f"pixels * {_text(scale)} + {_text(offset)}"
    return Scaling(text, scale, offset)


def _keras_hub(name: str, role: str) -> ModuleType:
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"{role}='{name}' is a preset of KerasHub, which is not installed. "
            'Run: pip install "keras_cascade[hub]"'
        ) from error
    return keras_hub


def _check_preset(name: str, role: str, hub: ModuleType) -> str:
    """Returns the preset's name if KerasHub may have it."""
    preset = name.removeprefix(PREFIX)
    known = hub.models.Backbone.presets
    if preset in known or "://" in preset or Path(preset).is_dir():
        return preset
    raise ValueError(
        f"{role}='{name}': KerasHub {hub.__version__} has no preset "
        f"'{preset}', and there is no such folder."
        f"{closest(preset, known)} keras_hub.models.Backbone.presets "
        "lists them all; handles such as 'hub:hf://user/model' work too."
    )


def _download(name: str, role: str) -> Download:
    return Download(
        f"{role}='{name}'",
        "Pass the folder of a preset that you have, 'hub:path', or a model.",
    )


def _image_converter(
    preset: str, backbone: keras.Model, hub: ModuleType
) -> Any:
    """Returns the image converter, if the backbone takes single images."""
    if len(backbone.inputs) != 1 or len(backbone.inputs[0].shape) != 4:
        return None
    try:
        return hub.layers.ImageConverter.from_preset(preset)
    except (FileNotFoundError, ValueError):
        # The preset has no such file, or the backbone no such class.
        return None


def _of_size(
    backbone: keras.Model, size: tuple[int, int] | None
) -> keras.Model:
    """Returns the backbone with a size in place of None, and its weights."""
    config = backbone.get_config()
    shape = config.get("image_shape")
    if size is None or not shape or None not in shape:
        return backbone
    sides = iter(size)
    config["image_shape"] = tuple(
        next(sides) if axis is None else axis for axis in shape
    )
    sized = type(backbone).from_config(config)
    sized.set_weights(backbone.get_weights())
    return sized


def _warn_of_images(name: str, role: str, network: keras.Model) -> None:
    images = [x.name for x in network.inputs if len(x.shape) == 4]
    if len(network.inputs) > 1 and images:
        warnings.warn(
            f"{role}='{name}' has several inputs, so its images are not "
            f"scaled in the graph: feed {', '.join(images)} with what "
            "keras_hub.layers.ImageConverter.from_preset gives.",
            stacklevel=2,
        )


def _plain(value: float | Iterable[float]) -> float | tuple[float, ...]:
    if isinstance(value, int | float):
        return float(value)
    return tuple(map(float, value))


def _text(values: float | tuple[float, ...]) -> str:
    if isinstance(values, tuple):
        return f"({', '.join(map(_text, values))})"
    return f"{values:.4g}"
