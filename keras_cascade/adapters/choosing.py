"""Decides what stands behind each tap, and makes the block of adapters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade.adapters.adapter import Adapter
from keras_cascade.adapters.dense import DenseAdapter
from keras_cascade.graph.block import Block
from keras_cascade.graph.layers import call_copy
from keras_cascade.graph.tensors import input_like

Streams = Mapping[str, keras.KerasTensor]


@dataclass(frozen=True)
class Target:
    """What the adapted streams go into.

    Attributes:
        name: The name of the downstream network, for errors.
        shape: What it expects, without the batch; None where there is none,
            and any width will do.
        concatenated: Whether the streams share its width.
    """

    name: str | None = None
    shape: tuple[int | None, ...] | None = None
    concatenated: bool = True

    @property
    def width(self) -> int | None:
        """The width of a vector, where that is what goes in."""
        if self.shape is None or len(self.shape) != 1:
            return None
        return self.shape[0]


def adapt_streams(
    streams: Streams,
    extras: Iterable[str],
    choices: Mapping[str, Any],
    target: Target,
) -> dict[str, keras.KerasTensor]:
    """Sends each tap and extra input through its adapter.

    Args:
        streams: The taps, then the extra inputs.
        extras: Which of them are extra inputs: they take their width first.
        choices: The adapter of each: "auto", None or a layer, of which the
            cascade has a copy.
        target: What they go into.

    Returns:
        The adapted streams, in the same order.

    Raises:
        ValueError: If a width is open and nothing settles it, or none is
            left, or there is no automatic adapter between two shapes.
    """
    inputs = _inputs(streams)
    results, layers = dict(inputs), dict(choices)
    for name in streams:
        if not _is_open(layers[name]) and layers[name] is not None:
            results[name] = call_copy(layers[name], name, inputs[name])
    open_names = [name for name in streams if _is_open(layers[name])]
    widths = _open_widths(open_names, results, list(extras), target)
    for name in open_names:
        layer = _settled(name, layers[name], inputs[name], widths[name], target)
        layers[name] = layer
        if layer is not None:
            results[name] = call_copy(layer, name, inputs[name])
    return _through_block(streams, inputs, results)


def _inputs(streams: Streams) -> dict[str, keras.KerasTensor]:
    """Inputs whose names are none of an adapter's."""
    inputs = {}
    for name, tensor in streams.items():
        input_name = f"{name}_input"
        while input_name in streams:
            input_name += "_"
        inputs[name] = input_like(tensor, input_name)
    return inputs


def _is_open(choice: Any) -> bool:
    return choice == "auto" or (
        isinstance(choice, Adapter) and choice.open_width
    )


def _open_widths(
    open_names: list[str], results: Streams, extras: list[str], target: Target
) -> dict[str, int | None]:
    """The width of each open stream; None where any will do."""
    if target.width is None or not open_names:
        return dict.fromkeys(open_names)
    fixed = {
        name: x.shape[-1]
        for name, x in results.items()
        if name not in open_names and (target.concatenated or name in extras)
    }
    left = target.width - sum(width or 0 for width in fixed.values())
    sharing = len(open_names) if target.concatenated else 1
    if left < sharing:
        taken = " + ".join(f"{w} ('{n}')" for n, w in fixed.items())
        raise ValueError(
            f"Nothing is left for {_listed(open_names)}: {taken} of the "
            f"{target.width} features that '{target.name}' expects are taken."
        )
    share, rest = divmod(left, sharing)
    return {
        name: share + (rest if position == 0 else 0)
        for position, name in enumerate(open_names)
    }


def _settled(
    name: str,
    choice: Any,
    tensor: keras.KerasTensor,
    width: int | None,
    target: Target,
) -> keras.Layer | None:
    """The layer for an open choice, None where the stream passes."""
    if choice != "auto":
        if width is None:
            raise ValueError(
                f"The width of the {type(choice).__name__} of '{name}' is "
                "open, and there is no downstream whose input is a vector to "
                "settle it: give it units."
            )
        return choice.with_units(width)
    shape = tuple(tensor.shape[1:])
    if target.shape is None:
        return _pooling(name, shape)
    if shape == ((width,) if target.width else target.shape):
        return None
    if target.width is None:
        raise ValueError(
            f"No automatic adapter takes '{name}' {shape} to the input "
            f"{target.shape} of '{target.name}'. Give it a layer that does, "
            f"adapters={{'{name}': layer}}."
        )
    return DenseAdapter(width)


def _pooling(name: str, shape: tuple) -> keras.Layer | None:
    """What makes a vector of a tap where any width will do."""
    pools = {
        2: keras.layers.GlobalAveragePooling1D,
        3: keras.layers.GlobalAveragePooling2D,
        4: keras.layers.GlobalAveragePooling3D,
    }
    if len(shape) == 1:
        return None
    if len(shape) not in pools:
        raise ValueError(
            f"No automatic adapter makes a vector of '{name}' {shape}. Give "
            f"it a layer that does, adapters={{'{name}': layer}}."
        )
    return pools[len(shape)]()


def _through_block(
    streams: Streams, inputs: Streams, results: Streams
) -> dict[str, keras.KerasTensor]:
    adapted = [name for name in streams if results[name] is not inputs[name]]
    if not adapted:
        return dict(streams)
    block = Block(
        [inputs[name] for name in adapted],
        {name: results[name] for name in adapted},
        name="adapters",
    )
    outputs = block([streams[name] for name in adapted])
    return {name: outputs.get(name, streams[name]) for name in streams}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
