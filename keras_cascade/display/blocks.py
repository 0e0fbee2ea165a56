"""Describes the blocks of a cascade in plain values.

Tested by `tests/display/test_inspection.py`.
"""

import math
from collections.abc import Iterable
from typing import Any, cast

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade.adapters.fitting import unfitted
from keras_cascade.graph import low_rank

# A block, or one of its parts, taps or injections, in plain values.
Description = dict[str, Any]


def describe_blocks(cascade: CascadeView) -> list[Description]:
    """Returns an entry for each block of a cascade.

    Returns:
        For each block its name; the network it was made of (name, class,
        preprocessing), with the upstreams that it is if these are several, or
        its parts; its taps and injections; the shapes of
        its outputs, batch included; the number of its parameters and of those
        that train; its LoRA ranks and its learning rates (empty unless the
        cascade is compiled).
    """
    described, counted = [], set()
    for name, block in cascade.blocks.items():
        described.append(_describe(cascade, name, block, counted))
        counted |= {id(variable) for variable in block.weights}
    return described


def count_parameters(variables: Iterable[keras.Variable]) -> int:
    """Returns the number of values in variables."""
    return sum(math.prod(variable.shape) for variable in variables)


def _describe(
    cascade: CascadeView, name: str, block: keras.Model, counted: set[int]
) -> Description:
    """Describes a block; `counted` weights belong to an earlier one."""
    names = cascade.spec.roles.get(name, [name])
    several = [cascade.spec.networks.get(name) for name in names]
    info = several[0]
    own = [v for v in block.weights if id(v) not in counted]
    ranks = (layer.lora_rank for layer in low_rank.low_rank_layers(block))
    return {
        "name": name,
        "network": info.name if info else None,
        "class": info.type if info else None,
        "preprocessing": _joined(x.preprocess for x in several if x),
        "upstreams": list(names) if len(names) > 1 else [],
        "shared": len(own) < len(block.weights),
        "parts": [] if info else _parts(cascade, name, block),
        "taps": _taps(cascade, name),
        "injections": _injections(cascade) if name == "downstream" else [],
        "outputs": _outputs(block),
        "parameters": count_parameters(own),
        "trainable_parameters": count_parameters(
            v for v in block.trainable_variables if id(v) not in counted
        ),
        "lora_ranks": list(dict.fromkeys(ranks)),
        "learning_rates": _rates(cascade, block),
    }


def _joined(texts: Iterable[str]) -> str | None:
    """Returns texts without repetitions as one, or None."""
    return ", ".join(dict.fromkeys(filter(None, texts))) or None


def _parts(
    cascade: CascadeView, name: str, block: keras.Model
) -> list[Description]:
    # A cascade is a keras.Model, which no protocol can express.
    waiting = unfitted(cast(keras.Model, cascade))
    layers = cascade.adapters.values() if name == "adapters" else block.layers
    return [
        {
            "name": layer.name,
            "class": type(layer).__name__,
            "layers": _inner_names(layer) if name == "preprocessing" else [],
            "fitted": (name, layer.name) not in waiting,
        }
        for layer in _without_inputs(layers)
    ]


def _inner_names(layer: keras.Layer) -> list[str]:
    inner = layer.layers if isinstance(layer, keras.Model) else []
    return [x.name for x in _without_inputs(inner)]


def _without_inputs(layers: Iterable[keras.Layer]) -> list[keras.Layer]:
    kind = keras.layers.InputLayer
    return [layer for layer in layers if not isinstance(layer, kind)]


def _taps(cascade: CascadeView, name: str) -> dict[str, str]:
    """Returns the taps of an upstream, without the upstream's name."""
    if name not in cascade.upstreams:
        return {}
    if len(cascade.upstreams) == 1:
        return cascade.taps
    start = f"{name}/"
    return {
        tap: path.removeprefix(start)
        for tap, path in cascade.taps.items()
        if path.startswith(start)
    }


def _injections(cascade: CascadeView) -> list[Description]:
    return [
        {"source": source, **injection.get_config()}
        for source, several in cascade.spec.inject.items()
        for injection in several
    ]


def _outputs(block: keras.Model) -> list[Description]:
    structure = block.output
    named = structure if isinstance(structure, dict) else {}
    pairs = named.items() or [("", tensor) for tensor in block.outputs]
    return [{"name": key, "shape": list(x.shape)} for key, x in pairs]


def _rates(cascade: CascadeView, block: keras.Model) -> list[float]:
    if not cascade.compiled:
        return []
    rates = cascade.learning_rates()
    return list(dict.fromkeys(rates[v.path] for v in block.trainable_variables))
