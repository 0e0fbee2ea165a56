"""Finds the layers that the path patterns of a cascade cover.

Tested by `tests/training/test_trainable_flags.py`.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import keras

from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.graph.inner_layers import select_inside
from keras_cascade.graph.paths import LayerPath, names_of, select


class LayerLookup:
    """The layers of a cascade; a path pattern covers all below its matches.

    Attributes:
        cascade: The cascade.
        graph: Its graph, read once.
        layers: Its layers that are no networks, by their paths; a layer that
            networks share by the first. Layers inside these are added when
            a pattern selects them.
        holders: The layers that others are inside, by the paths of those.
    """

    def __init__(self, cascade: CascadeView):
        model = as_model(cascade)
        self.cascade = cascade
        # The names in a cascade are stable already: no need to number them.
        self.graph = read_graph(model, keep_names=True)
        self._by_network = _by_network(self.graph, cascade.spec.roles)
        self._blocks = {
            name: block
            for block, names in cascade.spec.roles.items()
            for name in names
        }
        self.layers: dict[LayerPath, keras.Layer] = {}
        self.holders: dict[LayerPath, keras.Layer] = {}
        self._first_paths: dict[LayerPath, LayerPath] = {}
        known: dict[int, LayerPath] = {}
        for path, layer in leaf_layers(model):
            if not isinstance(layer, keras.layers.InputLayer):
                first = known.setdefault(id(layer), path)
                self._first_paths[path] = first
                self.layers[first] = layer

    def covered(
        self, pattern: str, argument: str, inside: bool = True
    ) -> list[LayerPath]:
        """Returns the layers that a pattern covers.

        Raises a ValueError that names the `argument` if there are none.

        Args:
            pattern: The pattern.
            argument: The argument that it is from, for the error.
            inside: Whether it may select layers inside composite layers.
                Defaults to `True`.
        """
        found = {
            names_of(address)
            for one in self._for_each_upstream(pattern)
            for address in (*select(self.graph, one), *self._select(one))
        }
        covered = dict.fromkeys(
            first
            for path, first in self._first_paths.items()
            if any(path[: len(match)] == match for match in found)
        )
        if inside:
            covered |= dict.fromkeys(self._inside(pattern, covered))
        if not covered:
            raise ValueError(self._nothing_found(pattern, argument))
        return list(covered)

    def operations(self, pattern: str) -> list[keras.Operation]:
        """Returns the operations and networks that a pattern selects."""
        by_graph = [
            graph.node(address).operation
            for one in self._for_each_upstream(pattern)
            for graph in (self.graph, self._by_network)
            for address in select(graph, one)
        ]
        return list({id(x): x for x in by_graph}.values())

    def _inside(
        self, pattern: str, covered: Container[LayerPath]
    ) -> list[LayerPath]:
        """Adds the layers inside others that a pattern selects."""
        whole = {p: x for p, x in self.layers.items() if p not in self.holders}
        found = [
            one
            for upstream in self._for_each_upstream(pattern)
            for one in select_inside(whole, upstream)
            if one[1] not in covered
        ]
        for path, outer, layer in found:
            self.layers[path] = layer
            self.holders[path] = whole[outer]
            self._first_paths[path] = path
        return [path for path, _, _ in found]

    def covered_by_any(
        self, patterns: str | Iterable[str], argument: str
    ) -> list[LayerPath]:
        """Returns the layers that one pattern, or any of a list, covers."""
        several = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(several, list | tuple) or not several:
            raise TypeError(
                f"{argument} must be a path pattern or a list of them, such "
                f"as 'upstream/conv*'; received {patterns!r}."
            )
        for pattern in several:
            if not isinstance(pattern, str):
                raise TypeError(
                    f"{argument} names {pattern!r}; a path pattern is text, "
                    "such as 'upstream/conv*'."
                )
        found = [path for p in several for path in self.covered(p, argument)]
        return list(dict.fromkeys(found))

    def deciding_patterns(
        self, patterns: Iterable[str], argument: str, inside: bool = True
    ) -> dict[LayerPath, str]:
        """Returns for each covered layer the last pattern that covers it."""
        deciding = {}
        for pattern in patterns:
            paths = self.covered(pattern, argument, inside)
            deciding |= dict.fromkeys(paths, pattern)
        return deciding

    def check_none_overridden(
        self,
        patterns: Iterable[str],
        deciding: Mapping[LayerPath, str],
        argument: str,
    ) -> None:
        """Raises a ValueError for a pattern that decides for no layer."""
        for pattern in patterns:
            if pattern not in deciding.values():
                paths = self.covered(pattern, argument)
                later = {deciding[path] for path in paths}
                raise ValueError(overridden(argument, pattern, later))

    def _for_each_upstream(self, pattern: str) -> list[str]:
        """Returns `NAME/conv` for each upstream in place of `upstream/conv`."""
        first, slash, inside = pattern.partition("/")
        upstreams = self.cascade.upstreams
        if first != "upstream" or first in upstreams:
            return [pattern]
        return [f"{name}{slash}{inside}" for name in upstreams]

    def _select(self, pattern: str) -> Iterator[LayerPath]:
        """Yields what a pattern selects by the names of the networks."""
        for first, *inside in select(self._by_network, pattern):
            yield (self._blocks.get(first, first), *inside)

    def _nothing_found(self, pattern: str, argument: str) -> str:
        paths = [
            "/".join(path[:length])
            for path in self.layers
            for length in range(1, len(path) + 1)
        ]
        blocks = dict.fromkeys(path[0] for path in self.layers)
        names = [name for name in self._blocks if name not in blocks]
        return (
            f"{argument} names '{pattern}', which matches nothing in the "
            f"cascade.{closest(pattern, paths)} A path begins with a block: "
            f"{listed([*blocks, *names])}."
        )


def overridden(argument: str, pattern: str, later: Iterable[str]) -> str:
    """Returns the error message for a pattern that has no effect."""
    return (
        f"{argument}: '{pattern}' changes nothing, as the later "
        f"{listed(sorted(later))} overrides it everywhere. Put the general "
        "pattern first, or drop it."
    )


def _by_network(graph: Graph, roles: Mapping[str, Sequence[str]]) -> Graph:
    """Returns a cascade's graph in which calls have their network's name."""
    nodes, called = [], Counter()
    for node in graph.nodes:
        if len(names := roles.get(node.name, ())) > 1:
            name = names[called[node.name]]
            called[node.name] += 1
            node = replace(node, key=name, name=name)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def operations_by_path(
    graph: Graph, prefix: LayerPath = ()
) -> dict[LayerPath, keras.Operation]:
    """Returns the operations of a graph that are no networks."""
    found: dict[LayerPath, keras.Operation] = {}
    for node in graph.nodes:
        path = (*prefix, node.name)
        if node.inner is None:
            found[path] = node.operation
        else:
            found |= operations_by_path(node.inner, path)
    return found
