"""Compares a converted network with its module.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_cascade.networks.pytorch.tracing import Example, in_evaluation_mode

if TYPE_CHECKING:
    import torch

# Relative to the spread of the module's output; float32 sums differ by less.
TOLERANCE = 1e-3


def verify_network(
    network: keras.Model, module: "torch.nn.Module", example: Example
) -> None:
    """Raises an error if a network answers otherwise than its module.

    Args:
        network: The network.
        module: The module, or its exported program.
        example: What to try it on, and on one sample more.

    Raises:
        ValueError: If an output differs by more than 1e-3 of its spread.
    """
    for batch in (2, 3):
        tried = example.like(batch)
        for name, wrong in differences(network, module, tried).items():
            if not wrong <= TOLERANCE:
                raise ValueError(
                    f"The network differs from the module in {name}: by "
                    f"{wrong:.2g} of the spread of the module's output, for "
                    f"{batch} samples. verify=False leaves this check out."
                )


def differences(
    network: keras.Model, module: "torch.nn.Module", example: Example
) -> dict[str, float]:
    """Returns by output how far a network is from its module.

    The largest difference, in spreads of the module's output.
    """
    wanted = _flat(torch_outputs(module, example))
    found = _flat(keras_outputs(network, example))
    pairs = _paired(wanted, found)
    return {name: _relative(x, y) for name, (x, y) in pairs.items()}


def torch_outputs(module: "torch.nn.Module", example: Example) -> Any:
    """Returns what a module answers in evaluation mode."""
    import torch

    run = module.module() if hasattr(module, "graph_signature") else module
    context = in_evaluation_mode(module) if run is module else torch.no_grad()
    with context, torch.no_grad():
        return run(*example.args, **example.kwargs)


def keras_outputs(network: keras.Model, example: Example) -> Any:
    """Returns what a network answers in inference mode."""
    # Not network.inputs, which Keras sorts by name.
    own: Any = network.input
    several = isinstance(own, dict)
    places: list[Any] = list(own.values()) if several else [own]
    given = [
        to_keras_input(tensor, place)
        for tensor, place in zip(example.tensors(), places, strict=True)
    ]
    data = dict(zip(own, given, strict=True)) if several else given[0]
    return network(data, training=False)


def to_keras_input(
    tensor: "torch.Tensor", place: keras.KerasTensor
) -> np.ndarray:
    """Returns a tensor as the network's input wants it."""
    array = tensor.detach().cpu().numpy()
    if array.ndim >= 4 and array.dtype.kind == "f":
        moved = np.moveaxis(array, 1, -1)
        if _fits(moved.shape, place.shape) and not _is_first(place):
            array = moved
    return array.astype(keras.backend.standardize_dtype(place.dtype))


def _is_first(place: keras.KerasTensor) -> bool:
    return keras.config.image_data_format() == "channels_first"


def _fits(shape: tuple[int, ...], place: tuple[int | None, ...]) -> bool:
    return all(p in (None, s) for s, p in zip(shape, place, strict=True))


def _flat(outputs: Any) -> dict[str, np.ndarray]:
    if isinstance(outputs, Mapping):
        items = list(outputs.items())
    elif isinstance(outputs, list | tuple):
        items = [(str(i), x) for i, x in enumerate(outputs)]
    else:
        return {"output": _array(outputs)}
    found = {}
    for key, x in items:
        if x is None:
            continue
        inner = _flat(x)
        for name, array in inner.items():
            found[key if name == "output" else f"{key}_{name}"] = array
    return found


def _array(x: Any) -> np.ndarray:
    if hasattr(x, "detach"):
        return x.detach().cpu().numpy()
    return np.asarray(keras.ops.convert_to_numpy(x))


def _paired(
    wanted: Any, found: Any
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if set(wanted) >= set(found):
        return {name: (wanted[name], found[name]) for name in found}
    return {"output": (next(iter(wanted.values())), next(iter(found.values())))}


def _relative(wanted: np.ndarray, found: np.ndarray) -> float:
    if wanted.shape != found.shape:
        found = np.moveaxis(found, -1, 1)
    difference = np.abs(wanted.astype("float64") - found).max()
    spread = wanted.astype("float64").std(0).mean() or 1.0
    return float(difference / spread)
