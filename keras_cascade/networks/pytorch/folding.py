"""Computes at once what depends on constants and sizes alone, with PyTorch.

Masks, positions and the like are built in a module's graph from sizes. What
depends on the batch's size is computed for a batch of 1, and is then the same
for each sample.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from keras_cascade.networks.pytorch.values import Size

if TYPE_CHECKING:
    from torch.fx import Node


def sizes_in(shape: Iterable[Any]) -> tuple[Size, ...]:
    """Returns sizes as numbers, or expressions where they stay free."""
    return tuple(_size(size) for size in shape)


def _size(size: Any) -> Size:
    if isinstance(size, int | float | bool) or size is None:
        return size
    expression = getattr(getattr(size, "node", None), "expr", None)
    if expression is None:
        return size
    return int(expression) if expression.is_Integer else expression


# What takes a tensor for its shape and type alone.
_FILLED = {
    "zeros_like": 0,
    "new_zeros": 0,
    "empty_like": 0,
    "new_empty": 0,
    "ones_like": 1,
    "new_ones": 1,
    "full_like": None,
    "new_full": None,
}


def takes_shapes_only(node: "Node") -> bool:
    """Returns whether a node depends on no tensor's values."""
    return _kind(node) in _FILLED


def fold_filled(node: "Node", batch: Collection[Any]) -> Any:
    """Returns what a node of `takes_shapes_only` gives, for a batch of 1.

    Args:
        node: The node.
        batch: As in `fold`.
    """
    import torch

    example = node.meta["val"]
    number = _FILLED[_kind(node)]
    if number is None:
        number = node.kwargs.get("fill_value", node.args[-1])
    sizes = [_for_one(size, batch) for size in sizes_in(example.shape)]
    return torch.full(sizes, number, dtype=example.dtype)


def _kind(node: "Node") -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]


def fold(node: "Node", args: Any, kwargs: Any, batch: Collection[Any]) -> Any:
    """Returns what a node gives for constants.

    Args:
        node: The node.
        args: Its arguments: constants of PyTorch's, numbers, sizes.
        kwargs: Those by name.
        batch: The symbols that stand for the batch's size.

    Raises:
        ValueError: If it depends on another size that stays free.
    """
    import torch
    from torch.fx.node import map_aggregate

    args, kwargs = map_aggregate((args, kwargs), lambda x: _for_one(x, batch))
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _for_one(x: Any, batch: Collection[Any]) -> Any:
    """Returns a size for a batch of 1."""
    symbols = getattr(x, "free_symbols", None)
    if not symbols:
        return x
    if not symbols.issubset(batch):
        raise ValueError(
            "The module computes a constant of a size that the example leaves "
            "free: give the example with this size, rather than None."
        )
    return int(x.subs(dict.fromkeys(symbols, 1)))
