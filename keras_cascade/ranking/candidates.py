"""Finds the taps to rank, and what each of them costs.

Tested by `tests/ranking/test_rank.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes  # noqa: F401, which teaches NumPy the name of bfloat16
import numpy as np

from keras_cascade.graph.flops import Costs
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.graph.tap_listing import list_taps
from keras_cascade.graph.taps import Tap, Taps, resolve_all_taps
from keras_cascade.networks.loading import as_network, load_network
from keras_cascade.planning.arguments import Network

# Pooling makes vectors of sequences, maps and volumes.
_RANKS = range(2, 6)


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks whose taps are ranked, by the names of their blocks.

    Attributes:
        given: The networks, as the user passed them.
        several: Whether paths begin with the name of a network.
    """

    given: Mapping[str, Network]
    several: bool

    @classmethod
    def of(cls, network: Network | Mapping[str, Network]) -> "Networks":
        """Returns the networks in the argument `network` of `rank_taps`.

        Raises:
            ValueError: If it is an empty mapping.
        """
        if not isinstance(network, Mapping):
            return cls({"upstream": network}, several=False)
        if not network:
            raise ValueError("network={} names no network.")
        # A name for one network is a name for `build_cascade` as well.
        return cls(dict(network), several=len(network) > 1)

    @property
    def as_upstream(self) -> Network | Mapping[str, Network]:
        """The networks as the argument `upstream` of `build_cascade`."""
        return self.given if self.several else next(iter(self.given.values()))

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """The graphs of the networks."""
        models = {
            label: load_network(x, label, weights=False)
            for label, x in self.given.items()
        }
        return {
            label: read_graph(as_network(model, label))
            for label, model in models.items()
        }

    @cached_property
    def costs(self) -> dict[str, Costs]:
        """The costs of the tensors of each network."""
        return {label: Costs(graph) for label, graph in self.graphs.items()}

    @cached_property
    def total_flops(self) -> int | None:
        """The operations of one pass over everything; None if unknown."""
        every = [
            self.costs[label].flops(*map(graph.reference, graph.outputs))
            for label, graph in self.graphs.items()
        ]
        known = [x for x in every if x is not None]
        return sum(known) if len(known) == len(every) else None

    def parameters(self, label: str) -> int:
        """Returns the number of parameters of a network."""
        graph = self.graphs[label]
        references = map(graph.reference, graph.outputs)
        return self.costs[label].parameters(*references)

    def flops(self, taps: Sequence[Tap]) -> int | None:
        """Returns the operations for a sample up to several taps."""
        total = 0
        for label in self.graphs:
            inside = [x.reference for x in taps if x.network == label]
            found = self.costs[label].flops(*inside) if inside else 0
            if found is None:
                return None
            total += found
        return total

    def depth(self, tap: Tap) -> int:
        """Returns the place of a tap's call in the order of its network."""
        graph = self.graphs[tap.network]
        return graph.nodes.index(graph.by_key[str(tap.reference[0])])

    def find(self, taps: Taps) -> list[Tap]:
        """Returns the taps that an argument `taps` selects, to be ranked.

        A pattern selects those that can be ranked: no inputs, no whole
        numbers, nothing that cannot be pooled. What is named must be one.

        Raises:
            ValueError: If nothing is selected, or a named tap cannot be
                ranked.
        """
        is_pattern = isinstance(taps, str) and taps != "stages"
        if is_pattern:
            taps = list(self._paths(str(taps)))
        found = resolve_all_taps(self.graphs, taps)
        usable = [tap for tap in found if not self._why_not(tap)]
        refused = [tap for tap in found if self._why_not(tap)]
        if refused and (not is_pattern or not usable):
            raise ValueError(
                f"Tap '{refused[0].path}' cannot be ranked: "
                f"{self._why_not(refused[0])}. list_taps(network) shows "
                "shapes and dtypes."
            )
        return usable

    def _paths(self, pattern: str) -> Iterator[str]:
        """Yields the paths that a pattern selects in each network."""
        for label, network in self._matching(pattern):
            inside = pattern.removeprefix(f"{label}/")
            for row in list_taps(network, inside):
                yield f"{label}/{row.path}" if self.several else row.path

    def _matching(self, pattern: str) -> list[tuple[str, Network]]:
        """Returns the networks that a pattern names, or else all."""
        named = [
            x for x in self.given.items() if pattern.startswith(x[0] + "/")
        ]
        return named or list(self.given.items())

    def _why_not(self, tap: Tap) -> str:
        graph = self.graphs[tap.network]
        if graph.node(tap.reference[:-1]).is_input:
            return "it is an input"
        if len(tap.shape) not in _RANKS:
            return f"a tensor of shape {tap.shape} is no vector, map or volume"
        if tap.shape[-1] is None:
            return f"its shape {tap.shape} has an open number of features"
        # NumPy has no kind of its own for bfloat16.
        if tap.dtype != "bfloat16" and np.dtype(tap.dtype).kind != "f":
            return f"its values are {tap.dtype}, no floating-point numbers"
        return ""


def bytes_of(tap: Tap) -> int | None:
    """Returns the bytes of a sample in a cache; None if a size is open."""
    sizes = [size for size in tap.shape[1:] if size is not None]
    if len(sizes) < len(tap.shape) - 1:
        return None
    return math.prod(sizes) * np.dtype(tap.dtype).itemsize
