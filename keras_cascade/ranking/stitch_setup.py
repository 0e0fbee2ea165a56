"""Settles the networks, taps and entries that are compared.

Tested by `tests/ranking/test_stitching.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade.adapters.fitting import InnerFeatures
from keras_cascade.assembly.targets import values_network
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.taps import Tap, Taps
from keras_cascade.networks.loading import as_network, load_network
from keras_cascade.networks.preprocess_argument import resolve_preprocess
from keras_cascade.planning.arguments import Arguments, Network
from keras_cascade.planning.plan import Plan, make_plan
from keras_cascade.planning.targets import UnfedError, Values, values_at
from keras_cascade.ranking.candidates import Networks
from keras_cascade.ranking.entries import find_entries

# The name of the downstream's output among the entries.
OUTPUT = "output of the downstream"


@dataclass(frozen=True, eq=False)
class Setup:
    """Two networks, and where their features are compared.

    Attributes:
        networks: The upstream and the downstream, by these names.
        preprocess: The preprocessing of each.
        taps: The taps of the upstream.
        entries: The places to enter the downstream.
        formats: The data format at each tap and entry.
    """

    networks: Mapping[str, keras.Model]
    preprocess: Mapping[str, Any]
    taps: Sequence[Tap]
    entries: Sequence[Tap]
    formats: Mapping[str, str | None]

    @property
    def tap_names(self) -> dict[str, str]:
        """The paths of the taps by the names of a cascade's outputs."""
        return {f"tap_{i}": x.path for i, x in enumerate(self.taps)}

    def arguments(self, upstream: keras.Model) -> Arguments:
        """Returns the arguments of a cascade of the features at all taps."""
        return Arguments(
            upstream=upstream,
            taps=self.tap_names,
            adapters=None,
            fusion=None,
            preprocess={"upstream": self.preprocess["upstream"]},
        )

    def path_of(self, name: str) -> str:
        """Returns the path of a tap or an entry."""
        return self.tap_names.get(name, name)


def set_up(
    given: Mapping[str, Network],
    taps: Taps,
    entries: Taps,
    preprocess: object,
) -> tuple[Setup, InnerFeatures]:
    """Returns what is compared, and the model of the downstream's features.

    That takes the inputs of the upstream's cascade, and gives the features at
    each entry and, if it has one output, that.

    Raises:
        ValueError: If the downstream does not take these inputs, or no tap or
            entry is found.
    """
    networks = {
        label: as_network(load_network(x, label), label)
        for label, x in given.items()
    }
    chosen = resolve_preprocess(preprocess, list(given), given, networks)
    upstream = Networks({"upstream": networks["upstream"]}, several=False)
    tapped = upstream.find(taps)
    graph, places = find_entries(networks["downstream"], entries)
    first = upstream.graphs["upstream"]
    formats = {
        f"tap_{i}": data_format_at(first, x.reference)
        for i, x in enumerate(tapped)
    } | {x.path: data_format_at(graph, x.reference) for x in places}
    setup = Setup(networks, chosen, tapped, places, formats)
    plan = make_plan(setup.arguments(networks["upstream"]))
    values = _values(plan, graph, places)
    network = values_network(values, plan.inputs, chosen["downstream"], True)
    return setup, InnerFeatures(network)


def _values(
    plan: Plan, graph: Graph, entries: Sequence[Tap]
) -> dict[str, Values]:
    """Returns the values at each entry, and the downstream's output."""
    wanted = {tap.path: tap.reference for tap in entries}
    if len(graph.outputs) == 1:
        wanted[OUTPUT] = graph.reference(graph.outputs[0])
    try:
        return {
            name: values_at(graph, reference, {}, plan.inputs)
            for name, reference in wanted.items()
        }
    except UnfedError as error:
        raise ValueError(
            f"stitchability runs the downstream '{graph.name}' on the inputs "
            f"of the upstream, and {error} Compare networks that take the "
            "same inputs."
        ) from error
