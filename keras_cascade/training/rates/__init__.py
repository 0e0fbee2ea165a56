"""Gives each block of a cascade its own learning rate."""

from keras_cascade.training.rates.layerwise_decay import (
    LayerwiseDecay as LayerwiseDecay,
)
