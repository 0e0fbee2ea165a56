"""Streams of features through adapters, whose open widths are settled here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade._keras_compat.annotations import Shape
from keras_cascade._reporting.messages import listed
from keras_cascade.adapters.adapter import Adapter
from keras_cascade.adapters.automatic import automatic_adapter
from keras_cascade.adapters.pooling import channel_axis
from keras_cascade.adapters.stitch import StitchAdapter
from keras_cascade.graph.layers import call_copy

Tensors = Mapping[str, keras.KerasTensor]


@dataclass(frozen=True)
class Target:
    """The place that adapted streams go to.

    Attributes:
        name: The name of the downstream, or of its layer, for errors.
        shape: The expected shape, without the batch; None if any width will
            do.
        concatenated: Whether the streams share the width.
        data_format: Where a map has its channels; None if unknown.
        broadcasts: Whether a vector counts for all positions of a map or
            sequence.
    """

    name: str | None = None
    shape: Shape | None = None
    concatenated: bool = True
    data_format: str | None = None
    broadcasts: bool = False

    @property
    def width(self) -> int | None:
        """The number of channels, if known."""
        return self.channels_of(self.shape) if self.shape else None

    def shape_for(self, given: Shape, width: int | None) -> Shape | None:
        """Returns the shape that features of a shape are brought to.

        `width` takes the place of the number of channels. A vector is spread
        over positions of known number, else it counts for all.
        """
        wanted = self._narrowed(width)
        if wanted is None or not self.broadcasts or len(given) > 1:
            return wanted
        return wanted if None not in wanted else (self.channels_of(wanted),)

    def _narrowed(self, width: int | None) -> Shape | None:
        if self.shape is None or width is None:
            return self.shape
        axis = channel_axis(len(self.shape) + 1, self.data_format) - 1
        return (*self.shape[:axis], width, *self.shape[axis + 1 :])

    def channels_of(self, shape: Shape) -> int | None:
        """Returns the number of channels of a shape without its batch."""
        return shape[channel_axis(len(shape) + 1, self.data_format) - 1]


@dataclass(frozen=True)
class Stream:
    """A tap or extra input on its way through an adapter to a target.

    Attributes:
        name: The name of the stream and of its adapter.
        source: The tap or extra input.
        choice: The adapter: "auto", None, or a layer, of which the cascade
            gets a copy.
        target: The target.
        is_extra: Whether the source is an extra input: those take their width
            first.
        labels: The injections that the stream feeds.
        data_format: Where a map has its channels; None if unknown.
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
        """Whether the adapter or its width is yet to be settled."""
        return self.choice == "auto" or (
            isinstance(self.choice, Adapter) and self.choice.open_width
        )


def adapt_streams(
    streams: Sequence[Stream], inputs: Tensors
) -> dict[str, keras.KerasTensor]:
    """Sends each stream through a copy of its adapter, if it has one.

    Args:
        streams: The taps, then the extra inputs.
        inputs: Their tensors by the streams' names.

    Raises:
        ValueError: If a width is open and nothing settles it, or none is
            left, or there is no automatic adapter between two shapes.
    """
    # Fixed widths first: the open ones share what is left.
    layers = {s.name: s.choice for s in streams if not s.is_open}
    results = _apply(layers, inputs)
    for target in dict.fromkeys(stream.target for stream in streams):
        members = [s for s in streams if s.target == target]
        widths = _open_widths(target, members, results)
        opened = [s for s in members if s.is_open]
        layers = {s.name: _settled(s, inputs, widths[s.name]) for s in opened}
        results |= _apply(layers, inputs)
    return {stream.name: results[stream.name] for stream in streams}


def _apply(
    layers: Mapping[str, keras.Layer | None], inputs: Tensors
) -> dict[str, keras.KerasTensor]:
    return {
        name: inputs[name]
        if layer is None
        else call_copy(layer, name, inputs[name])
        for name, layer in layers.items()
    }


def _open_widths(
    target: Target, streams: Sequence[Stream], results: Tensors
) -> Mapping[str, int | None]:
    """Returns the width of each open stream; None where any will do."""
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
    return dict.fromkeys(waiting, share) | {waiting[0]: share + rest}


def _settled(
    stream: Stream, inputs: Tensors, width: int | None
) -> keras.Layer | None:
    """Returns the layer for an open choice; None if shapes fit as they are."""
    shape = tuple(inputs[stream.name].shape[1:])
    if stream.choice != "auto":
        if width is None:
            raise ValueError(
                f"The width of the {type(stream.choice).__name__} of "
                f"'{stream.name}' is open, and there is no downstream whose "
                "width settles it: give it units."
            )
        return _of_open_width(stream, shape, width)
    target = stream.target
    _check_formats(stream, shape)
    return automatic_adapter(
        shape,
        target.shape_for(shape, width),
        name=stream.source,
        target_name=target.name or "",
        data_format=stream.data_format
        or target.data_format
        or keras.config.image_data_format(),
    )


def _of_open_width(stream: Stream, shape: Shape, width: int) -> keras.Layer:
    wanted = stream.target.shape_for(shape, width)
    if isinstance(stream.choice, StitchAdapter) and wanted is not None:
        return stream.choice.for_values(wanted, stream.target.data_format)
    return stream.choice.with_units(width)


def _check_formats(stream: Stream, shape: Shape) -> None:
    """Raises a ValueError for maps with their channels on different axes."""
    target, wanted = stream.target, stream.target.data_format
    are_maps = len(shape) > 2 and len(target.shape or ()) > 2
    known = stream.data_format is not None and wanted is not None
    if not are_maps or not known or stream.data_format == wanted:
        return
    order = "(3, 1, 2)" if wanted == "channels_first" else "(2, 3, 1)"
    raise ValueError(
        f"'{stream.source}' {shape} is a map in '{stream.data_format}', and "
        f"'{target.name}' expects {target.shape} in '{wanted}'. Use networks "
        "of one format, or give it a layer that moves the axis, such as "
        f"adapters={{'{stream.source}': keras.layers.Permute({order})}}."
    )
