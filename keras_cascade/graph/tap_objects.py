"""Turns what else may name a tap into a path: a number, a layer, a tensor.

Tested by `tests/behaviour/test_mistakes.py`.
"""

from collections.abc import Iterator, Mapping

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.graph.graph import Graph, Node
from keras_cascade.graph.paths import Address
from keras_cascade.graph.tap_places import output_places

_OBJECTS = (int, keras.Operation, keras.KerasTensor)


def paths_for(graphs: Mapping[str, Graph], taps: object) -> object:
    """Returns the argument `taps` with a path in place of each object.

    Args:
        graphs: The upstreams by the names of their blocks.
        taps: The user's argument. `-1` counts from the end of the network, as
            in a path; a layer, or a tensor such as `layer.output`, is one of
            an upstream that was passed in.

    Raises:
        ValueError: If a layer or a tensor is in no upstream, or a layer is
            called several times.
    """
    if isinstance(taps, Mapping):
        return {name: _path_for(graphs, tap) for name, tap in taps.items()}
    if isinstance(taps, list | tuple) and taps:
        return [_path_for(graphs, tap) for tap in taps]
    return _path_for(graphs, taps)


def _path_for(graphs: Mapping[str, Graph], tap: object) -> object:
    if isinstance(tap, bool) or not isinstance(tap, _OBJECTS):
        return tap
    if isinstance(tap, int):
        # There are no numbers from the start.
        return str(tap) if tap < 0 else tap
    places = [
        (label, path)
        for label, graph in graphs.items()
        for path in _places_of(graph, tap)
    ]
    paths = [
        path if len(graphs) == 1 else f"{label}/{path}"
        for label, path in places
    ]
    if len(paths) == 1:
        return paths[0]
    name = f"The tap {tap!r}"
    if paths:
        raise ValueError(
            f"{name} is called {len(paths)} times; say which call by its path: "
            f"{listed(paths)}."
        )
    networks = ", ".join(f"{k} '{graph.name}'" for k, graph in graphs.items())
    raise ValueError(
        f"{name} belongs to none of the networks that were passed in "
        f"({networks}). Take it from the very object that is passed, as in "
        f"network.get_layer(name), or give its path, such as '{tap.name}'."
    )


def _places_of(
    graph: Graph, tap: keras.Operation | keras.KerasTensor
) -> Iterator[str]:
    """Yields the paths of a layer's calls, or the path of a tensor."""
    if isinstance(tap, keras.Operation):
        calls = _walk(graph)
        yield from ("/".join(a) for a, x in calls if x.operation is tap)
        return
    for address, node in _walk(graph):
        for index, tensor in enumerate(node.outputs):
            if tensor is tap:
                several = len(node.outputs) > 1
                place = [*output_places(graph, address)][index]
                yield place.path if several else "/".join(address)


def _walk(graph: Graph) -> Iterator[tuple[Address, Node]]:
    for nodes in graph.walk():
        yield tuple(node.key for node in nodes), nodes[-1]
