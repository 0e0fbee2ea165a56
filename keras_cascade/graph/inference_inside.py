"""Runs frozen layers inside composite layers in inference mode.

A composite layer passes its own `training` on to the layers inside it, with
their flags or without a word: in Keras a frozen Dropout in a layer that trains
in part drops.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any

import keras

from keras_cascade import _keras_compat as compat

# Augmentation is data, not weights: no flag turns it off.
AUGMENTATIONS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Rand")  # RandAugment too
    or name in ("AugMix", "CutMix", "MixUp", "Pipeline")
)


def augments(layer: keras.Layer) -> bool:
    """Returns whether a layer is augmentation, or has some inside."""
    return any(isinstance(x, AUGMENTATIONS) for x in compat.sublayers(layer))


def frozen_in_inference_mode(
    layer: keras.Layer,
) -> AbstractContextManager[None]:
    """Has the frozen layers inside a layer run in inference mode.

    Within the context they get `training=False`, whatever the code around
    them passes. Augmentation stays active, and what it is in gets `training`
    to pass it on.

    Args:
        layer: A layer that trains, as a whole or in part, or has augmentation
            inside.
    """
    frozen = _frozen_inside(layer, layer.trainable)
    return compat.with_methods(
        "call",
        ((x, partial(_call_in_inference, x.call)) for x in frozen),
    )


def _frozen_inside(layer: keras.Layer, trains: bool) -> Iterator[keras.Layer]:
    """Yields the layers inside that are frozen, or in one that is."""
    for inner in compat.children(layer):
        inner_trains = trains and inner.trainable
        if (
            not inner_trains
            and takes_training(type(inner).call)
            and not augments(inner)
        ):
            yield inner
        yield from _frozen_inside(inner, inner_trains)


@lru_cache
def takes_training(call: Callable[..., Any]) -> bool:
    """Returns whether the `call` of a layer has an argument for the mode."""
    return "training" in inspect.signature(call).parameters


def _call_in_inference(
    call: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    given = inspect.signature(call).bind(*args, **kwargs)
    given.arguments["training"] = False
    return call(*given.args, **given.kwargs)
