"""Taps: what the user's words select in a network, and what there is."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras

from keras_cascade import _tables
from keras_cascade.graph.flops import flops_up_to, parameters_up_to
from keras_cascade.graph.paths import (
    Address,
    all_addresses,
    closest,
    is_exact,
    select,
)
from keras_cascade.graph.reading import Graph, Node, Reference, read_graph
from keras_cascade.networks.loading import as_network, load_network

Taps = str | Sequence[str] | Mapping[str, str] | None


@dataclass(frozen=True)
class Tap:
    """A named intermediate output.

    Attributes:
        name: The user's name for it, an identifier.
        path: Its path in the network, fully spelt.
        reference: Where the tensor comes from.
        shape: With the batch as the first entry.
        dtype: As Keras names it.
    """

    name: str
    path: str
    reference: Reference
    shape: tuple[int | None, ...]
    dtype: str


def resolve_taps(graph: Graph, taps: Taps, label: str) -> list[Tap]:
    """What the argument `taps` selects.

    Args:
        graph: The network.
        taps: `None` (every output), a path, a list of paths or a mapping
            `{tap name: path}`.
        label: The network's block, "upstream": paths may begin with it, and
            errors name it.

    Returns:
        The taps in the order in which they were given.

    Raises:
        ValueError: If there are none, a path selects nothing or not a single
            tensor, a name is no identifier, or a path in a mapping selects
            several.
    """
    if taps is None:
        return _output_taps(graph)
    if not taps:
        raise ValueError(
            f"taps={taps!r} selects nothing of {label} '{graph.name}'. Give a "
            "path, a list of paths, a mapping {tap name: path}, or None for "
            "every output."
        )
    if not isinstance(taps, str | Sequence | Mapping):
        raise TypeError(
            "taps must be None, a path, a list of paths or a mapping "
            f"{{tap name: path}}; received {taps!r}."
        )
    if isinstance(taps, Mapping):
        return [_named(graph, n, path, label) for n, path in taps.items()]
    patterns = [taps] if isinstance(taps, str) else list(taps)
    addresses = [
        address
        for pattern in patterns
        for address in _found(graph, pattern, label)
    ]
    addresses = list(dict.fromkeys(addresses))
    names = _identifiers([address[-1] for address in addresses])
    return [
        _tap(graph, name, address, label)
        for name, address in zip(names, addresses, strict=True)
    ]


def list_taps(network: keras.Model, pattern: str = "**") -> "TapTable":
    """Lists what can be tapped in a network.

    Args:
        network: A built Functional or Sequential model.
        pattern: Which of its operations, as a path pattern. Defaults to
            `"**"`, all.

    Returns:
        A list of `TapInfo`, which prints as a table.

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
    graph = read_graph(as_network(load_network(network, "network"), "network"))
    return TapTable(
        _info(graph, address)
        for address in _found(graph, pattern, "network")
        if len(_node(graph, address).outputs) == 1
    )


@dataclass(frozen=True)
class TapInfo:
    """What one can tap, and what it costs to compute.

    Attributes:
        path: Its path in the network.
        shape: With the batch as the first entry.
        dtype: As Keras names it.
        layer: The class of the layer or operation.
        parameters: Of all layers that it depends on.
        flops: Floating-point operations for one sample up to here, estimated
            from the shapes; `None` where a size is open.
    """

    path: str
    shape: tuple[int | None, ...]
    dtype: str
    layer: str
    parameters: int
    flops: int | None


class TapTable(list[TapInfo]):
    """The taps of a network: a list that prints as a table."""

    def __str__(self) -> str:
        return _tables.as_text(
            "Taps",
            ("path", "shape", "dtype", "layer", "parameters", "FLOPs"),
            [
                (
                    tap.path,
                    _tables.shape(tap.shape),
                    tap.dtype,
                    tap.layer,
                    _tables.count(tap.parameters),
                    _tables.count(tap.flops),
                )
                for tap in self
            ],
            right=("parameters", "FLOPs"),
        )

    __repr__ = __str__


def _info(graph: Graph, address: Address) -> TapInfo:
    node = _node(graph, address)
    reference = (*address, 0)
    return TapInfo(
        path="/".join(address),
        shape=tuple(node.outputs[0].shape),
        dtype=node.outputs[0].dtype,
        layer=type(node.operation).__name__,
        parameters=parameters_up_to(graph, reference),
        flops=flops_up_to(graph, reference),
    )


def _output_taps(graph: Graph) -> list[Tap]:
    structure = graph.output_structure
    keys = (
        list(structure)
        if isinstance(structure, dict)
        else ["output"] * len(graph.outputs)
    )
    tensors = (
        list(structure.values())
        if isinstance(structure, dict)
        else graph.outputs
    )
    return [
        Tap(
            name,
            "/".join(map(str, graph.reference(tensor)[:-1])),
            graph.reference(tensor),
            tuple(tensor.shape),
            tensor.dtype,
        )
        for name, tensor in zip(_identifiers(keys), tensors, strict=True)
    ]


