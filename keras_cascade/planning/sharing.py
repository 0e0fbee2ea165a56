"""Finds networks that are one object, and layers that networks share.

Tested by `tests/behaviour/test_shared_networks.py`.
"""

import warnings
from collections.abc import Iterable, Mapping

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.graph.graph import Graph

# The names of layers with weights in a network, by their ids.
_Names = dict[int, str]


def find_one_blocks(sources: Mapping[str, keras.Model]) -> dict[str, str]:
    """Returns the block of each upstream that others are the same object as.

    Its name has the names of all: `anchor-positive`, which no upstream has,
    as their names are identifiers.
    """
    roles: dict[int, list[str]] = {}
    for name, source in sources.items():
        if name != "downstream":
            roles.setdefault(id(source), []).append(name)
    return {
        name: "-".join(several)
        for several in roles.values()
        if len(several) > 1
        for name in several
    }


def check_shared_names(graphs: Mapping[str, Graph]) -> None:
    """Raises a ValueError if layers that networks share have several names.

    Keras numbers layers without a name by the process, and here they are
    numbered within their network: two networks may number one differently.
    """
    known: dict[int, tuple[str, str]] = {}
    for network, graph in graphs.items():
        for key, name in _weighted_layers([graph]).items():
            other, path = known.setdefault(key, (network, name))
            if path.split("/")[-1] != name.split("/")[-1]:
                raise ValueError(
                    f"The networks '{other}' and '{network}' share a layer, "
                    f"which is '{path}' in the one and '{name}' in the other, "
                    "as Keras numbered it. Give the layer a name, or pass "
                    "keras.models.clone_model(network) with its weights if "
                    "they are to be two."
                )


def is_apart(
    upstreams: Iterable[Graph], downstream: Graph, injected: bool, copy: bool
) -> bool:
    """Whether a downstream gets copies of layers that upstreams have too.

    Features that enter its layers make it another network. A warning says
    which layers train apart.
    """
    if not (injected and copy):
        return False
    own = _weighted_layers([downstream])
    both = [own[key] for key in _weighted_layers(upstreams) if key in own]
    if not both:
        return False
    more = f" and {len(both) - 5} more" if len(both) > 5 else ""
    warnings.warn(
        f"The downstream '{downstream.name}' shares layers with an upstream "
        f"({listed(both[:5])}{more}), and features enter it: it is not the "
        "network that is tapped any more. The cascade has two copies of these "
        "layers, which train apart. Build with copy=False to share them, or "
        "pass a clone (keras.models.clone_model, with its weights) to say that "
        "they are two.",
        stacklevel=2,
    )
    return True


def _weighted_layers(graphs: Iterable[Graph]) -> _Names:
    """Returns the paths of layers with weights, by the ids of these."""
    found: _Names = {}
    for graph in graphs:
        for nodes in graph.walk():
            layer = nodes[-1].operation
            if nodes[-1].inner is None and getattr(layer, "weights", None):
                path = "/".join(node.name for node in nodes)
                found.setdefault(id(layer), path)
    return found
