"""PyTorch networks as Keras networks."""

from keras_cascade.networks.pytorch.conversion import from_torch
from keras_cascade.networks.pytorch.registry import register_torch_op

__all__ = ["from_torch", "register_torch_op"]
