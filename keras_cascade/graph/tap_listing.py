"""Lists the tensors of a network that can be tapped.

Tested by `tests/graph/test_taps.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from keras_cascade._reporting import tables
from keras_cascade.graph.flops import Costs
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.tap_places import (
    Place,
    find_places,
    named_places,
    output_places,
)
from keras_cascade.networks.loading import as_network, load_network


def list_taps(network: keras.Model | str, pattern: str = "**") -> "TapTable":
    """Lists what can be tapped in a network.

    Args:
        network: A built Functional or Sequential model, or any other network
            that `build_cascade` takes; an application that is given by name
            is built without downloading weights.
        pattern: The operations to list, as a path pattern. Defaults to
            `"**"`, all.

    Returns:
        A list of `TapInfo`, which is shown as a table.

    Raises:
        ValueError: If the network has no graph to look into, or the pattern
            selects nothing.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, name="hidden")]
    ... )
    >>> [tap.path for tap in list_taps(network)]
    ['input_layer', 'hidden']
    """
    model = load_network(network, "network", weights=False)
    graph = read_graph(as_network(model, "network"))
    named = list(named_places(graph))
    places = find_places(graph, pattern, "network")
    places = _split(graph, places, named)
    costs, names = Costs(graph), _names_of(named)
    return TapTable(_info(graph, place, costs, names) for place in places)


@dataclass(frozen=True)
class TapInfo:
    """A tensor that can be tapped, and its cost.

    Attributes:
        path: The path in the network.
        shape: The shape, with the batch as the first entry.
        dtype: The name of the dtype.
        layer: The class of the layer or operation.
        parameters: The number of parameters of all layers up to here.
        flops: The floating-point operations for one sample up to here,
            estimated from the shapes; `None` if a size is open.
        names: The names that the network itself has for the tensor, such as
            `P3`; each is a path as well.
    """

    path: str
    shape: tuple[int | None, ...]
    dtype: str
    layer: str
    parameters: int
    flops: int | None
    names: tuple[str, ...] = ()


class TapTable(tables.Tabular, list[TapInfo]):
    """The taps of a network: a list that is shown as a table."""

    def _parts(self) -> list[tables.Part]:
        rows = [
            (
                " = ".join(dict.fromkeys((tap.path, *tap.names))),
                tables.shape(tap.shape),
                tap.dtype,
                tap.layer,
                tables.count(tap.parameters),
                tables.count(tap.flops),
            )
            for tap in self
        ]
        columns = ("path", "shape", "dtype", "layer", "parameters", "FLOPs")
        right = ("parameters", "FLOPs")
        return [tables.Table("Taps", columns, rows, right)]


def _split(
    graph: Graph, places: Sequence[Place], named: Sequence[Place]
) -> list[Place]:
    """Returns a place for each tensor, by its name if the network has one."""
    names = {place.reference: place for place in reversed(named)}
    result: dict[Reference, Place] = {}
    for place in places:
        address = tuple(map(str, place.reference[:-1]))
        several = [] if place.is_tensor else output_places(graph, address)
        for one in several or [place]:
            chosen = place if place.is_tensor else names.get(one.reference, one)
            result.setdefault(one.reference, chosen)
    return list(result.values())


def _names_of(named: Sequence[Place]) -> dict[Reference, list[str]]:
    """Returns the network's own names of each tensor that has some."""
    names: dict[Reference, list[str]] = {}
    for place in named:
        names.setdefault(place.reference, []).append(place.path_by_name)
    return names


def _info(
    graph: Graph,
    place: Place,
    costs: Costs,
    names: Mapping[Reference, Sequence[str]],
) -> TapInfo:
    tensor = graph.tensor(place.reference)
    operation = graph.node(place.reference[:-1]).operation
    own = names.get(place.reference, ())
    return TapInfo(
        path=place.path,
        shape=tuple(tensor.shape),
        dtype=tensor.dtype,
        layer=type(operation).__name__,
        parameters=costs.parameters(place.reference),
        flops=costs.flops(place.reference),
        names=tuple(name for name in own if name != place.path),
    )
