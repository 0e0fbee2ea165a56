"""Divides a network into the stretches between its taps and injections.

Tested by `tests/display/picture/test_stretches.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from keras_cascade.display.picture.diagram import Port, Row
from keras_cascade.display.picture.leaves import Leaf
from keras_cascade.display.picture.text import stretch_lines
from keras_cascade.display.picture.weights import joined_state, state_of

# A network that freezes and trains by turns more often than this is shown as
# one that trains in part.
MAX_TURNS = 3


@dataclass(frozen=True)
class Entry:
    """Features that enter a network, or an input of its own.

    Attributes:
        key: The port at which they enter.
        inputs: The positions of the network's inputs that they feed.
        merge: The merge and its place, as text; empty for an own input.
        layers: The beginning of the names of the layers that merge.
    """

    key: str
    inputs: frozenset[int]
    merge: str = ""
    layers: str = ""

    def is_merging(self, leaf: Leaf) -> bool:
        """Returns whether a leaf is one of the layers that merge."""
        return bool(self.merge) and leaf.path[-1].startswith(self.layers)

    def start(self, leaves: Sequence[Leaf]) -> int:
        """Returns the position of the first leaf that reads or merges."""
        found = (
            number
            for number, leaf in enumerate(leaves)
            if self.inputs & leaf.inputs or self.is_merging(leaf)
        )
        return next(found, 0)


@dataclass(frozen=True)
class Exit:
    """An output of a network: the path of its leaf, and its port."""

    path: tuple[str, ...]
    port: Port

    def end(self, leaves: Sequence[Leaf]) -> int:
        """Returns the position of the leaf; 0 for an input passed on."""
        found = (i for i, leaf in enumerate(leaves) if leaf.path == self.path)
        return next(found, 0)


def divide(
    leaves: Sequence[Leaf], entries: Sequence[Entry], exits: Sequence[Exit]
) -> tuple[Row, ...]:
    """Returns the rows of a network: its stretches, and merges between them.

    Args:
        leaves: The leaves of the network, in topological order.
        entries: The features and inputs that enter it.
        exits: Its outputs. A stretch ends at each.
    """
    starts = {entry: entry.start(leaves) for entry in entries}
    ends = {one: one.end(leaves) for one in exits}
    merges = [entry for entry in entries if entry.merge]
    own = [
        leaf
        for leaf in leaves
        if not any(entry.is_merging(leaf) for entry in merges)
    ]
    cuts = {0, len(leaves), *(end + 1 for end in ends.values())}
    cuts |= {starts[entry] for entry in merges}
    cuts |= {leaves.index(leaf) for leaf in _turns(own)}
    rows: list[Row] = []
    for start, end in pairwise(sorted(cuts | {max(1, len(leaves))})):
        inside = range(start, end)
        rows += (
            Row((x.merge,), style="merge", entering=(x.key,))
            for x in merges
            if starts[x] in inside
        )
        stretch = [leaf for leaf in leaves[start:end] if leaf in own]
        row = Row(
            _names(stretch),
            joined_state(state_of(leaf.operation) for leaf in stretch),
            entering=tuple(
                x.key for x in entries if not x.merge and starts[x] in inside
            ),
            leaving=tuple(x.port for x in exits if ends[x] in inside),
        )
        rows += _placed(row, rows)
    return tuple(rows)


def _placed(row: Row, above: list[Row]) -> Iterator[Row]:
    """Yields a row; the ports of one without own layers go to that above."""
    if row.lines or not above:
        yield replace(row, lines=row.lines or ("identity",))
    else:
        last = above.pop()
        yield replace(
            last,
            entering=last.entering + row.entering,
            leaving=last.leaving + row.leaving,
        )


def _names(stretch: Sequence[Leaf]) -> tuple[str, ...]:
    if not stretch:
        return ()
    ends = ("/".join(leaf.path) for leaf in (stretch[0], stretch[-1]))
    return stretch_lines(*ends)


def _turns(leaves: Sequence[Leaf]) -> list[Leaf]:
    """Returns the leaves from which on weights train otherwise, if few."""
    weighted = [leaf for leaf in leaves if state_of(leaf.operation)]
    turns = [
        after
        for before, after in pairwise(weighted)
        if state_of(before.operation) != state_of(after.operation)
    ]
    return turns if len(turns) <= MAX_TURNS else []
