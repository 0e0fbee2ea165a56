"""Finds the tensors of a network that the path of a tap selects.

Tested by `tests/graph/test_taps.py`.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import keras

from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.graph import Graph, Node, Reference
from keras_cascade.graph.paths import Address, all_addresses, is_exact, select
from keras_cascade.networks.named_outputs import named_outputs

# The second output of a call is `lstm:out1`; all are `lstm:out*`.
_OUTPUT = re.compile(r"(.+):out(\d+|\*)")


@dataclass(frozen=True)
class Place:
    """The output of a call, or a tensor that the network has a name for.

    Attributes:
        name: The name of a tap there, unless the user gives another.
        path: The path in the network.
        reference: The tensor; the first of several.
        is_tensor: Whether it is one tensor: some calls give several.
    """

    name: str
    path: str
    reference: Reference
    is_tensor: bool

    @property
    def path_by_name(self) -> str:
        """The path that ends in the name."""
        return "/".join((*map(str, self.reference[:-2]), self.name))


def find_places(graph: Graph, pattern: object, label: str) -> list[Place]:
    """Returns the places that a path pattern selects.

    Args:
        graph: The network.
        pattern: The path pattern, which may begin with the block. If no call
            matches it, names that the network has for tensors may.
        label: The network's block, for paths and errors.

    Raises:
        ValueError: If the pattern selects nothing, or is a single path to a
            layer that is called several times.
    """
    if not isinstance(pattern, str):
        raise ValueError(
            f"A tap is a path as text; received {pattern!r} for {label} "
            f"'{graph.name}'."
        )
    short = pattern.removeprefix(f"{label}/")
    addresses = select(graph, pattern) or select(graph, short)
    if addresses and is_exact(pattern):
        _check_one_call(addresses, pattern)
        _warn_of_other_name(graph, addresses[0], pattern)
    found = select_places(graph, pattern) or select_places(graph, short)
    if not found:
        raise ValueError(_nothing_found(graph, short, label))
    return found


def select_places(graph: Graph, pattern: str) -> list[Place]:
    """Returns the places that a pattern selects, without the block.

    These are calls, else single outputs (`lstm:out1`), else tensors that the
    network has names for.
    """
    return (
        [
            Place(x[-1], "/".join(x), (*x, 0), len(graph.node(x).outputs) == 1)
            for x in select(graph, pattern)
        ]
        or list(_single_outputs(graph, pattern))
        or [
            place
            for place in named_places(graph)
            if fnmatchcase(place.path_by_name, pattern)
        ]
    )


def path_of(graph: Graph, reference: Reference) -> str:
    """Returns the path of a tensor: that of its call, if it gives no other."""
    path = "/".join(map(str, reference[:-1]))
    outputs = graph.node(reference[:-1]).outputs
    return path if len(outputs) == 1 else f"{path}:out{reference[-1]}"


def output_places(graph: Graph, address: Address) -> Iterator[Place]:
    """Yields a place for each output of a call."""
    for index in range(len(graph.node(address).outputs)):
        path = f"{'/'.join(address)}:out{index}"
        yield Place(path.rpartition("/")[2], path, (*address, index), True)


def _single_outputs(graph: Graph, pattern: str) -> Iterator[Place]:
    """Yields the outputs that a pattern with a number or `*` selects."""
    match = _OUTPUT.fullmatch(pattern)
    for address in select(graph, match[1]) if match else ():
        for place in output_places(graph, address):
            if match and match[2] in ("*", str(place.reference[-1])):
                yield place


def named_places(graph: Graph, prefix: Address = ()) -> Iterator[Place]:
    """Yields the tensors that a network, or one inside it, has names for.

    The path is that of the call, or ends in the name for one tensor of a call
    that gives several.
    """
    for name, tensor in named_outputs(graph.network).items():
        # An operation of that name takes precedence.
        if id(tensor) in graph.sources and name not in graph.calls:
            node, index = graph.sources[id(tensor)]
            last = node.key if len(node.outputs) == 1 else name
            path = "/".join((*prefix, last))
            yield Place(name, path, (*prefix, node.key, index), True)
    for node in graph.nodes:
        if node.inner is not None:
            yield from named_places(node.inner, (*prefix, node.key))


def check_is_tensor(graph: Graph, place: Place, label: str) -> None:
    """Raises a ValueError if a place has several tensors."""
    if place.is_tensor:
        return
    outputs = graph.node(place.reference[:-1]).outputs
    names = [
        other.path_by_name
        for other in named_places(graph)
        if other.reference[:-1] == place.reference[:-1]
    ]
    own = output_places(graph, tuple(map(str, place.reference[:-1])))
    paths = [one.path for one in own]
    hint = f" Some have names: {listed(names)}." if names else ""
    raise ValueError(
        f"'{place.path}' in {label} '{graph.name}' gives {len(outputs)} "
        f"tensors; a tap is one. Say which: {listed(paths)}.{hint}"
    )


def _check_one_call(addresses: Sequence[Address], pattern: str) -> None:
    if len(addresses) > 1:
        calls = " or ".join(repr("/".join(address)) for address in addresses)
        raise ValueError(
            f"'{pattern}' is called {len(addresses)} times; say which call: "
            f"{calls}."
        )


def _warn_of_other_name(graph: Graph, address: Address, pattern: str) -> None:
    """Warns if Keras has the name for another operation in this process."""
    last = pattern.split("/")[-1]
    level = graph
    for key in address[:-1]:
        level = level.by_key[key].within or level
    for node in level.nodes:
        if node.operation.name == last and node.name != address[-1]:
            meant = graph.node(address).operation.name
            warnings.warn(
                f"'{pattern}' is the operation that Keras calls '{meant}' in "
                f"this process; the one that Keras calls '{last}' is "
                f"'{node.key}' here. Names that Keras numbers are numbered "
                "within their network; list_taps(network) shows them.",
                stacklevel=2,
            )
            return


def _nothing_found(graph: Graph, pattern: str, label: str) -> str:
    paths = ["/".join(address) for address in all_addresses(graph)]
    paths += [place.path_by_name for place in named_places(graph)]
    paths += [
        place.path
        for address in all_addresses(graph)
        if len(graph.node(address).outputs) > 1
        for place in output_places(graph, address)
    ]
    what = "No tap at" if is_exact(pattern) else "No tap matches"
    return (
        f"{what} '{pattern}' in {label} '{graph.name}'."
        f"{_no_graph_inside(graph, pattern)}"
        f"{closest(pattern, paths)} list_taps(network) shows them all."
    )


def _no_graph_inside(graph: Graph, pattern: str) -> str:
    """Returns a hint if a path leads into an operation without a graph."""
    node, level = _black_box(graph) if "/" not in pattern else None, graph
    for key in pattern.split("/")[:-1]:
        node = level.by_key.get(key)
        if node is None or node.within is None:
            break
        level = node.within
    if node is None or node.within is not None:
        return ""
    kind = type(node.operation).__name__
    return (
        f" '{node.key}' is a {kind}, which has no graph to look into: only "
        "its output can be tapped."
    )


def _black_box(graph: Graph) -> Node | None:
    """Returns the one call that a network without a graph is read as."""
    calls = [node for node in graph.nodes if not node.is_input]
    if len(calls) == 1 and isinstance(calls[0].operation, keras.Model):
        return calls[0]
    return None
