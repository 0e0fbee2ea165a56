"""The rules, a module a family of operations; importing it fills the table."""

from keras_cascade.networks.pytorch.rules import (
    activations,
    attention,
    convolutions,
    dense,
    elementwise,
    indexing,
    joining,
    normalization,
    placing,
    pooling,
    recurrent,
    reductions,
    resizing,
    shapes,
    sorting,
)

__all__ = [
    "activations",
    "attention",
    "convolutions",
    "dense",
    "elementwise",
    "indexing",
    "joining",
    "normalization",
    "placing",
    "pooling",
    "recurrent",
    "reductions",
    "resizing",
    "shapes",
    "sorting",
]