def _named(graph: Graph, name: str, pattern: str, label: str) -> Tap:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"Tap name {name!r} is no identifier: letters, digits and '_', "
            "not beginning with a digit. Weights and losses are named after "
            "it."
        )
    addresses = _found(graph, pattern, label)
    if len(addresses) > 1:
        paths = ", ".join(repr("/".join(address)) for address in addresses[:5])
        raise ValueError(
            f"Tap '{name}': {pattern!r} selects {len(addresses)} operations in "
            f"{label} '{graph.name}' ({paths}{', ...' * (len(addresses) > 5)})"
            "; a named tap is one. Spell the path out, or give the pattern in "
            "a list."
        )
    return _tap(graph, name, addresses[0], label)


def _tap(graph: Graph, name: str, address: Address, label: str) -> Tap:
    node = _node(graph, address)
    if len(node.outputs) != 1:
        raise ValueError(
            f"'{'/'.join(address)}' in {label} '{graph.name}' gives "
            f"{len(node.outputs)} tensors; a tap is one. Tap an operation "
            "before or behind it."
        )
    return Tap(
        name,
        "/".join(address),
        (*address, 0),
        tuple(node.outputs[0].shape),
        node.outputs[0].dtype,
    )


def _found(graph: Graph, pattern: str, label: str) -> list[Address]:
    """The calls that a pattern selects, or an error that helps."""
    if not isinstance(pattern, str):
        raise ValueError(
            f"A tap is a path as text; received {pattern!r} for {label} "
            f"'{graph.name}'."
        )
    short = pattern.removeprefix(f"{label}/")
    addresses = select(graph, pattern) or select(graph, short)
    if not addresses:
        raise ValueError(_nothing_found(graph, short, label))
    if is_exact(pattern):
        _one_call_only(addresses, pattern)
        _warn_of_another_name(graph, addresses[0], pattern)
    return addresses


def _nothing_found(graph: Graph, pattern: str, label: str) -> str:
    paths = ["/".join(address) for address in all_addresses(graph)]
    inside = _without_inside(graph, pattern)
    what = "No tap at" if is_exact(pattern) else "No tap matches"
    return (
        f"{what} '{pattern}' in {label} '{graph.name}'.{inside}"
        f"{closest(pattern, paths)} list_taps(network) shows them all."
    )


def _without_inside(graph: Graph, pattern: str) -> str:
    """Says so where a path leads into something without a graph."""
    head, _, inside = pattern.partition("/")
    node = graph.by_key.get(head) if inside else _black_box(graph)
    if node is None or node.inner is not None:
        return ""
    kind = type(node.operation).__name__
    return (
        f" '{node.key}' is a {kind}, which has no graph to look into: only "
        "its output can be tapped."
    )


def _black_box(graph: Graph) -> Node | None:
    """The one call that a network without a graph is read as."""
    calls = [node for node in graph.nodes if not node.is_input]
    if len(calls) == 1 and isinstance(calls[0].operation, keras.Model):
        return calls[0]
    return None


def _one_call_only(addresses: Sequence[Address], pattern: str) -> None:
    if len(addresses) > 1:
        calls = " or ".join(repr("/".join(address)) for address in addresses)
        raise ValueError(
            f"'{pattern}' is called {len(addresses)} times; say which call: "
            f"{calls}."
        )


def _warn_of_another_name(graph: Graph, address: Address, pattern: str) -> None:
    """Keras's numbers go by the process, ours by the network."""
    last = pattern.split("/")[-1]
    level = _level_of(graph, address)
    for node in level.nodes:
        if node.operation.name == last and node.name != address[-1]:
            meant = _node(graph, address).operation.name
            warnings.warn(
                f"'{pattern}' is the operation that Keras calls '{meant}' in "
                f"this process; the one that Keras calls '{last}' is "
                f"'{node.key}' here. Names that Keras numbers are numbered "
                "within their network; list_taps(network) shows them.",
                stacklevel=2,
            )
            return


def _level_of(graph: Graph, address: Address) -> Graph:
    for key in address[:-1]:
        graph = graph.by_key[key].inner or graph
    return graph


def _node(graph: Graph, address: Address) -> Node:
    return _level_of(graph, address).by_key[address[-1]]


def _identifiers(names: Iterable[str]) -> list[str]:
    """Names as identifiers, numbered where two are equal."""
    seen: set[str] = set()
    result = []
    for name in names:
        base = re.sub(r"\W", "_", name)
        base = base if base.isidentifier() else f"tap_{base}"
        unique, number = base, 0
        while unique in seen:
            number += 1
            unique = f"{base}_{number}"
        seen.add(unique)
        result.append(unique)
    return result
