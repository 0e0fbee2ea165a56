"""Finds the places where a network can be entered with other features.

Tested by `tests/ranking/test_stitching.py`.
"""

import keras

from keras_cascade.graph.graph import Graph
from keras_cascade.graph.taps import Tap, Taps
from keras_cascade.injection.arguments import Injection
from keras_cascade.planning.spec import CascadeSpec
from keras_cascade.planning.wiring import wire
from keras_cascade.ranking.candidates import Networks


def find_entries(
    network: keras.Model, entries: Taps
) -> tuple[Graph, list[Tap]]:
    """Returns the graph of a downstream, and the places to enter it.

    All of its outputs depend on what enters there, and on nothing else. A
    pattern, or "stages", selects such places; what is named must be one.

    Raises:
        ValueError: If there is none, or a named one is none.
    """
    networks = Networks({"downstream": network}, several=False)
    graph = networks.graphs["downstream"]
    found = networks.find(entries)
    refusals = {tap.path: _why_not(graph, tap) for tap in found}
    legal = [tap for tap in found if not refusals[tap.path]]
    refused = [path for path, reason in refusals.items() if reason]
    if refused and (not isinstance(entries, str) or not legal):
        raise ValueError(
            f"The downstream '{graph.name}' cannot be entered at "
            f"'{refused[0]}': {refusals[refused[0]]}"
        )
    return graph, legal


def _why_not(graph: Graph, tap: Tap) -> str:
    injection = Injection(tap.path, "replace")
    spec = CascadeSpec({}, {"tap": ""}, {}, inject={"tap": (injection,)})
    try:
        wiring = wire(graph, spec)
    except ValueError as error:
        return str(error)
    if wiring.own:
        return (
            "its outputs depend on its inputs by other ways too, such as the "
            "shortcut of a residual block. Enter where the ways have met."
        )
    return ""
