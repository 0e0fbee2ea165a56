"""Checks that injections lead forward, from an upstream to the downstream.

Tested by `tests/planning/test_wiring.py`.
"""

from collections.abc import Mapping, Sequence

from keras_cascade.graph.graph import Graph
from keras_cascade.graph.insertion import Insertion, inject
from keras_cascade.graph.paths import Address, select
from keras_cascade.graph.pruning import find_needed
from keras_cascade.graph.taps import Tap
from keras_cascade.injection.arguments import Injection


def check_direction(
    injections: Mapping[str, Sequence[Injection]],
    upstreams: Mapping[str, Graph],
    downstream: Graph,
    taps: Sequence[Tap],
) -> None:
    """Raises a ValueError if an injection names a layer of an upstream.

    A path that matches layers of both means the layer of the downstream.
    """
    sources = {tap.name: tap for tap in taps}
    for name, several in injections.items():
        for path in (injection.path for injection in several):
            found = _in_an_upstream(path, upstreams, downstream)
            if found is not None:
                raise ValueError(
                    _backward(name, path, found, sources.get(name), upstreams)
                    + f" Name a layer of the downstream '{downstream.name}'; "
                    "list_taps(network) shows them all."
                )


def _in_an_upstream(
    path: str, upstreams: Mapping[str, Graph], downstream: Graph
) -> tuple[str, Address] | None:
    """Finds the layer of a path, if only an upstream has it."""
    if select(downstream, path) or path.startswith("downstream/"):
        return None
    label, _, inside = path.partition("/")
    if label in upstreams and inside:
        upstreams, path = {label: upstreams[label]}, inside
    for label, graph in upstreams.items():
        # An upstream with several outputs has no last operation.
        if not path.startswith("-") and (found := select(graph, path)):
            return label, found[0]
    return None


def _backward(
    name: str,
    path: str,
    found: tuple[str, Address],
    tap: Tap | None,
    upstreams: Mapping[str, Graph],
) -> str:
    label, address = found
    message = (
        f"inject['{name}'] names '{path}', a layer of the upstream "
        f"'{upstreams[label].name}': features enter the downstream."
    )
    if tap is None or tap.network != label:
        return message
    if _feeds(upstreams[label], address, tap):
        return (
            f"{message} There it would be a cycle: the tap '{name}' at "
            f"'{tap.path}' is computed from that layer."
        )
    return message


def _feeds(graph: Graph, address: Address, tap: Tap) -> bool:
    """Whether a tap depends on the outputs of a call."""
    tensor = graph.tensor((*address, 0))
    entry = Insertion(address, {"probe": tensor}, lambda x, fed: [])
    entered = inject(graph, [entry])
    position = len(graph.inputs)
    return position in find_needed(entered, [tap.reference]).inputs
