"""Orders the items of columns and sets their heights in the picture.

Tested by `tests/display/picture/test_ordering.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

# Sweeps that sort items by what they are linked with on one side, and sweeps
# that have them stand straight across from it.
SORTING, STRAIGHTENING = 8, 60


@dataclass(eq=False)
class Item:
    """A box, or the lane of a link through a column.

    Attributes:
        height: Its height.
        y: Its upper edge.
        left: The hops that arrive, each with the height in the item.
        right: The hops that leave.
    """

    height: float
    y: float = 0.0
    left: list[tuple["Item", float, float]] = field(default_factory=list)
    right: list[tuple["Item", float, float]] = field(default_factory=list)


def connect(left: Item, leaving: float, right: Item, entering: float) -> None:
    """Links two items of neighbouring columns at heights in them."""
    left.right.append((right, leaving, entering))
    right.left.append((left, entering, leaving))


def arrange(columns: Sequence[list[Item]], gap: float) -> None:
    """Sorts the items of each column, and sets their `y`.

    The order is the one with the fewest crossings that was found. Items stand
    as straight across from those they are linked with as the others of their
    column allow, and at least a gap apart.
    """
    for column in columns:
        _place(column, [(0.0, 1)] * len(column), gap)
    found = [(_crossings(columns), [list(column) for column in columns])]
    for sweep in range(SORTING):
        side = "right" if sweep % 2 else "left"
        for column in columns[::-1] if sweep % 2 else columns:
            centres = {id(item): _barycentre(item, side) for item in column}
            column.sort(key=lambda x: centres[id(x)])
            _place(column, [_wish(item, (side,)) for item in column], gap)
        order = [list(column) for column in columns]
        found.append((_crossings(columns), order))
    _, best = min(found, key=lambda one: one[0])
    for column, order in zip(columns, best, strict=True):
        column[:] = order
    _straighten(columns, gap)


def _straighten(columns: Sequence[list[Item]], gap: float) -> None:
    for sweep in range(STRAIGHTENING):
        for column in columns[::-1] if sweep % 2 else columns:
            wishes = [_wish(item, ("left", "right")) for item in column]
            _place(column, wishes, gap)
    top = min((item.y for column in columns for item in column), default=0)
    for item in (item for column in columns for item in column):
        item.y -= top


def _crossings(columns: Sequence[list[Item]]) -> int:
    """Returns the number of pairs of hops that cross."""
    count = 0
    for column in columns:
        hops = [
            (item.y + here, other.y + there)
            for item in column
            for other, here, there in item.right
        ]
        count += sum(
            (one[0] - other[0]) * (one[1] - other[1]) < 0
            for one, other in combinations(hops, 2)
        )
    return count


def _barycentre(item: Item, side: str) -> float:
    """Returns the mean height of the ports that an item is linked with."""
    found = [other.y + there for other, _, there in getattr(item, side)]
    return sum(found) / len(found) if found else item.y + item.height / 2


def _wish(item: Item, sides: Sequence[str]) -> tuple[float, int]:
    """Returns where an item's links are straight on average, and their number.

    An item without links wishes to stay.
    """
    found = [
        other.y + there - here
        for side in sides
        for other, here, there in getattr(item, side)
    ]
    return (sum(found) / len(found), len(found)) if found else (item.y, 1)


def _place(
    column: Sequence[Item], wishes: Sequence[tuple[float, int]], gap: float
) -> None:
    """Sets heights near the wishes, in order and a gap apart.

    It is the least squares solution: neighbours that would overlap form a
    group, which stands at the mean of its wishes (isotonic regression).
    """
    groups: list[tuple[float, int, int]] = []  # mean, weight, number of items
    starts, start = [], 0.0
    for item, (height, weight) in zip(column, wishes, strict=True):
        starts.append(start)
        group = (height - start, weight, 1)
        while groups and groups[-1][0] > group[0]:
            group = _joined(groups.pop(), group)
        groups.append(group)
        start += item.height + gap
    means = [mean for mean, _, number in groups for _ in range(number)]
    for item, start, mean in zip(column, starts, means, strict=True):
        item.y = start + mean


def _joined(
    one: tuple[float, int, int], other: tuple[float, int, int]
) -> tuple[float, int, int]:
    weight = one[1] + other[1]
    mean = (one[0] * one[1] + other[0] * other[1]) / weight
    return mean, weight, one[2] + other[2]
