"""Compares a converted network with its module.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_cascade.networks.pytorch.outputs import named_leaves
from keras_cascade.networks.pytorch.parameters import Weight
from keras_cascade.networks.pytorch.tracing import Example, in_evaluation_mode
from keras_cascade.networks.pytorch.values import Value

if TYPE_CHECKING:
    import torch

# Relative to the spread of the module's output; float32 sums differ by less.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Converted:
    """A network that was made of a module.

    Attributes:
        network: The network.
        weights: Its variables, and the parameters that they hold.
        inputs: The tensors that are the module's arguments, in their order;
            preprocessing lies before them.
        outputs: The network's outputs, by the module's names.
    """

    network: keras.Model
    weights: list[Weight]
    inputs: list[Value]
    outputs: dict[str, Value]

    def without_preprocessing(self) -> keras.Model:
        """Returns the part that does what the module does, with lists."""
        return keras.Model(
            [value.tensor for value in self.inputs],
            [value.tensor for value in self.outputs.values()],
        )


def verify_network(
    converted: Converted, module: "torch.nn.Module", example: Example
) -> None:
    """Raises an error if a network answers otherwise than its module.

    Args:
        converted: The network.
        module: The module, or its exported program.
        example: What to try it on, as two samples and as three.

    Raises:
        ValueError: If an output differs by more than 1e-3 of its spread.
    """
    for batch in (2, 3):
        tried = example.like(batch)
        for name, wrong in differences(converted, module, tried).items():
            if not wrong <= TOLERANCE:
                raise ValueError(
                    f"The network differs from the module in '{name}': by "
                    f"{wrong:.2g} of the spread of the module's output, for "
                    f"{batch} samples. verify=False leaves this check out."
                )


def differences(
    converted: Converted, module: "torch.nn.Module", example: Example
) -> dict[str, float]:
    """Returns by output how far a network is from its module.

    The largest difference, in spreads of the module's output.
    """
    wanted = named_leaves(torch_outputs(module, example))
    found = _keras_outputs(converted, example)
    return {name: _relative(wanted[name], x) for name, x in found.items()}


def torch_outputs(module: "torch.nn.Module", example: Example) -> Any:
    """Returns what a module answers in evaluation mode."""
    import torch

    run = module.module() if hasattr(module, "graph_signature") else module
    context = in_evaluation_mode(module) if run is module else torch.no_grad()
    with context, torch.no_grad():
        return run(*example.args, **example.kwargs)


def _keras_outputs(
    converted: Converted, example: Example
) -> dict[str, np.ndarray]:
    """Returns what a network answers in inference mode, in PyTorch's axes."""
    given = [
        tensor.numpy().transpose(value.order).astype(value.dtype)
        for tensor, value in zip(
            example.tensors(), converted.inputs, strict=True
        )
    ]
    run = converted.without_preprocessing()
    # Keras takes a single tensor out of its list.
    answers = keras.tree.flatten(run(given, training=False))
    return {
        name: np.asarray(keras.ops.convert_to_numpy(answer)).transpose(
            np.argsort(value.order)
        )
        for (name, value), answer in zip(
            converted.outputs.items(), answers, strict=True
        )
    }


def _relative(wanted: "torch.Tensor", found: np.ndarray) -> float:
    array = wanted.numpy().astype("float64")
    return float(np.abs(array - found).max() / (array.std(0).mean() or 1.0))
