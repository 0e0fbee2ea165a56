"""The table that `Cascade.summary()` prints."""

from collections.abc import Callable
from typing import Any

import keras

from keras_cascade import _tables
from keras_cascade.training.adaptation import unfitted

COLUMNS = (
    "block",
    "what it is",
    "taps",
    "output",
    "parameters",
    "trainable",
    "learning rate",
)


def print_summary(
    cascade: Any, line_length: int | None, print_fn: Callable | None
) -> None:
    """Prints a row a block, and the sums.

    Args:
        cascade: A `Cascade`.
        line_length: Width in characters; `None` is as wide as needed.
        print_fn: What the text is handed to; `None` prints.
    """
    rows = [_row(cascade, name, b) for name, b in cascade.blocks.items()]
    total = sum(_size(block.weights) for block in cascade.blocks.values())
    trained = _size(cascade.trainable_variables)
    text = _tables.as_text(
        f"Cascade '{cascade.name}'",
        COLUMNS,
        [*rows, ("total", "", "", "", f"{total:,}", f"{trained:,}", "")],
        right=("parameters", "trainable"),
        caption=_caption(cascade),
        width=line_length,
    )
    (print_fn or print)(text)


def _row(cascade: Any, name: str, block: keras.Layer) -> tuple:
    return (
        name,
        _what(cascade, name, block),
        "\n".join(f"{tap}: {path}" for tap, path in cascade.taps.items())
        if name == "upstream"
        else "",
        _outputs(block),
        f"{_size(block.weights):,}",
        f"{_size(block.trainable_variables):,}",
        _rates(cascade, block),
    )


def _what(cascade: Any, name: str, block: keras.Layer) -> str:
    if info := cascade.spec.networks.get(name):
        return f"{info.name} ({info.type})"
    waiting = {path for path in unfitted(cascade) if path[0] == name}
    inner = cascade.adapters.values() if name == "adapters" else block.layers
    return "\n".join(
        f"{layer.name}: {type(layer).__name__}"
        + " (not fitted)" * ((name, layer.name) in waiting)
        for layer in inner
        if not isinstance(layer, keras.layers.InputLayer)
    )


def _outputs(block: keras.Layer) -> str:
    if isinstance(block.output, dict):
        return "\n".join(
            f"{key}: {_tables.shape(x.shape)}"
            for key, x in block.output.items()
        )
    return "\n".join(_tables.shape(x.shape) for x in block.outputs)


def _rates(cascade: Any, block: keras.Layer) -> str:
    if not block.trainable_variables:
        return "frozen" if block.weights else ""
    if not cascade.compiled:
        return "not compiled"
    rates = cascade.learning_rates()
    found = dict.fromkeys(rates[v.path] for v in block.trainable_variables)
    return "\n".join(f"{rate:g}" for rate in found)


def _size(variables: list[keras.Variable]) -> int:
    total = 0
    for variable in variables:
        size = 1
        for dimension in variable.shape:
            size *= dimension
        total += size
    return total


def _caption(cascade: Any) -> str | None:
    if not cascade.spec.started_anew:
        return None
    paths = ", ".join(cascade.spec.started_anew)
    return f"Started anew by rebuild: {paths}"
