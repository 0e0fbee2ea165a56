"""Reconstructs networks that only their class can make.

A layer's own config may not suffice to make it again: KerasHub's backbones are
made by their class, and many of their layers by nothing else. Of such a
network the whole is made again, and its layers are taken from that.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph import low_rank
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.graph.names import rename
from keras_cascade.graph.paths import LayerPath

Operations = dict[LayerPath, keras.Operation]


@dataclass(frozen=True, eq=False)
class Provenance:
    """The network that layers of another one come from.

    Attributes:
        origin: The network, as Keras serialises it.
        paths: The paths of the layers in it, by their names.
    """

    origin: dict
    paths: Mapping[str, LayerPath]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A network that was made again by its class.

    Attributes:
        origin: The network, as Keras serialises it.
        paths: The paths of its operations, by their ids.
        operations: The operations of the new network.
    """

    origin: dict
    paths: Mapping[int, LayerPath]
    operations: Operations


def reconstruct(graph: Graph, share: bool = False) -> Reconstruction | None:
    """Makes a network again by its class, untrained.

    Args:
        graph: The network.
        share: Whether no operations are made, only the paths are wanted.
            Defaults to `False`.

    Returns:
        The reconstruction; None if the class has no config of its own, or if
        that does not give the same operations with the same weights, because
        the network was changed since.
    """
    provenance = getattr(graph.network, "provenance", None)
    if isinstance(provenance, Provenance):
        origin = provenance.origin
        made = {} if share else _detached(_make(origin))
        return Reconstruction(origin, dict(_known_paths(graph, origin)), made)
    network = graph.network
    # A block's config has the configs of its layers, and no more.
    is_ours = getattr(network, "names_are_stable", False)
    if network is None or is_ours or not compat.has_own_config(network):
        return None
    own = read_graph(network)
    try:
        origin = _serialized(network)
        again = _make(origin)
    except (NotImplementedError, TypeError, ValueError):
        return None
    if _structure(own) != _structure(again):
        return None
    pairs = zip(_operations(own).values(), _operations(again), strict=True)
    paths = {id(operation): path for operation, path in pairs}
    return Reconstruction(origin, paths, _detached(again))


# The networks of the blocks that are being loaded, innermost last.
_provided: ContextVar[tuple[tuple[dict, Operations], ...]] = ContextVar(
    "_provided"
)


@contextmanager
def provide_parts(origin: dict | None) -> Iterator[None]:
    """Provides the layers of a serialised network to `Part.from_config`."""
    known = _provided.get(())
    # A nested block has parts of the network of the block around it.
    if origin is None or (known and known[-1][0] == origin):
        yield
        return
    token = _provided.set((*known, (origin, _detached(_make(origin)))))
    try:
        yield
    finally:
        _provided.reset(token)


_REGISTERED = "keras_cascade>Part"


@keras.saving.register_keras_serializable(package="keras_cascade")
class Part:
    """Stands in a file for an operation that comes from another network.

    Args:
        path: The path of the operation in its network.
        name: The name of the operation in the block.
    """

    def __init__(self, path: LayerPath, name: str):
        self.path = path
        self.name = name

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {"path": list(self.path), "name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> keras.Operation:
        """Returns the operation itself, of the network that is provided."""
        known = _provided.get(())
        path = tuple(config["path"])
        if not known or path not in known[-1][1]:
            raise ValueError(
                f"'{'/'.join(path)}' is part of a network that has none. The "
                "file is of another version of the library that the network "
                "is from, or the block was taken out of a network's config."
            )
        operation = known[-1][1][path]
        rename(operation, config["name"])
        return operation


def part_config(entry: Mapping[str, Any], path: LayerPath) -> dict:
    """Returns Keras's entry for a layer in a network's config, as a part."""
    # Not by Keras's serialize: while it saves, it takes two objects of one id
    # for one object, and temporary objects get the ids of others that died.
    return {
        "module": Part.__module__,
        "class_name": Part.__name__,
        "registered_name": _REGISTERED,
        "config": Part(path, entry["name"]).get_config(),
        "name": entry["name"],
        "inbound_nodes": entry["inbound_nodes"],
    }


def part_paths(config: Mapping[str, Any]) -> dict[str, LayerPath]:
    """Returns the paths of the parts in a network's config, by name."""
    return {
        entry["name"]: tuple(entry["config"]["path"])
        for entry in config["layers"]
        if entry.get("registered_name") == _REGISTERED
    }


def _serialized(network: keras.Model) -> dict:
    """Serialises a network, without how it was compiled and built."""
    config: Any = keras.saving.serialize_keras_object(network)
    names = ("module", "class_name", "config", "registered_name")
    return {name: config[name] for name in names}


def _make(origin: dict) -> Graph:
    # A copy: some of KerasHub's classes put objects into their config.
    network: Any = keras.saving.deserialize_keras_object(deepcopy(origin))
    return read_graph(network)


def _detached(graph: Graph) -> Operations:
    """Returns the operations of a graph, without the calls they were in."""
    operations = _operations(graph)
    for operation in operations.values():
        compat.forget_calls(operation)
    return operations


def _operations(graph: Graph) -> Operations:
    """Returns all operations in order, those of nested networks as well."""
    return {
        tuple(node.name for node in nodes): nodes[-1].operation
        for nodes in graph.walk()
    }


def _structure(graph: Graph) -> list[tuple]:
    """Describes a network without names and values, for comparison."""
    place = {id(node): number for number, node in enumerate(graph.nodes)}
    first: dict[int, int] = {}
    sources = {
        tensor: (place[id(node)], index)
        for tensor, (node, index) in graph.sources.items()
    }
    return [
        (
            type(node.operation),
            first.setdefault(id(node.operation), len(first)),
            _weights(node.operation),
            [sources[id(tensor)] for tensor in node.tensors],
            None if node.inner is None else _structure(node.inner),
        )
        for node in graph.nodes
    ]


def _weights(operation: keras.Operation) -> list[tuple]:
    if not isinstance(operation, keras.Layer):
        return []
    return [
        (tuple(v.shape), v.dtype) for v in low_rank.plain_variables(operation)
    ]


def _known_paths(graph: Graph, origin: dict) -> Iterator[tuple[int, LayerPath]]:
    """Yields the ids of the operations of a copy, and their known paths."""
    provenance = getattr(graph.network, "provenance", None)
    if not isinstance(provenance, Provenance) or provenance.origin != origin:
        return
    for node in graph.nodes:
        if node.operation.name in provenance.paths:
            yield id(node.operation), provenance.paths[node.operation.name]
        if node.inner is not None:
            yield from _known_paths(node.inner, origin)
