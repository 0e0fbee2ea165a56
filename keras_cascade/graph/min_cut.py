"""The cheapest way to cut a network of pipes in two, by Dinic's algorithm."""

from collections import deque
from collections.abc import Hashable

# More than any sum of what pipes can be given.
INFINITE = 2**100


class Pipes:
    """Directed pipes with whole capacities between named nodes."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        # By pipe, each followed by the one back: where to, and what is left.
        self._to: list[int] = []
        self._left: list[int] = []
        self._from: list[list[int]] = []

    def add(self, start: Hashable, end: Hashable, capacity: int) -> None:
        """Adds a pipe.

        Args:
            start: The node where it begins.
            end: The node where it ends.
            capacity: What it takes; `INFINITE` for a pipe never to cut.
        """
        tail, head = self._number(start), self._number(end)
        for node, other, left in ((tail, head, capacity), (head, tail, 0)):
            self._from[node].append(len(self._to))
            self._to.append(other)
            self._left.append(left)

    def cut(self, source: Hashable, sink: Hashable) -> tuple[int, set]:
        """Cuts source from sink, as near to the source as is cheapest.

        Args:
            source: Where all comes from.
            sink: Where all goes.

        Returns:
            What is cut, in capacity, and the nodes on the source's side.

        References:
            Dinic 1970, Algorithm for solution of a problem of maximum flow
            in networks with power estimation.
        """
        start, end = self._number(source), self._number(sink)
        flow = 0
        while (levels := self._levels(start))[end] >= 0:
            places = [0] * len(self._from)
            while pushed := self._push(start, end, levels, places):
                flow += pushed
        # The last levels end where every way to the sink is full.
        before = {n for n, i in self._numbers.items() if levels[i] >= 0}
        return flow, before

    def _number(self, node: Hashable) -> int:
        if node not in self._numbers:
            self._numbers[node] = len(self._numbers)
            self._from.append([])
        return self._numbers[node]

    def _levels(self, start: int) -> list[int]:
        """The distance from the source through pipes that are not full."""
        levels = [-1] * len(self._from)
        levels[start], waiting = 0, deque([start])
        while waiting:
            node = waiting.popleft()
            for pipe in self._from[node]:
                other = self._to[pipe]
                if self._left[pipe] and levels[other] < 0:
                    levels[other] = levels[node] + 1
                    waiting.append(other)
        return levels

    def _push(
        self, start: int, end: int, levels: list[int], places: list[int]
    ) -> int:
        """Fills one way to the sink that gets nearer with every pipe."""
        way: list[int] = []
        node = start
        while node != end:
            pipe = self._onward(node, levels, places)
            if pipe is not None:
                way.append(pipe)
                node = self._to[pipe]
            elif way:
                # A dead end: back, and never again this way.
                node = self._to[way.pop() ^ 1]
                places[node] += 1
            else:
                return 0
        pushed = min(self._left[pipe] for pipe in way)
        for pipe in way:
            self._left[pipe] -= pushed
            self._left[pipe ^ 1] += pushed
        return pushed

    def _onward(
        self, node: int, levels: list[int], places: list[int]
    ) -> int | None:
        pipes = self._from[node]
        while places[node] < len(pipes):
            pipe = pipes[places[node]]
            nearer = levels[self._to[pipe]] == levels[node] + 1
            if self._left[pipe] and nearer:
                return pipe
            places[node] += 1
        return None
