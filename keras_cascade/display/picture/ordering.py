"""Orders the items of columns and sets their heights in the picture.

Tested by `tests/display/picture/test_ordering.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

# Each sweep has the items follow those that they are linked with: at first on
# one side, which sorts them, then on both.
ONE_SIDED, SWEEPS = 6, 60


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

    Items stand as straight across from those they are linked with as the
    others of their column allow, and at least a gap apart.
    """
    for column in columns:
        _place(column, [(0.0, 1)] * len(column), gap)
    for sweep in range(SWEEPS):
        both = sweep >= ONE_SIDED
        order = columns if sweep % 2 == 0 else columns[::-1]
        for column in order:
            sides = ("left", "right") if both else _side(sweep)
            wishes = {id(item): _wish(item, sides) for item in column}
            column.sort(key=lambda x: wishes[id(x)][0] + x.height / 2)
            _place(column, [wishes[id(x)] for x in column], gap)
    top = min((item.y for column in columns for item in column), default=0)
    for column in columns:
        for item in column:
            item.y -= top


def _side(sweep: int) -> tuple[str]:
    return ("left",) if sweep % 2 == 0 else ("right",)


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
