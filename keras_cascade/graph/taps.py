"""Resolves the argument `taps`: paths to the tensors that they select."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import keras

from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.graph import Graph, Reference
from keras_cascade.graph.names import make_identifiers
from keras_cascade.graph.paths import select
from keras_cascade.graph.stages import find_stages
from keras_cascade.graph.tap_objects import paths_for
from keras_cascade.graph.tap_places import (
    Place,
    check_is_tensor,
    find_places,
    path_of,
)
from keras_cascade.networks.named_outputs import output_leaves

OneTap = str | int | keras.Operation | keras.KerasTensor
Taps = OneTap | Sequence[OneTap] | Mapping[str, OneTap] | None


@dataclass(frozen=True)
class Tap:
    """A named intermediate output.

    Attributes:
        name: The user's name for it, an identifier.
        path: Its full path in the network.
        reference: The tensor.
        shape: The shape, with the batch as the first entry.
        dtype: The name of the dtype.
        network: The block of the network that it is in.
    """

    name: str
    path: str
    reference: Reference
    shape: tuple[int | None, ...]
    dtype: str
    network: str = "upstream"


def resolve_all_taps(graphs: Mapping[str, Graph], taps: Taps) -> list[Tap]:
    """Returns the taps that the argument `taps` selects of all upstreams.

    Args:
        graphs: The upstreams by the names of their blocks. The first segment
            of a path names the block; with a single upstream it may be left
            out.
        taps: `None` (every output of every network), a path, a list of paths
            or a mapping `{tap name: path}`. In place of a path may stand a
            number such as `-1`, a layer, or a layer's output tensor.
            `"stages"` are those of each upstream, unless one of them has an
            operation of that name.

    Returns:
        The taps in the order in which they were given.

    Raises:
        ValueError: If a path selects nothing, or names no upstream.
        TypeError: If `taps` is none of these.
    """
    if _are_stages(graphs, taps):
        taps = _all_stages(graphs)
    if len(graphs) == 1:
        ((label, graph),) = graphs.items()
        found = resolve_taps(graph, taps, label)
        return [replace(tap, network=label) for tap in found]
    if taps is None:
        found = [
            tap for label in graphs for tap in _resolve_in(graphs, label, None)
        ]
        return _number_names(found)
    paths: Any = paths_for(graphs, taps)
    check_taps(paths, f"the upstreams {listed(graphs)}")
    if isinstance(paths, Mapping):
        return [_named_in_all(graphs, n, path) for n, path in paths.items()]
    first: dict[tuple[str, Reference], Tap] = {}
    for pattern in _as_list(paths):
        labels, inside = _split(graphs, pattern)
        for label in labels:
            for tap in _resolve_in(graphs, label, [inside]):
                first.setdefault((label, tap.reference), tap)
    return _number_names(list(first.values()))


def resolve_taps(graph: Graph, taps: Taps, label: str) -> list[Tap]:
    """Returns the taps that the argument `taps` selects of one network.

    Args:
        graph: The network.
        taps: `None` (every output), a path, a list of paths or a mapping
            `{tap name: path}`, or what `paths_for` turns into these.
        label: The network's block, "upstream": paths may begin with it, and
            errors name it.

    Returns:
        The taps in the order in which they were given.

    Raises:
        ValueError: If there are none, a path selects nothing or not a single
            tensor, a name is no identifier, or a path in a mapping selects
            several.
    """
    if taps is None:
        return _output_taps(graph)
    paths: Any = paths_for({label: graph}, taps)
    check_taps(paths, f"{label} '{graph.name}'")
    if isinstance(paths, Mapping):
        return [_named(graph, n, path, label) for n, path in paths.items()]
    places = dict.fromkeys(
        place
        for pattern in _as_list(paths)
        for place in find_places(graph, pattern, label)
    )
    return _number_names([_tap(graph, x.name, x, label) for x in places])


def check_taps(taps: object, where: str) -> None:
    """Raises an error if the argument `taps` is of the wrong kind or empty.

    Args:
        taps: The user's argument, unless it is `None`.
        where: The networks that it selects of, for errors.
    """
    if not isinstance(taps, str | Sequence | Mapping):
        raise TypeError(
            "taps must be None, a path, a list of paths or a mapping "
            "{tap name: path}, where a path may be a layer or a layer's "
            f"output instead; received {taps!r}."
        )
    if not taps:
        raise ValueError(
            f"taps={taps!r} selects nothing of {where}. Give a path, a list "
            "of paths, a mapping {tap name: path}, or None for every output."
        )


def _are_stages(graphs: Mapping[str, Graph], taps: object) -> bool:
    is_name = isinstance(taps, str) and taps == "stages"
    return is_name and not any(taps in x.calls for x in graphs.values())


def _all_stages(graphs: Mapping[str, Graph]) -> dict[str, str]:
    """Returns the stages of all, named after their upstreams if several."""
    if len(graphs) == 1:
        (graph,) = graphs.values()
        return dict(find_stages(graph))
    return {
        f"{label}_{name}": f"{label}/{path}"
        for label, graph in graphs.items()
        for name, path in find_stages(graph).items()
    }


def _as_list(taps: str | Sequence[str]) -> Sequence[str]:
    return [taps] if isinstance(taps, str) else taps


def _number_names(taps: Sequence[Tap]) -> list[Tap]:
    """Makes the names identifiers, and numbers those that are equal."""
    names = make_identifiers(tap.name for tap in taps)
    return [replace(t, name=n) for t, n in zip(taps, names, strict=True)]


def _tap(graph: Graph, name: str, place: Place, label: str) -> Tap:
    check_is_tensor(graph, place, label)
    return _tap_at(graph, name, place.path, place.reference)


def _tap_at(graph: Graph, name: str, path: str, reference: Reference) -> Tap:
    tensor = graph.tensor(reference)
    return Tap(name, path, reference, tuple(tensor.shape), tensor.dtype)


def _output_taps(graph: Graph) -> list[Tap]:
    found = []
    for name, tensor in output_leaves(graph.output_structure):
        if isinstance(tensor, keras.KerasTensor):
            reference = graph.reference(tensor)
            path = path_of(graph, reference)
            found.append(_tap_at(graph, name or "output", path, reference))
    return _number_names(found)


def _named(graph: Graph, name: object, pattern: str, label: str) -> Tap:
    """Returns the tap of one entry of a mapping."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"Tap name {name!r} is no identifier: letters, digits and '_', "
            "not beginning with a digit. Weights and losses are named after "
            "it."
        )
    places = find_places(graph, pattern, label)
    if len(places) > 1:
        paths = listed(place.path for place in places[:5])
        raise ValueError(
            f"Tap '{name}': {pattern!r} selects {len(places)} operations in "
            f"{label} '{graph.name}' ({paths}{', ...' * (len(places) > 5)})"
            "; a named tap is one. Spell the path out, or give the pattern in "
            "a list."
        )
    return _tap(graph, name, places[0], label)


def _named_in_all(graphs: Mapping[str, Graph], name: str, path: str) -> Tap:
    """Returns the tap of one entry of a mapping, with several upstreams."""
    labels, inside = _split(graphs, path)
    if len(labels) > 1:
        raise ValueError(
            f"Tap '{name}': {path!r} means {len(labels)} upstreams "
            f"({listed(labels)}); a named tap is one. Name its upstream, or "
            "give the pattern in a list."
        )
    (tap,) = _resolve_in(graphs, labels[0], {name: inside})
    return tap


def _resolve_in(
    graphs: Mapping[str, Graph], label: str, taps: Taps
) -> list[Tap]:
    return [
        replace(tap, network=label, path=f"{label}/{tap.path}")
        for tap in resolve_taps(graphs[label], taps, label)
    ]


def _split(
    graphs: Mapping[str, Graph], pattern: object
) -> tuple[list[str], str]:
    """Returns the upstreams that a pattern means, and the path inside them."""
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
