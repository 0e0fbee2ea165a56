"""What the blocks of a cascade are, in plain values."""

from typing import Any

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade.adapters.fitting import unfitted
from keras_cascade.graph import low_rank


def describe_blocks(cascade: CascadeView) -> list[dict[str, Any]]:
    """An entry a block.

    Args:
        cascade: A `Cascade`.

    Returns:
        For each block its name, the network that it was (name, class and
        what is done to its input) or its parts, what is read of it, what
        enters it, the shapes that it gives, batch included, its parameters,
        how many of them train, the ranks of its low-rank updates, and at
        which rates (none: not compiled).
    """
    return [_block(cascade, name, b) for name, b in cascade.blocks.items()]


def parameters(variables: list[keras.Variable]) -> int:
    """The number of values in variables."""
    total = 0
    for variable in variables:
        size = 1
        for dimension in variable.shape:
            size *= dimension
        total += size
    return total


def _block(cascade: CascadeView, name: str, block: Any) -> dict[str, Any]:
    info = cascade.spec.networks.get(name)
    return {
        "name": name,
        "network": info.name if info else None,
        "class": info.type if info else None,
        "preprocessing": (info.preprocess or None) if info else None,
        "parts": [] if info else _parts(cascade, name, block),
        "taps": _taps(cascade, name),
        "injections": _injections(cascade) if name == "downstream" else [],
        "outputs": _outputs(block),
        "parameters": parameters(block.weights),
        "trainable_parameters": parameters(block.trainable_variables),
        "lora_ranks": _ranks(block),
        "learning_rates": _rates(cascade, block),
    }


def _parts(cascade: CascadeView, name: str, block: Any) -> list[dict[str, Any]]:
    waiting = {path for path in unfitted(cascade) if path[0] == name}
    layers = cascade.adapters.values() if name == "adapters" else block.layers
    return [
        {
            "name": layer.name,
            "class": type(layer).__name__,
            "layers": _inner(layer) if name == "preprocessing" else [],
            "fitted": (name, layer.name) not in waiting,
        }
        for layer in layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def _inner(layer: keras.Layer) -> list[str]:
    inner = layer.layers if isinstance(layer, keras.Model) else []
    kinds = keras.layers.InputLayer
    return [x.name for x in inner if not isinstance(x, kinds)]


def _taps(cascade: CascadeView, name: str) -> dict[str, str]:
    """What is read of a network."""
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


def _injections(cascade: CascadeView) -> list[dict[str, Any]]:
    """What enters the downstream's inner layers."""
    return [
        {"source": source, **injection.get_config()}
        for source, several in cascade.spec.inject.items()
        for injection in several
    ]


def _outputs(block: Any) -> list[dict[str, Any]]:
    named = (
        block.output.items()
        if isinstance(block.output, dict)
        else [("", x) for x in block.outputs]
    )
    return [{"name": key, "shape": list(x.shape)} for key, x in named]


def _ranks(block: Any) -> list[int]:
    found = low_rank.low_rank_layers(block)
    return list(dict.fromkeys(layer.lora_rank for layer in found))


def _rates(cascade: CascadeView, block: Any) -> list[float]:
    if not cascade.compiled:
        return []
    rates = cascade.learning_rates()
    found = (rates[v.path] for v in block.trainable_variables)
    return list(dict.fromkeys(found))
