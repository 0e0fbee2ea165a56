"""Layers that turn a tap into features that fit where they go."""

from keras_cascade.adapters.adapter import Adapter
from keras_cascade.adapters.dense import DenseAdapter
from keras_cascade.adapters.label_map import LabelMapAdapter
from keras_cascade.adapters.logits import LogitsAdapter
from keras_cascade.adapters.pca import PCAAdapter
from keras_cascade.adapters.spatial import SpatialAdapter
from keras_cascade.adapters.stitch import StitchAdapter
from keras_cascade.adapters.tokens import TokenAdapter

__all__ = [
    "Adapter",
    "DenseAdapter",
    "LabelMapAdapter",
    "LogitsAdapter",
    "PCAAdapter",
    "SpatialAdapter",
    "StitchAdapter",
    "TokenAdapter",
]


def __dir__() -> list[str]:
    """Returns the public adapters, for completion."""
    return __all__
