"""Names that a network itself gives to tensors: its pyramid, its outputs."""

from collections.abc import Mapping
from typing import Any

import keras


def named_outputs(network: keras.Model | None) -> dict[str, keras.KerasTensor]:
    """The tensors that a network has names for.

    The maps of a feature pyramid as KerasHub's backbones have it (`P3`), and
    outputs that are given by name (`pooled_output`).

    Args:
        network: Any network, or none.

    Returns:
        Name to tensor; nothing for networks that name nothing.
    """
    output: Any = getattr(network, "output", None)
    pyramid: Any = getattr(network, "pyramid_outputs", None)
    return {
        name: tensor
        for named in (output, pyramid)
        if isinstance(named, Mapping)
        for name, tensor in named.items()
        if isinstance(name, str) and isinstance(tensor, keras.KerasTensor)
    }
