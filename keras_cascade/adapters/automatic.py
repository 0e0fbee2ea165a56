"""The table of automatic adapters: what takes one shape to another."""

import math
from collections.abc import Callable

import keras

from keras_cascade.adapters.dense import DenseAdapter
from keras_cascade.adapters.pooling import Shape, channel_axis
from keras_cascade.adapters.spatial import SpatialAdapter
from keras_cascade.adapters.tokens import TokenAdapter

KINDS = {1: "vector", 2: "sequence", 3: "map", 4: "volume"}


def automatic_adapter(
    shape: Shape,
    target: Shape | None,
    *,
    name: str,
    target_name: str,
    data_format: str = "channels_last",
    masked: bool = False,
) -> keras.Layer | None:
    """The adapter for features of one shape that go where another is expected.

    - To a vector: maps and volumes are averaged over their positions,
      sequences over the steps that are not masked, then a dense layer. A
      sequence may be one of time steps, whose first tells nothing, so a class
      token is not assumed: `TokenAdapter("vector", class_token=True)` is for
      those.
    - To a map: a map is resized and projected; tokens are laid out on the
      target's own grid if they fill it, else on their square, less a class
      token where one is over, and then go as a map; a vector is spread over
      the positions by a dense layer.
    - To a sequence: a map's positions become steps, a sequence's steps are
      resampled, each projected; a vector becomes all steps by a dense layer.

    Args:
        shape: Of the features, without the batch.
        target: What is expected, without the batch. A size that is open there
            (None) is left as it is. Without a target, None, features become
            vectors of whatever width they have.
        name: What has these features, for errors.
        target_name: What expects others, for errors.
        data_format: Where maps have their channels. Defaults to
            `"channels_last"`.
        masked: Whether a sequence comes with a mask. Defaults to `False`.

    Returns:
        The adapter, not built; None where the shapes go together as they are.

    Raises:
        ValueError: If there is no sensible one.

    Example:
    >>> found = automatic_adapter(
    ...     (7, 7, 64), (14, 14, 32), name="tap", target_name="expert"
    ... )
    >>> found.size, found.channels
    ((14, 14), 32)
    """
    if target is not None and _fits(shape, target):
        return None
    axis = channel_axis(len(shape) + 1, data_format) - 1
    if not shape or shape[axis] is None:
        problem = "it has no known number of features"
    elif target is None or target == (None,):
        if len(shape) in KINDS:
            return _pooling(len(shape), data_format)
        problem = "it is neither vector, sequence, map nor volume"
        target = (None,)
    else:
        rules = {1: _to_vector, 2: _to_sequence, 3: _to_map}
        rule = rules.get(len(target), _to_anything_else)
        found = rule(shape, target, data_format, masked)
        if not isinstance(found, str):
            return found
        problem = found
    raise ValueError(_message(shape, target, name, target_name, problem))


def _message(
    shape: Shape,
    target: Shape | None,
    name: str,
    target_name: str,
    problem: str,
) -> str:
    if target in (None, (None,)):
        what = f"makes a vector of '{name}' {shape}"
    else:
        what = (
            f"takes '{name}' {shape} to {target}, which '{target_name}' expects"
        )
    return (
        f"No automatic adapter {what}: {problem}. Give it a layer that does, "
        f"adapters={{'{name}': layer}}."
    )


def _fits(shape: Shape, target: Shape) -> bool:
    return len(shape) == len(target) and all(
        want in (None, size) for size, want in zip(shape, target, strict=True)
    )


def _pooling(rank: int, data_format: str) -> keras.Layer | None:
    """The mean over all positions, with nothing to learn."""
    kinds: dict[int, Callable[..., keras.Layer]] = {
        3: keras.layers.GlobalAveragePooling2D,
        4: keras.layers.GlobalAveragePooling3D,
    }
    if rank == 1:
        return None
    if rank == 2:
        return keras.layers.GlobalAveragePooling1D(data_format="channels_last")
    return kinds[rank](data_format=data_format)


# Each gives the adapter, or why there is none.
_Found = keras.Layer | str


def _to_vector(
    shape: Shape, target: Shape, data_format: str, masked: bool
) -> _Found:
    if len(shape) not in KINDS:
        return "it is neither vector, sequence, map nor volume"
    return DenseAdapter(target[0], data_format=data_format)


def _to_sequence(
    shape: Shape, target: Shape, data_format: str, masked: bool
) -> _Found:
    steps, features = target
    if len(shape) > 3:
        return f"there is no rule from a {_kind(shape)} to a sequence"
    if len(shape) == 1 and None in target:
        return "a vector becomes a sequence of known length and width only"
    # The number of positions is what flattening gives, if there are as many.
    return TokenAdapter(
        "sequence",
        size=steps,
        channels=_other(features, _channels(shape, data_format)),
        class_token=False,
        data_format=data_format,
    )


def _to_map(
    shape: Shape, target: Shape, data_format: str, masked: bool
) -> _Found:
    size, channels = _split(target, data_format)
    if len(shape) == 1:
        if None in target:
            return "a vector becomes a map of known size only"
        return SpatialAdapter(size, channels, data_format=data_format)
    if len(shape) == 2:
        return _tokens_to_map(shape, target, data_format, masked)
    if len(shape) > 3:
        return f"there is no rule from a {_kind(shape)} to a map"
    channels = _other(channels, _channels(shape, data_format))
    return SpatialAdapter(size, channels, data_format=data_format)


def _tokens_to_map(
    shape: Shape, target: Shape, data_format: str, masked: bool
) -> _Found:
    size, channels = _split(target, data_format)
    if masked:
        return "its steps are masked, and a padded sequence fills no grid"
    if shape[0] is None:
        return "without a known number of steps it has no grid"
    found = _grid(shape[0], size)
    if found is None:
        return (
            f"its {shape[0]} steps, or one less, fill neither the positions "
            "of the target nor a square; TokenAdapter('map', grid=(height, "
            "width)) lays them out otherwise"
        )
    grid, class_token = found
    return TokenAdapter(
        "map",
        size=size,
        channels=_other(channels, shape[1]),
        class_token=class_token,
        grid=grid,
        data_format=data_format,
    )


def _to_anything_else(
    shape: Shape, target: Shape, data_format: str, masked: bool
) -> _Found:
    return f"there is no rule from a {_kind(shape)} to a {_kind(target)}"


def _grid(
    steps: int, size: Shape
) -> tuple[tuple[int | None, ...], bool] | None:
    """The grid that tokens fill, and whether one is over."""
    for tokens, over in ((steps, False), (steps - 1, True)):
        if None not in size and tokens == math.prod(n or 0 for n in size):
            return size, over
        side = math.isqrt(tokens)
        if tokens and side * side == tokens:
            return (side, side), over
    return None


def _split(target: Shape, data_format: str) -> tuple[Shape, int | None]:
    """A map's height and width, and its channels."""
    if data_format == "channels_first":
        return target[1:], target[0]
    return target[:-1], target[-1]


def _channels(shape: Shape, data_format: str) -> int | None:
    return shape[channel_axis(len(shape) + 1, data_format) - 1]


def _other(wanted: int | None, given: int | None) -> int | None:
    """The width to project to; None where it is already right.

    A projection that changes no width would still train, but nothing asks
    for it.
    """
    return None if wanted in (None, given) else wanted


def _kind(shape: Shape) -> str:
    return KINDS.get(len(shape), f"tensor of {len(shape)} axes")
