"""Reads the names that a network itself has for tensors.

Tested by `tests/graph/test_taps.py`.
"""

from collections.abc import Mapping

import keras


def named_outputs(network: keras.Model | None) -> dict[str, keras.KerasTensor]:
    """Returns the tensors that a network has names for.

    These are the maps of a feature pyramid in KerasHub's backbones (`P3`), and
    outputs in a dict (`pooled_output`).

    Args:
        network: Any network, or none.

    Returns:
        The tensors by their names; empty for networks that name none.
    """
    return {
        name: tensor
        for attribute in ("output", "pyramid_outputs")
        if isinstance(named := getattr(network, attribute, None), Mapping)
        for name, tensor in named.items()
        if isinstance(name, str) and isinstance(tensor, keras.KerasTensor)
    }
