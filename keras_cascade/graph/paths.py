"""Selects calls of a network by path patterns.

A pattern is read segment by segment, one for each level of nesting:

=============  ==========================================================
`conv5_out`    the operation of that name
`conv5_*`      a shell glob: every operation whose name matches
`**`           any number of levels
`-1`           operations counted from the end; `-1` is the output
`a..b`         from a to b in topological order, both included; either may
               be left out, and either may be a negative integer
`layer:1`      the second call of a layer that is used more than once
`block.0`      `block-0`, as networks made of PyTorch's have it
=============  ==========================================================
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from keras_cascade._reporting.messages import listed
from keras_cascade.graph.graph import Graph, Node

# The keys of the calls that lead to a call, a level of nesting each.
Address = tuple[str, ...]
# The names of a layer and of the networks that it is in, outermost first.
LayerPath = tuple[str, ...]

# By a graph and a number of segments.
_Found = dict[tuple[int, int], list[Address]]

_GLOB = re.compile(r"[*?\[]")
_INTEGER = re.compile(r"-\d+")
_CALL = re.compile(r":\d+$")


def select(graph: Graph, pattern: str) -> list[Address]:
    """Returns the calls that a pattern selects, in topological order.

    Args:
        graph: The network.
        pattern: A path pattern, without the name of the network itself.

    Returns:
        Their addresses; empty if nothing matches.

    Raises:
        ValueError: If the pattern is malformed, or counts from the end of a
            network that has several outputs.
    """
    if not pattern or "" in pattern.split("/"):
        raise ValueError(
            f"{pattern!r} is no path: a path is 'layer' or "
            "'network/inner_layer', without empty segments."
        )
    return list(_matches(graph, _segments(pattern), {}))


def is_exact(pattern: str) -> bool:
    """Whether a pattern can select one operation only."""
    return not (_GLOB.search(pattern) or ".." in pattern)


def all_addresses(graph: Graph) -> Iterator[Address]:
    """Yields the address of every call, also inside nested networks."""
    return (
        tuple(node.key for node in nodes) for nodes in graph.walk(steps=True)
    )


def names_of(address: Address) -> LayerPath:
    """Returns the path of a layer: its address without numbers of calls."""
    return tuple(_CALL.sub("", key) for key in address)


def _segments(pattern: str) -> list[str]:
    """Returns the segments; of several `**` in a row, one says the same."""
    given = pattern.split("/")
    return [
        segment
        for before, segment in zip(["", *given], given, strict=False)
        if segment != "**" or before != "**"
    ]


def _matches(
    graph: Graph, segments: Sequence[str], found: _Found
) -> list[Address]:
    """Returns the calls of a graph that the last segments of a path select.

    Many ways lead to a call through `**/*/**`: each graph is searched once for
    each number of segments, and `found` has the results.
    """
    key = id(graph), len(segments)
    if key not in found:
        found[key] = list(dict.fromkeys(_search(graph, segments, found)))
    return found[key]


def _search(
    graph: Graph, segments: Sequence[str], found: _Found
) -> Iterator[Address]:
    head, *rest = segments
    if head == "**":
        yield from _search_at_any_depth(graph, rest, found)
        return
    for node in _level(graph, head):
        if not rest:
            yield (node.key,)
        elif node.within is not None:
            for address in _matches(node.within, rest, found):
                yield (node.key, *address)


def _search_at_any_depth(
    graph: Graph, rest: Sequence[str], found: _Found
) -> Iterator[Address]:
    if not rest:
        yield from all_addresses(graph)
        return
    yield from _matches(graph, rest, found)
    for nodes in graph.walk(steps=True):
        if (within := nodes[-1].within) is not None:
            for address in _matches(within, rest, found):
                yield (*(node.key for node in nodes), *address)


def _level(graph: Graph, segment: str) -> Sequence[Node]:
    """Returns the calls of one level that one segment selects."""
    if ".." in segment:
        return _range(graph, *segment.split("..", 1))
    if _INTEGER.fullmatch(segment):
        return _from_the_end(graph, int(segment))
    # Keras on PyTorch refuses a "." in names, so that PyTorch's paths have "-".
    for form in dict.fromkeys((segment, segment.replace(".", "-"))):
        if form in graph.by_key:
            return [graph.by_key[form]]
        found = [
            node
            for node in graph.nodes
            if fnmatchcase(node.key if ":" in form else node.name, form)
        ]
        if found:
            return found
    return []


def _from_the_end(graph: Graph, position: int) -> list[Node]:
    if position != -1:
        found = -position <= len(graph.nodes)
        return [graph.nodes[position]] if found else []
    producers = [graph.sources[id(tensor)][0] for tensor in graph.outputs]
    if len(producers) != 1:
        raise ValueError(
            f"'-1' is the output of a network that has one; '{graph.name}' "
            f"has {len(producers)}. Name one instead: "
            f"{listed(dict.fromkeys(node.key for node in producers))}."
        )
    return producers


def _range(graph: Graph, first: str, last: str) -> Sequence[Node]:
    start = _positions(graph, first) if first else [0]
    stop = _positions(graph, last) if last else [len(graph.nodes) - 1]
    return graph.nodes[min(start) : max(stop) + 1] if start and stop else []


def _positions(graph: Graph, segment: str) -> list[int]:
    if _INTEGER.fullmatch(segment):
        position = len(graph.nodes) + int(segment)
        return [position] if position >= 0 else []
    chosen = {id(node) for node in _level(graph, segment)}
    return [i for i, node in enumerate(graph.nodes) if id(node) in chosen]
