"""Attaches the head, which gives the outputs of a cascade."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_cascade.adapters.pooling import MEANS
from keras_cascade.graph.block import Block
from keras_cascade.graph.layers import call_copy
from keras_cascade.graph.names import (
    make_identifiers,
    numbered_name,
    stable_names,
)
from keras_cascade.graph.tensors import input_like

# A number of classes, or layers in order, of which a number may be the last.
Head = int | Sequence[keras.Layer | int]


def attach_head(
    head: Mapping[str, Head] | None,
    features: Any,
    taps: Mapping[str, keras.KerasTensor],
    keep: bool = False,
) -> Any:
    """Applies the head to the features.

    Args:
        head: The heads by the names of their outputs; the name of a single
            one is "". None is no head.
        features: The input of the heads: a tensor, or all outputs of a
            network.
        taps: A head under a tap's name reads that tap instead.
        keep: Whether features that no head reads stay outputs, as those of a
            downstream do. Defaults to `False`.

    Returns:
        The output, or a dict of the named ones.

    Raises:
        ValueError: If a head would have to read several tensors.
    """
    if head is None:
        return features
    reads_features = any(name not in taps for name in head)
    if reads_features and not isinstance(features, keras.KerasTensor):
        outputs = ", ".join(x.name for x in keras.tree.flatten(features))
        raise ValueError(
            f"A head reads one output; there are several: {outputs}. Name "
            "heads after taps to read those."
        )
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
    if not keep or reads_features:
        return results
    return {**_by_name(features, results), **results}


def _by_name(features: Any, taken: Mapping[str, object]) -> dict[str, Any]:
    """Returns the outputs of a network by their keys, else as `output`."""
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
                "head. Give the tap that the head reads another name."
            )
    return named


def _named_output(
    name: str, head: Head, x: keras.KerasTensor
) -> keras.KerasTensor:
    # In a block of its own, as layers of two heads may have equal names.
    inner = input_like(x, "features")
    return Block(inner, _apply(head, inner), name=name)(x)


def _apply(head: Head, x: keras.KerasTensor) -> Any:
    steps = [head] if isinstance(head, int) else head
    layers = [step for step in steps if isinstance(step, keras.Layer)]
    names = stable_names(layers)
    for layer in layers:
        x = call_copy(layer, names[id(layer)], x)
    units = steps[-1]
    return _classifier(units, x, names) if isinstance(units, int) else x


def _classifier(
    units: int, x: keras.KerasTensor, taken: Mapping[int, str]
) -> keras.KerasTensor:
    """Pools to a vector; then Dense with softmax, or sigmoid for one unit."""
    names = set(taken.values())
    if len(x.shape) in MEANS:
        x = MEANS[len(x.shape)](name=numbered_name("pool", names))(x)
    activation = "sigmoid" if units == 1 else "softmax"
    name = numbered_name("dense", names)
    return keras.layers.Dense(units, activation, name=name)(x)
