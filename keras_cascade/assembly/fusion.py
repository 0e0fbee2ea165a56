"""Merges adapted taps and extra inputs into the downstream's input."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.adapters.fusions import FUSIONS
from keras_cascade.adapters.pooling import channel_axis
from keras_cascade.adapters.size_matching import MatchSize
from keras_cascade.adapters.streams import Target
from keras_cascade.graph.block import Block
from keras_cascade.graph.layers import call_copy
from keras_cascade.graph.tensors import input_like

Tensors = Mapping[str, keras.KerasTensor]
Fusion = str | keras.Layer | None
# Merging layers whose inputs have equal positions.
_SIZED = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Subtract,
)


def fuse(
    taps: Tensors,
    extras: Tensors,
    fusion: Fusion,
    then: Callable[[keras.KerasTensor], Any] | None = None,
    resized: Collection[str] = (),
    data_format: str | None = None,
) -> Any:
    """Merges taps, then concatenates the extra inputs to them.

    Args:
        taps: The adapted taps, in order.
        extras: The extra inputs, in order: concatenated after the merged taps
            whatever the fusion.
        fusion: The name of a merge, or a merging layer, of which the cascade
            gets a copy.
        then: A function that is applied to the result inside the block.
            Defaults to `None`.
        resized: The streams that are resized to the positions of the first
            when the model runs. Defaults to `()`.
        data_format: Where maps have their channels. Defaults to `None`.

    Returns:
        The merged tensor, or the result of `then`.

    Raises:
        ValueError: If shapes do not fit together.
    """
    streams = {**taps, **extras}
    # A block that does nothing would only be one more level of nesting.
    if len(streams) == 1 and then is None:
        return next(iter(streams.values()))
    inputs = [input_like(x, f"{name}_input") for name, x in streams.items()]
    sized = {
        name: MatchSize(data_format, dtype=x.dtype, name=f"{name}_size")(
            [x, inputs[0]]
        )
        if name in resized
        else x
        for name, x in zip(streams, inputs, strict=True)
    }
    taps, extras = ({n: sized[n] for n in group} for group in (taps, extras))
    axis = _channel_axis(inputs[0], data_format)
    _check_shapes(taps, extras, fusion, axis)
    merged = _merge([*taps.values()], fusion, axis)
    if extras:
        joined = [*merged, *extras.values()]
        merged = [keras.layers.Concatenate(axis, name="extra_inputs")(joined)]
    result = then(merged[0]) if then else merged[0]
    return Block(inputs, result, name="fusion")(list(streams.values()))


def _channel_axis(x: keras.KerasTensor, data_format: str | None) -> int:
    rank = len(x.shape)
    axis = channel_axis(rank, data_format)
    return axis if axis < rank - 1 else -1


def needs_one_size(fusion: Fusion) -> bool:
    """Whether a fusion merges tensors of equal positions only.

    Of other layers than Keras's it is not known.
    """
    if isinstance(fusion, keras.layers.Concatenate):
        return fusion.axis == -1
    return isinstance(fusion, (str, *_SIZED))


def check_width(
    fused: keras.KerasTensor,
    taps: Tensors,
    extras: Tensors,
    fusion: Fusion,
    target: Target,
) -> None:
    """Raises a ValueError with the sum if widths do not fit the target."""
    given, wanted = tuple(fused.shape[1:]), target.shape or ()
    if len(given) == len(wanted) and all(
        None in pair or pair[0] == pair[1]
        for pair in zip(given, wanted, strict=True)
    ):
        return
    if len(given) != 1 or len(wanted) != 1:
        raise ValueError(
            f"The features have shape {given}, '{target.name}' expects "
            f"{wanted}. Give the taps adapters that bring them there."
        )
    merged = [*taps.values()] if fusion == "concat" else [*taps.values()][:1]
    widths = [x.shape[-1] for x in (*merged, *extras.values())]
    total = " + ".join(map(str, widths))
    total += f" = {given[0]}" if len(widths) > 1 else " features"
    raise ValueError(
        f"Widths do not fit: {total}, '{target.name}' expects {wanted[0]} "
        f"({listed([*taps, *extras])} by fusion='{fusion}'). Change an "
        "adapter's width, or leave one open with adapters={tap: 'auto'}."
    )


def _merge(
    inputs: list[keras.KerasTensor], fusion: Fusion, axis: int
) -> list[keras.KerasTensor]:
    if len(inputs) < 2:
        return inputs
    if isinstance(fusion, keras.Layer):
        return [_merge_by_layer(inputs, fusion)]
    if fusion is None:
        raise ValueError(
            f"fusion=None merges nothing, and there are {len(inputs)} streams "
            "for one input. Give a fusion."
        )
    arguments = {"axis": axis} if fusion == "concat" else {}
    return [FUSIONS[fusion](name=fusion, **arguments)(inputs)]


def _merge_by_layer(
    inputs: list[keras.KerasTensor], fusion: keras.Layer
) -> keras.KerasTensor:
    try:
        return call_copy(fusion, "merge", inputs)
    except (ValueError, TypeError, RuntimeError) as error:
        shapes = listed(tuple(x.shape[1:]) for x in inputs)
        raise ValueError(
            f"fusion={fusion!r} does not merge features of shapes {shapes}: "
            f"{error}"
        ) from error


def _check_shapes(
    taps: Tensors, extras: Tensors, fusion: Fusion, axis: int
) -> None:
    """Raises an error that names the streams, before a layer raises its own."""
    both = {**taps, **extras}
    free = axis if fusion == "concat" else None
    if isinstance(fusion, str) and len(_shapes(taps, free)) > 1:
        raise ValueError(_mismatch(taps, f"fusion='{fusion}'"))
    if extras and len(_shapes(both, axis)) > 1:
        raise ValueError(
            _mismatch(both, "concatenating the extra inputs")
            + _about_extras(extras)
        )
    for name, x in extras.items():
        if not keras.backend.is_float_dtype(x.dtype):
            raise ValueError(
                f"Extra input '{name}' is {x.dtype}; features are floats. "
                "Give it an adapter, such as keras.layers.CategoryEncoding "
                "or keras.layers.Embedding, or a float dtype."
            )


def _about_extras(extras: Tensors) -> str:
    """Returns what to write for extra inputs that are no vectors."""
    name, x = max(extras.items(), key=lambda one: len(one[1].shape))
    hint = (
        f" An adapter brings an extra input into shape: adapters={{'{name}': "
        "'auto'}."
    )
    sizes = tuple(x.shape[1:])
    if sizes[:1] == (None,):
        hint += (
            f" Or, if {sizes} begins with the batch, leave that out: "
            f"extra_inputs={{'{name}': {sizes[1:]}}}."
        )
    return hint


def _shapes(streams: Tensors, free: int | None) -> set[tuple]:
    """Returns the distinct shapes, without the axis of one that is free."""
    found = set()
    for x in streams.values():
        shape = list(x.shape)
        if free is not None:
            shape[free] = None
        found.add(tuple(shape))
    return found


def _mismatch(streams: Tensors, what: str) -> str:
    shapes = ", ".join(
        f"'{name}' {tuple(x.shape[1:])}" for name, x in streams.items()
    )
    return (
        f"Shapes do not go together for {what}: {shapes}. Give the taps "
        "adapters that bring them to one shape."
    )
