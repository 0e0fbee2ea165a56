"""What stands at the end of a cascade: its outputs."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade.graph.block import Block
from keras_cascade.graph.layers import call_copy
from keras_cascade.graph.names import make_identifiers, stable_names
from keras_cascade.graph.tensors import input_like


def attach_head(
    head: Mapping[str, Any] | None,
    features: Any,
    taps: Mapping[str, keras.KerasTensor],
    keep: bool = False,
) -> Any:
    """Puts the head behind the features.

    Args:
        head: Output name to a number of classes or a list of layers; one
            output has the name "". None is no head.
        features: What the heads read: a tensor, or all outputs of a network.
        taps: A head under a tap's name reads that tap instead.
        keep: Whether the features stay outputs where no head reads them, as
            a downstream's do. Defaults to `False`.

    Returns:
        The output, or a dict of the named ones.

    Raises:
        ValueError: If a head would have to read several tensors.
    """
    if head is None:
        return features
    if not all(name in taps for name in head):
        _check_one(features)
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
    results = block(list(sources.values()))
    if not keep or any(name not in taps for name in head):
        return results
    return {**_by_name(features, results), **results}


def _check_one(features: Any) -> None:
    if not isinstance(features, keras.KerasTensor):
        outputs = ", ".join(x.name for x in keras.tree.flatten(features))
        raise ValueError(
            f"A head stands behind one output; there are several: {outputs}. "
            "Name heads after taps to read those."
        )


def _by_name(features: Any, taken: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a network by their keys, else `output`."""
    if isinstance(features, Mapping):
        named = dict(features)
    else:
        flat = keras.tree.flatten(features)
        names = make_identifiers(["output"] * len(flat))
        named = dict(zip(names, flat, strict=True))
    for name in named:
        if name in taken:
            raise ValueError(
                f"Two outputs are called '{name}': one of the network and a "
                "head. Call the tap that the head reads otherwise."
            )
    return named


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
