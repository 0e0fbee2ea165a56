"""Decides what stands behind each tap: fixed, automatic, of settled width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade._messages import listed
from keras_cascade.adapters.adapter import Adapter
from keras_cascade.adapters.automatic import automatic_adapter
from keras_cascade.adapters.pooling import Shape, channel_axis
from keras_cascade.graph.layers import call_copy

Tensors = Mapping[str, keras.KerasTensor]


@dataclass(frozen=True)
class Target:
    """What adapted streams go into.

    Attributes:
        name: What it is, for errors: the downstream's name.
        shape: What it expects, without the batch; None where there is none,
            and any width will do.
        concatenated: Whether the streams share its width.
        data_format: Where a map has its channels there; None if nothing says.
    """

    name: str | None = None
    shape: Shape | None = None
    concatenated: bool = True
    data_format: str | None = None

    @property
    def width(self) -> int | None:
        """The number of channels, where that is known."""
        return self.channels_of(self.shape) if self.shape else None

    def narrowed(self, width: int | None) -> Shape | None:
        """The shape, with another number of channels."""
        if self.shape is None or width is None:
            return self.shape
        axis = channel_axis(len(self.shape) + 1, self.data_format) - 1
        return (*self.shape[:axis], width, *self.shape[axis + 1 :])

    def channels_of(self, shape: Shape) -> int | None:
        """The number of channels of a shape without its batch."""
        return shape[channel_axis(len(shape) + 1, self.data_format) - 1]


@dataclass(frozen=True)
class Stream:
    """A tap or extra input on its way to where it goes.

    Attributes:
        name: Its name, which is its adapter's.
        source: The tap or extra input.
        choice: Its adapter: "auto", None, or a layer, of which the cascade
            has a copy.
        target: What it goes into.
        is_extra: Whether it is an extra input: those take their width first.
        labels: The injections that it feeds.
        data_format: Where it has its channels, if it is a map.
    """

    name: str
    source: str
    choice: Any
    target: Target
    is_extra: bool = False
    labels: tuple[str, ...] = ()
    data_format: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether something about its adapter is left to be settled."""
        return self.choice == "auto" or (
            isinstance(self.choice, Adapter) and self.choice.open_width
        )


def adapt_streams(
    streams: Sequence[Stream], inputs: Tensors
) -> dict[str, keras.KerasTensor]:
    """Sends each stream through its adapter.

    Args:
        streams: The taps, then the extra inputs.
        inputs: Their tensors, by the streams' names.

    Returns:
        The adapted streams, in the same order; the tensor itself where
        nothing stands behind it.

    Raises:
        ValueError: If a width is open and nothing settles it, or none is
            left, or there is no automatic adapter between two shapes.
    """
    results = dict(inputs)
    for stream in streams:
        if not stream.is_open:
            results[stream.name] = _called(stream, stream.choice, inputs)
    widths = _open_widths(streams, results)
    for stream in streams:
        if stream.is_open:
            width = widths[stream.name]
            layer = _settled(stream, inputs[stream.name], width)
            results[stream.name] = _called(stream, layer, inputs)
    return {stream.name: results[stream.name] for stream in streams}


def _called(stream: Stream, layer: Any, inputs: Tensors) -> Any:
    tensor = inputs[stream.name]
    return tensor if layer is None else call_copy(layer, stream.name, tensor)


def _open_widths(
    streams: Sequence[Stream], results: Tensors
) -> dict[str, int | None]:
    """The width of each open stream; None where any will do."""
    widths: dict[str, int | None] = {}
    for target in dict.fromkeys(stream.target for stream in streams):
        members = [s for s in streams if s.target == target]
        widths |= _widths_for(target, members, results)
    return widths


def _widths_for(
    target: Target, streams: Sequence[Stream], results: Tensors
) -> dict[str, int | None]:
    waiting = [s.name for s in streams if s.is_open]
    if target.width is None or not waiting:
        return dict.fromkeys(waiting)
    fixed = {
        s.name: target.channels_of(tuple(results[s.name].shape[1:]))
        for s in streams
        if not s.is_open and (target.concatenated or s.is_extra)
    }
    left = target.width - sum(width or 0 for width in fixed.values())
    sharing = len(waiting) if target.concatenated else 1
    if left < sharing:
        taken = " + ".join(f"{w} ('{n}')" for n, w in fixed.items())
        raise ValueError(
            f"Nothing is left for {listed(waiting)}: {taken} of the "
            f"{target.width} features that '{target.name}' expects are taken."
        )
    share, rest = divmod(left, sharing)
    return {
        name: share + (rest if position == 0 else 0)
        for position, name in enumerate(waiting)
    }


def _settled(
    stream: Stream, tensor: keras.KerasTensor, width: int | None
) -> keras.Layer | None:
    """The layer for an open choice, None where the stream passes."""
    if stream.choice != "auto":
        if width is None:
            raise ValueError(
                f"The width of the {type(stream.choice).__name__} of "
                f"'{stream.name}' is open, and there is no downstream whose "
                "width settles it: give it units."
            )
        return stream.choice.with_units(width)
    shape, target = tuple(tensor.shape[1:]), stream.target
    _check_formats(stream, shape)
    return automatic_adapter(
        shape,
        target.narrowed(width),
        name=stream.source,
        target_name=target.name or "",
        data_format=stream.data_format
        or target.data_format
        or keras.config.image_data_format(),
    )


def _check_formats(stream: Stream, shape: tuple) -> None:
    """Maps have to have their channels in one place."""
    target = stream.target
    both = (stream.data_format, target.data_format)
    if (
        len(shape) < 3
        or len(target.shape or ()) < 3
        or None in both
        or both[0] == both[1]
    ):
        return
    order = "(3, 1, 2)" if both[1] == "channels_first" else "(2, 3, 1)"
    raise ValueError(
        f"'{stream.source}' {shape} is a map in '{both[0]}', and "
        f"'{target.name}' expects {target.shape} in '{both[1]}'. Use networks "
        "of one format, or give it a layer that moves the axis, such as "
        f"adapters={{'{stream.source}': keras.layers.Permute({order})}}."
    )
