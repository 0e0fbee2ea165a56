"""What stands at the end of a cascade: its outputs."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade.graph.block import Block
from keras_cascade.graph.layers import call_copy
from keras_cascade.graph.names import stable_names
from keras_cascade.graph.tensors import input_like


def attach_head(
    head: Mapping[str, Any],
    features: keras.KerasTensor,
    taps: Mapping[str, keras.KerasTensor],
) -> Any:
    """Puts the head behind the features.

    Args:
        head: Output name to a number of classes or a list of layers; one
            output has the name "".
        features: What the heads read.
        taps: A head under a tap's name reads that tap instead.

    Returns:
        The output, or a dict of the named ones.
    """
    sources = {name: taps.get(name, features) for name in head}
    inputs = {
        name: input_like(x, f"{name or 'head'}_input")
        for name, x in sources.items()
    }
    if list(head) == [""]:
        outputs = _apply(head[""], inputs[""])
    else:
        outputs = {
            name: _named_output(name, head[name], x)
            for name, x in inputs.items()
        }
    block = Block(list(inputs.values()), outputs, name="head")
    return block(list(sources.values()))


def _named_output(
    name: str, layers: Any, x: keras.KerasTensor
) -> keras.KerasTensor:
    """A head of its own, so that layers of equal names do not meet."""
    inner = input_like(x, "features")
    return Block(inner, _apply(layers, inner), name=name)(x)


def _apply(layers: Any, x: keras.KerasTensor) -> Any:
    if isinstance(layers, int):
        return _classifier(layers, x)
    names = stable_names(layers)
    for layer in layers:
        x = call_copy(layer, names[id(layer)], x)
    return x


def _classifier(units: int, x: keras.KerasTensor) -> keras.KerasTensor:
    """Pooled to a vector, Dense, softmax; a sigmoid for one unit."""
    pools = {
        3: keras.layers.GlobalAveragePooling1D,
        4: keras.layers.GlobalAveragePooling2D,
        5: keras.layers.GlobalAveragePooling3D,
    }
    if len(x.shape) in pools:
        x = pools[len(x.shape)](name="pool")(x)
    activation = "sigmoid" if units == 1 else "softmax"
    return keras.layers.Dense(units, activation, name="dense")(x)
