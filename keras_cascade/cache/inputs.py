"""The inputs of a cascade by their names, as its layers take them."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade.graph.program import Port, as_program


def input_ports(model: keras.Model) -> tuple[Port, ...]:
    """The inputs of a functional model, in their order.

    Args:
        model: The model.
    """
    return as_program(model).inputs


def leaves_by_name(
    x: Any, structure: Any, ports: Sequence[Port]
) -> dict[str, np.ndarray]:
    """What each input gets, as it was passed.

    Args:
        x: The inputs of a batch, or of all samples.
        structure: The structure of the cascade's inputs.
        ports: Its inputs, in their order.

    Raises:
        ValueError: If there is not one array for each input.
    """
    names = [port.name for port in ports]
    if isinstance(x, Mapping):
        keys = (
            [path[-1] for path, _ in keras.tree.flatten_with_path(structure)]
            if isinstance(structure, Mapping)
            else names
        )
        missing = [key for key in keys if key not in x]
        if missing:
            raise ValueError(
                f"The data lacks the inputs {missing}: it has {list(x)}, the "
                f"cascade takes {list(keys)}."
            )
        return {n: x[k] for n, k in zip(names, keys, strict=True)}
    leaves = keras.tree.flatten(x)
    if len(leaves) != len(names):
        raise ValueError(
            f"The data has {len(leaves)} inputs, the cascade takes "
            f"{len(names)}: {names}. Pass a dict with an array for each."
        )
    return dict(zip(names, leaves, strict=True))


def as_taken(array: np.ndarray, port: Port) -> np.ndarray:
    """An array in the rank and dtype in which a Functional hands it on.

    Args:
        array: What an input is given.
        port: The input.
    """
    rank = len(port.shape)
    if array.ndim == rank + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    elif array.ndim == rank - 1 and port.shape[-1] == 1:
        array = array[..., None]
    return array.astype(port.dtype, copy=False)
