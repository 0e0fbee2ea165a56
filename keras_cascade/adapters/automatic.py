"""The table of automatic adapters: from one shape to another."""

import math
from dataclasses import dataclass

import keras

from keras_cascade._keras_compat.annotations import Shape
from keras_cascade.adapters.dense import DenseAdapter
from keras_cascade.adapters.pooling import MEANS, channel_axis
from keras_cascade.adapters.spatial import SpatialAdapter
from keras_cascade.adapters.tokens import TokenAdapter

KINDS = {1: "vector", 2: "sequence", 3: "map", 4: "volume"}
_NO_KIND = "it is neither vector, sequence, map nor volume"


def automatic_adapter(
    shape: Shape,
    target: Shape | None,
    *,
    name: str,
    target_name: str,
    data_format: str = "channels_last",
    masked: bool = False,
) -> keras.Layer | None:
    """Returns the adapter from features of one shape to another shape.

    - To a vector: maps and volumes are averaged over their positions,
      sequences over the steps that are not masked, then a dense layer. No
      class token is assumed, as a sequence may be one of time steps:
      `TokenAdapter("vector", class_token=True)` picks one.
    - To a map: a map is resized and projected; tokens are laid out on the
      target's own grid if they fill it, else on their square, without the
      class token if they are one too many, and then go as a map; a vector is
      spread over the positions by a dense layer.
    - To a sequence: a map's positions become steps, a sequence's steps are
      resampled, each projected; a vector becomes all steps by a dense layer.

    Args:
        shape: The shape of the features, without the batch.
        target: The expected shape, without the batch. A size that is open
            there (None) is left as it is. Without a target, None, features
            become vectors of their own width.
        name: The name of the features, for errors.
        target_name: The name of the network that expects others, for errors.
        data_format: Where maps have their channels. Defaults to
            `"channels_last"`.
        masked: Whether a sequence comes with a mask. Defaults to `False`.

    Returns:
        The adapter, not built; None if the shapes already fit.

    Raises:
        ValueError: If there is no sensible adapter.

    Example:
    >>> found = automatic_adapter(
    ...     (7, 7, 64), (14, 14, 32), name="tap", target_name="expert"
    ... )
    >>> found.size, found.channels
    ((14, 14), 32)
    """
    # A layer that changes no shape would train, but nothing asks for one.
    if target is not None and _fits(shape, target):
        return None
    axis = channel_axis(len(shape) + 1, data_format) - 1
    if not shape or shape[axis] is None:
        found = "it has no known number of features"
    elif target is None or target == (None,):
        found = _pooling(len(shape), data_format)
    else:
        found = _Case(shape, target, data_format, masked).adapter()
    if not isinstance(found, str):
        return found
    if target in (None, (None,)):
        what = f"makes a vector of '{name}' {shape}"
    else:
        what = (
            f"takes '{name}' {shape} to {target}, which '{target_name}' expects"
        )
    raise ValueError(
        f"No automatic adapter {what}: {found}. Give it a layer that does, "
        f"adapters={{'{name}': layer}}."
    )


def _fits(shape: Shape, target: Shape) -> bool:
    return len(shape) == len(target) and all(
        want in (None, size) for size, want in zip(shape, target, strict=True)
    )


def _pooling(rank: int, data_format: str) -> keras.Layer | str | None:
    """Returns the mean over all positions, with nothing to learn."""
    if rank not in KINDS:
        return _NO_KIND
    if rank == 1:
        return None
    # A sequence has its features last in either format.
    data_format = "channels_last" if rank == 2 else data_format
    return MEANS[rank + 1](data_format=data_format)


@dataclass(frozen=True)
class _Case:
    """Features and a target of another shape, which has at least one axis.

    Each rule returns the adapter, or why there is none.
    """

    shape: Shape
    target: Shape
    data_format: str
    masked: bool

    def adapter(self) -> keras.Layer | str:
        """Returns the adapter by the rule for the target's rank."""
        rules = {1: self._to_vector, 2: self._to_sequence, 3: self._to_map}
        return rules.get(len(self.target), self._no_rule)()

    def _no_rule(self) -> str:
        kinds = [
            KINDS.get(len(shape), f"tensor of {len(shape)} axes")
            for shape in (self.shape, self.target)
        ]
        return f"there is no rule from a {kinds[0]} to a {kinds[1]}"

    def _to_vector(self) -> keras.Layer | str:
        if len(self.shape) not in KINDS:
            return _NO_KIND
        return DenseAdapter(self.target[0], data_format=self.data_format)

    def _to_sequence(self) -> keras.Layer | str:
        steps, features = self.target
        if len(self.shape) > 3:
            return self._no_rule()
        if len(self.shape) == 1 and None in self.target:
            return "a vector becomes a sequence of known length and width only"
        # `size` is no change where flattening gives as many positions.
        return TokenAdapter(
            "sequence",
            size=steps,
            channels=self._projected(features),
            class_token=False,
            data_format=self.data_format,
        )

    def _to_map(self) -> keras.Layer | str:
        rank = len(self.shape)
        if rank == 1 and None in self.target:
            return "a vector becomes a map of known size only"
        if rank == 2:
            return self._tokens_to_map()
        if rank > 3:
            return self._no_rule()
        size, channels = self._size_and_channels()
        return SpatialAdapter(
            size, self._projected(channels), data_format=self.data_format
        )

    def _tokens_to_map(self) -> keras.Layer | str:
        steps = self.shape[0]
        if self.masked:
            return "its steps are masked, and a padded sequence fills no grid"
        if steps is None:
            return "without a known number of steps it has no grid"
        size, channels = self._size_and_channels()
        found = _grid(steps, size)
        if found is None:
            return (
                f"its {steps} steps, or one less, fill neither the positions "
                "of the target nor a square; TokenAdapter('map', "
                "grid=(height, width)) lays them out otherwise"
            )
        grid, class_token = found
        return TokenAdapter(
            "map",
            size=size,
            channels=self._projected(channels),
            class_token=class_token,
            grid=grid,
            data_format=self.data_format,
        )

    def _size_and_channels(self) -> tuple[Shape, int | None]:
        if self.data_format == "channels_first":
            return self.target[1:], self.target[0]
        return self.target[:-1], self.target[-1]

    def _projected(self, width: int | None) -> int | None:
        """Returns the width to project to; None for no projection."""
        if len(self.shape) == 1:
            return width  # positions are made of it, whatever its width
        axis = channel_axis(len(self.shape) + 1, self.data_format) - 1
        return None if width == self.shape[axis] else width


def _grid(steps: int, size: Shape) -> tuple[tuple[int, ...], bool] | None:
    """Returns the grid that tokens fill, and whether one is a class token."""
    known = tuple(n for n in size if n is not None)
    for tokens, class_token in ((steps, False), (steps - 1, True)):
        if len(known) == len(size) and tokens == math.prod(known):
            return known, class_token
        side = math.isqrt(tokens)
        if tokens and side * side == tokens:
            return (side, side), class_token
    return None
