"""Taps of one network or of several: the first segment names which."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from keras_cascade._messages import closest, listed
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.paths import select
from keras_cascade.graph.taps import (
    Tap,
    Taps,
    check_taps,
    identifiers,
    resolve_taps,
)


def resolve_all_taps(graphs: Mapping[str, Graph], taps: Taps) -> list[Tap]:
    """What the argument `taps` selects.

    Args:
        graphs: The upstreams by the names of their blocks. Taps of a single
            one may leave the name out.
        taps: `None` (every output of every network), a path, a list of paths
            or a mapping `{tap name: path}`.

    Returns:
        The taps in the order in which they were given.

    Raises:
        ValueError: If a path selects nothing, or names no upstream.
        TypeError: If it is none of these.
    """
    if len(graphs) == 1:
        ((label, graph),) = graphs.items()
        return [
            replace(tap, network=label)
            for tap in resolve_taps(graph, taps, label)
        ]
    if taps is None:
        found = [tap for label in graphs for tap in _of(graphs, label, None)]
        return _renamed(found)
    check_taps(taps, f"the upstreams {listed(graphs)}")
    if isinstance(taps, Mapping):
        return [_named(graphs, name, path) for name, path in taps.items()]
    patterns: Sequence[str] = [taps] if isinstance(taps, str) else taps
    found = [tap for p in patterns for tap in _matches(graphs, p)]
    first: dict[tuple, Tap] = {}
    for tap in found:
        first.setdefault((tap.network, tap.reference), tap)
    return _renamed(list(first.values()))


def _named(graphs: Mapping[str, Graph], name: str, path: str) -> Tap:
    """A tap under the user's name: it must be one."""
    labels, inside = _split(graphs, path)
    if len(labels) > 1:
        raise ValueError(
            f"Tap '{name}': {path!r} means {len(labels)} upstreams "
            f"({listed(labels)}); a named tap is one. Name its upstream, or "
            "give the pattern in a list."
        )
    (tap,) = _of(graphs, labels[0], {name: inside})
    return tap


def _matches(graphs: Mapping[str, Graph], pattern: str) -> list[Tap]:
    labels, inside = _split(graphs, pattern)
    return [tap for label in labels for tap in _of(graphs, label, [inside])]


def _of(graphs: Mapping[str, Graph], label: str, taps: Taps) -> list[Tap]:
    return [
        replace(tap, network=label, path=f"{label}/{tap.path}")
        for tap in resolve_taps(graphs[label], taps, label)
    ]


def _split(graphs: Mapping[str, Graph], pattern: str) -> tuple[list[str], str]:
    """The upstreams that a pattern means, and the path inside them."""
    if not isinstance(pattern, str):
        raise ValueError(
            f"A tap is a path as text; received {pattern!r}. With several "
            f"upstreams it begins with one of {listed(graphs)}."
        )
    label, _, inside = pattern.partition("/")
    labels = [name for name in graphs if fnmatchcase(name, label)]
    if labels and inside:
        # A glob may match in some of them only.
        there = [name for name in labels if select(graphs[name], inside)]
        return there or labels[:1], inside
    raise ValueError(
        f"Tap {pattern!r} names no upstream.{closest(label, graphs)} There are "
        f"several, {listed(graphs)}: a path begins with one of them, such as "
        f"'{next(iter(graphs))}/{inside or pattern}'."
    )


def _renamed(taps: Sequence[Tap]) -> list[Tap]:
    """Names numbered where those of two networks are equal."""
    names = identifiers([tap.name for tap in taps])
    return [replace(t, name=n) for t, n in zip(taps, names, strict=True)]
