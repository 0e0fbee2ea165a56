"""Which layers and variables the path patterns of a cascade mean."""

from collections.abc import Iterable

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade._messages import closest
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.paths import LayerPath, names_of, select


class LayerLookup:
    """Looks path patterns up in a cascade: they cover all below a match.

    Args:
        cascade: The cascade, whose layers and nesting are read once.
    """

    def __init__(self, cascade: CascadeView):
        self._graph = read_graph(cascade, keep_names=True)
        self.upstreams = list(cascade.upstreams)
        self.layers: dict[LayerPath, keras.Layer] = {
            path: layer
            for path, layer in leaf_layers(cascade)
            if not isinstance(layer, keras.layers.InputLayer)
        }

    def covered(self, pattern: str, argument: str) -> list[LayerPath]:
        """The layers that a pattern covers.

        Args:
            pattern: A path pattern that begins with a block.
            argument: The argument that it stands in, for errors.

        Raises:
            ValueError: If it matches nothing.
        """
        found = {
            names_of(address)
            for spelt in self._spelt_out(pattern)
            for address in select(self._graph, spelt)
        }
        covered = [
            path
            for path in self.layers
            if any(path[: len(match)] == match for match in found)
        ]
        if not covered:
            raise ValueError(self._nothing_found(pattern, argument))
        return covered

    def deciding_patterns(
        self, patterns: Iterable[str], argument: str
    ) -> dict[LayerPath, str]:
        """The pattern that counts for each layer: the last that covers it."""
        owners = {}
        for pattern in patterns:
            owners |= dict.fromkeys(self.covered(pattern, argument), pattern)
        return owners

    def _spelt_out(self, pattern: str) -> list[str]:
        """`upstream/conv` for each upstream, where they have other names."""
        first, slash, inside = pattern.partition("/")
        if first != "upstream" or first in self.upstreams:
            return [pattern]
        return [f"{name}{slash}{inside}" for name in self.upstreams]

    def _nothing_found(self, pattern: str, argument: str) -> str:
        paths = [
            "/".join(path[:length])
            for path in self.layers
            for length in range(1, len(path) + 1)
        ]
        blocks = ", ".join(f"'{path[0]}'" for path in self._blocks())
        return (
            f"{argument} names '{pattern}', which matches nothing in the "
            f"cascade.{closest(pattern, paths)} A path begins with a block: "
            f"{blocks}."
        )

    def _blocks(self) -> list[LayerPath]:
        return list(dict.fromkeys(path[:1] for path in self.layers))
