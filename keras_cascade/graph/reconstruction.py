"""Networks that their class rebuilds, and layers as parts of such networks.

What a layer is need not stand in its own config: KerasHub's backbones are
made again by their class, and many of their layers by nothing else. Of such a
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
class Parts:
    """What of a network is part of another one, which its class rebuilds.

    Attributes:
        origin: The other one, as Keras serialises it.
        paths: Where in it the operations are, by their names.
    """

    origin: dict
    paths: Mapping[str, LayerPath]


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A network that was made again by its class.

    Attributes:
        origin: The network, as Keras serialises it.
        paths: Where in it the network's operations are, by their ids.
        operations: Those of the new one.
    """

    origin: dict
    paths: Mapping[int, LayerPath]
    operations: Operations


def rebuild(graph: Graph, share: bool = False) -> Rebuilt | None:
    """The network made again, untrained, or None: then copy its layers.

    Its class must have a config of its own. If that does not give the same
    operations with the same weights again, the network was changed since, and
    the config does not count.

    Args:
        graph: The network.
        share: Whether nothing is to be made: only what is known of where its
            layers come from. Defaults to `False`.
    """
    parts = getattr(graph.network, "parts", None)
    if isinstance(parts, Parts):
        made = {} if share else _freed(_graph_of(parts.origin))
        return Rebuilt(parts.origin, dict(_recorded(graph, parts)), made)
    network = graph.network
    is_ours = getattr(network, "names_are_stable", False)
    if network is None or is_ours or not compat.has_own_config(network):
        return None
    own = read_graph(network)
    try:
        origin = _serialized(network)
        made = _graph_of(origin)
    except (NotImplementedError, TypeError, ValueError):
        return None
    if _plan(own) != _plan(made):
        return None
    pairs = zip(_operations(own).values(), _operations(made), strict=True)
    paths = {id(operation): path for operation, path in pairs}
    return Rebuilt(origin, paths, _freed(made))


# The networks that blocks are just being loaded from, innermost last.
_open: ContextVar[tuple[tuple[dict, Operations], ...]] = ContextVar("_open")


@contextmanager
def available(origin: dict | None) -> Iterator[None]:
    """Makes the parts of a network available to `Part.from_config`.

    Args:
        origin: The network, as Keras serialises it. That which is available
            already is not built twice: a nested network's parts are those of
            the network around it.
    """
    opened = _open.get(())
    if origin is None or (opened and opened[-1][0] == origin):
        yield
        return
    operations = _freed(_graph_of(origin))
    token = _open.set((*opened, (origin, operations)))
    try:
        yield
    finally:
        _open.reset(token)


_REGISTERED = "keras_cascade>Part"


@keras.saving.register_keras_serializable(package="keras_cascade")
class Part:
    """What stands in a file for an operation that is part of a network.

    Args:
        path: Where in its network the operation is.
        name: What it is called in the block.
    """

    def __init__(self, path: LayerPath, name: str):
        self.path = path
        self.name = name

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return {"path": list(self.path), "name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> keras.Operation:
        """The operation itself, of the network that is `available`."""
        opened = _open.get(())
        path = tuple(config["path"])
        if not opened or path not in opened[-1][1]:
            raise ValueError(
                f"'{'/'.join(path)}' is part of a network that has none. The "
                "file is of another version of the library that the network "
                "is from, or the block was taken out of a network's config."
            )
        operation = opened[-1][1][path]
        rename(operation, config["name"])
        return operation


def as_part(entry: Mapping[str, Any], path: LayerPath) -> dict:
    """A layer's entry in a config, as a part.

    Args:
        entry: What Keras writes for a layer.
        path: Where in its network the layer is.
    """
    # Not by Keras's serialize: while it saves, it takes two objects of one id
    # for one object, and objects made on the way get ids of such that died.
    return {
        "module": Part.__module__,
        "class_name": Part.__name__,
        "registered_name": _REGISTERED,
        "config": Part(path, entry["name"]).get_config(),
        "name": entry["name"],
        "inbound_nodes": entry["inbound_nodes"],
    }


def paths_of_parts(config: Mapping[str, Any]) -> dict[str, LayerPath]:
    """The parts that a network's config names: where they are, by name."""
    return {
        entry["name"]: tuple(entry["config"]["path"])
        for entry in config["layers"]
        if entry.get("registered_name") == _REGISTERED
    }


def _serialized(network: keras.Model) -> dict:
    """The network without how it was compiled and built."""
    config: Any = keras.saving.serialize_keras_object(network)
    names = ("module", "class_name", "config", "registered_name")
    return {name: config[name] for name in names}


def _graph_of(origin: dict) -> Graph:
    # A copy: some of KerasHub's classes put objects into what they are given.
    network: Any = keras.saving.deserialize_keras_object(deepcopy(origin))
    return read_graph(network)


def _freed(graph: Graph) -> Operations:
    """The operations of a graph, free of the calls that they were in."""
    operations = _operations(graph)
    for operation in operations.values():
        compat.forget_calls(operation)
    return operations


def _operations(graph: Graph) -> Operations:
    """All operations, those of nested networks as well, in order."""
    found: Operations = {}
    for node in graph.nodes:
        found[node.name,] = node.operation
        if node.inner is not None:
            inner = _operations(node.inner)
            found |= {(node.name, *path): op for path, op in inner.items()}
    return found


def _plan(graph: Graph) -> list[tuple]:
    """What is alike in two networks that differ in names and values only."""
    place = {id(node): number for number, node in enumerate(graph.nodes)}
    first: dict[int, int] = {}
    return [
        (
            type(node.operation),
            first.setdefault(id(node.operation), len(first)),
            _weights(node.operation),
            [_source(graph, tensor, place) for tensor in node.tensors],
            None if node.inner is None else _plan(node.inner),
        )
        for node in graph.nodes
    ]


def _source(
    graph: Graph, tensor: keras.KerasTensor, place: Mapping[int, int]
) -> tuple[int, int]:
    node, index = graph.sources[id(tensor)]
    return place[id(node)], index


def _weights(operation: keras.Operation) -> list[tuple]:
    if not isinstance(operation, keras.Layer):
        return []
    return [
        (tuple(v.shape), v.dtype) for v in low_rank.plain_variables(operation)
    ]


def _recorded(graph: Graph, parts: Parts) -> Iterator[tuple[int, LayerPath]]:
    """What a copy knows of where its operations come from."""
    for node in graph.nodes:
        if node.operation.name in parts.paths:
            yield id(node.operation), parts.paths[node.operation.name]
        inner = node.inner and getattr(node.inner.network, "parts", None)
        if node.inner and inner and inner.origin == parts.origin:
            yield from _recorded(node.inner, inner)
