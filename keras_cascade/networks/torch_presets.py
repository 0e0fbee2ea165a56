"""Loads networks of timm and transformers by name, and their scaling.

"timm:resnet18.a1_in1k" is `timm.create_model`, without its classifier;
"hf:google/vit-base-patch16-224" is `transformers.AutoModel`. Either becomes a
native Keras network by `from_torch`.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_cascade._reporting.messages import closest
from keras_cascade.networks.downloads import Download
from keras_cascade.networks.preprocessing import Scaling

TIMM, TRANSFORMERS = "timm:", "hf:"
PREFIXES = (TIMM, TRANSFORMERS)
_LENGTH = 64


def load_torch_preset(name: str, role: str, weights: bool) -> keras.Model:
    """Loads a network of timm or transformers as a Keras network.

    Args:
        name: "timm:" and a name that `timm.create_model` takes, also
            "timm:local-dir:path"; or "hf:" and what
            `transformers.AutoModel.from_pretrained` takes, also a folder.
        role: The network's role in the cascade, for errors: "upstream".
        weights: Whether a network of timm gets its weights, which may have to
            be downloaded.

    Returns:
        The network. Texts are at most 64 tokens long.

    Raises:
        ImportError: If the package is not installed.
        ValueError: If timm has no such network, or it does not convert.
        RuntimeError: If it cannot be loaded.
    """
    if name.startswith(TIMM):
        return _from_timm(name, role, weights)
    return _from_transformers(name, role)


def torch_preset_scaling(
    name: str, role: str, network: keras.Model
) -> Scaling | None:
    """Returns the scaling of images that a network was trained with.

    Args:
        name: As in `load_torch_preset`.
        role: As in `load_torch_preset`.
        network: The loaded network.

    Returns:
        The scaling; None for text, and if its configuration states none.
    """
    if not any(len(x.shape) == 4 for x in network.inputs):
        return None
    if name.startswith(TIMM):
        timm = _package("timm", name, role)
        config = timm.get_pretrained_cfg(name.removeprefix(TIMM), True)
        given = config.to_dict() if config else {}
        return _scaling(given.get("mean"), given.get("std"))
    transformers = _package("transformers", name, role)
    with _download(name, role):
        config, _ = transformers.ImageProcessingMixin.get_image_processor_dict(
            name.removeprefix(TRANSFORMERS)
        )
    if not config.get("do_normalize", True):
        return Scaling("pixels / 255", 1 / 255)
    return _scaling(config.get("image_mean"), config.get("image_std"))


def _from_timm(name: str, role: str, weights: bool) -> keras.Model:
    timm = _package("timm", name, role)
    wanted = name.removeprefix(TIMM)
    if ":" not in wanted and not timm.is_model(wanted):
        raise ValueError(
            f"{role}='{name}': timm {timm.__version__} has no network "
            f"'{wanted}'.{closest(wanted, timm.list_models())} "
            "timm.list_models() lists them all."
        )
    with _download(name, role):
        module = timm.create_model(wanted, pretrained=weights, num_classes=0)
    shape = tuple(module.pretrained_cfg["input_size"])
    return _converted(module, shape, _name_of(wanted))


def _from_transformers(name: str, role: str) -> keras.Model:
    transformers = _package("transformers", name, role)
    wanted = name.removeprefix(TRANSFORMERS)
    with _download(name, role):
        module = transformers.AutoModel.from_pretrained(wanted)
    module.config.use_cache = False
    return _converted(module, _example(module), _name_of(wanted))


def _converted(module: Any, example: Any, name: str) -> keras.Model:
    # The rules are imported when a network needs them.
    from keras_cascade.networks.pytorch import from_torch

    return from_torch(module, example, name=name)


def call_for(module: Any) -> str:
    """Returns the call that makes a network of a module, for errors.

    The example is told by the module's configuration, or by the first layer
    that has a size: images by a convolution, vectors by a linear layer.
    """
    example = _shape_of(module) or "example"
    return f"kc.from_torch({type(module).__name__.lower()}, {example})"


def _shape_of(module: Any) -> tuple[int, ...] | None:
    config = getattr(module, "pretrained_cfg", None) or {}
    if "input_size" in config:
        return tuple(config["input_size"])
    for part in module.modules():
        if hasattr(part, "in_channels") and hasattr(part, "kernel_size"):
            sizes = [224] * len(part.kernel_size)
            return (part.in_channels, *sizes)
        if hasattr(part, "in_features"):
            return (part.in_features,)
        if hasattr(part, "num_embeddings"):
            return None
    return None


def _example(module: Any) -> dict[str, Any]:
    """Returns what a model of transformers is called with, by its config."""
    config = module.config
    if module.main_input_name == "pixel_values":
        size = getattr(config, "image_size", 224)
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": (config.num_channels, height, width)}
    if module.main_input_name == "input_ids":
        length = min(
            _LENGTH, getattr(config, "max_position_embeddings", _LENGTH)
        )
        ids = np.arange(2 * length).reshape(2, length) % config.vocab_size
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    raise ValueError(
        f"A {type(module).__name__} is called with '{module.main_input_name}', "
        "the shape of which its config does not say: load it and pass "
        "kc.from_torch(model, example)."
    )


def _scaling(mean: Any, std: Any) -> Scaling | None:
    if mean is None or std is None:
        return None
    scale = tuple(1 / (255 * x) for x in std)
    offset = tuple(-m / s for m, s in zip(mean, std, strict=True))
    text = f"pixels / 255, less {_short(mean)}, by {_short(std)}"
    return Scaling(text, scale, offset)


def _short(values: Any) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _name_of(wanted: str) -> str:
    stem = Path(wanted.rpartition(":")[2]).name
    return "".join(x if x.isalnum() or x in "_-" else "_" for x in stem)


def _package(package: str, name: str, role: str) -> ModuleType:
    try:
        if package == "timm":
            import timm as found
        else:
            import transformers as found
    except ImportError as error:
        raise ImportError(
            f"{role}='{name}' is a network of {package}, which is not "
            'installed. Run: pip install "keras_cascade[torch-hub]"'
        ) from error
    return found


def _download(name: str, role: str) -> Download:
    return Download(
        f"{role}='{name}'",
        "Load the network yourself and pass kc.from_torch(module, example).",
    )
