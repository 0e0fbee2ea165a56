"""Taps: what the user's words select in a network, and what there is."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import keras

from keras_cascade import _tables
from keras_cascade._messages import closest
from keras_cascade.graph.flops import flops_up_to, parameters_up_to
from keras_cascade.graph.graph import Graph, Node, Reference, read_graph
from keras_cascade.graph.paths import Address, all_addresses, is_exact, select
from keras_cascade.networks.loading import as_network, load_network
from keras_cascade.networks.named_outputs import named_outputs

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
        network: The block of the network that it is in.
    """

    name: str
    path: str
    reference: Reference
    shape: tuple[int | None, ...]
    dtype: str
    network: str = "upstream"


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
    check_taps(taps, f"{label} '{graph.name}'")
    if isinstance(taps, Mapping):
        return [_named(graph, n, path, label) for n, path in taps.items()]
    patterns = [taps] if isinstance(taps, str) else list(taps)
    places = dict.fromkeys(
        place for pattern in patterns for place in _found(graph, pattern, label)
    )
    names = identifiers([place.name for place in places])
    return [
        _tap(graph, name, place, label)
        for name, place in zip(names, places, strict=True)
    ]


def check_taps(taps: object, where: str) -> None:
    """Raises an error where the argument `taps` is none.

    Args:
        taps: What the user gave, but for `None`.
        where: What it selects of, for errors.
    """
    if not taps:
        raise ValueError(
            f"taps={taps!r} selects nothing of {where}. Give a path, a list "
            "of paths, a mapping {tap name: path}, or None for every output."
        )
    if not isinstance(taps, str | Sequence | Mapping):
        raise TypeError(
            "taps must be None, a path, a list of paths or a mapping "
            f"{{tap name: path}}; received {taps!r}."
        )


def list_taps(network: keras.Model | str, pattern: str = "**") -> "TapTable":
    """Lists what can be tapped in a network.

    Args:
        network: A built Functional or Sequential model, or what else
            `build_cascade` takes as a network; for an application that is
            named no weights are downloaded.
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
    model = load_network(network, "network", weights=False)
    graph = read_graph(as_network(model, "network"))
    named = list(_named_places(graph))
    places = _found(graph, pattern, "network")
    if pattern == "**":
        places = _with_named(places, named)
    return TapTable(
        _info(graph, place, named) for place in places if place.is_tensor
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
        names: What the network itself calls the tensor, such as `P3`; each
            is a path as well.
    """

    path: str
    shape: tuple[int | None, ...]
    dtype: str
    layer: str
    parameters: int
    flops: int | None
    names: tuple[str, ...] = ()


class TapTable(list[TapInfo]):
    """The taps of a network: a list that prints as a table."""

    def __str__(self) -> str:
        return _tables.as_text(
            "Taps",
            ("path", "shape", "dtype", "layer", "parameters", "FLOPs"),
            [
                (
                    " = ".join(dict.fromkeys((tap.path, *tap.names))),
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


@dataclass(frozen=True)
class _Place:
    """What a path selects: the outputs of a call, or one by its name.

    Attributes:
        name: What a tap there is called, if it is not given a name.
        path: How it is spelt.
        reference: Where the tensor comes from.
        is_tensor: Whether it is one: some calls give several.
    """

    name: str
    path: str
    reference: Reference
    is_tensor: bool

    @property
    def by_name(self) -> str:
        """The path that ends in the name."""
        return "/".join((*map(str, self.reference[:-2]), self.name))


def _place(graph: Graph, address: Address) -> _Place:
    is_tensor = len(_node(graph, address).outputs) == 1
    return _Place(address[-1], "/".join(address), (*address, 0), is_tensor)


def _named_places(graph: Graph, prefix: Address = ()) -> Iterator[_Place]:
    """Tensors that the network, or one inside it, has names for.

    Of a call that gives several tensors, the name is the only path.
    """
    for name, tensor in named_outputs(graph.network).items():
        if id(tensor) in graph.sources and name not in graph.calls:
            node, index = graph.sources[id(tensor)]
            reference = (*prefix, node.key, index)
            spelt = node.key if len(node.outputs) == 1 else name
            path = "/".join((*prefix, spelt))
            yield _Place(name, path, reference, True)
    for node in graph.nodes:
        if node.inner is not None:
            yield from _named_places(node.inner, (*prefix, node.key))


def _with_named(
    places: Sequence[_Place], named: Sequence[_Place]
) -> list[_Place]:
    """With tensors that only a name leads to, behind the call they are of."""
    known = {place.path for place in places}
    result = []
    for place in places:
        result.append(place)
        if not place.is_tensor:
            own = [x for x in named if x.reference[:-1] == place.reference[:-1]]
            result += [x for x in own if x.path not in known]
            known |= {x.path for x in own}
    return result


def _info(graph: Graph, place: _Place, named: Sequence[_Place]) -> TapInfo:
    tensor = graph.tensor(place.reference)
    names = [x.by_name for x in named if x.reference == place.reference]
    return TapInfo(
        path=place.path,
        shape=tuple(tensor.shape),
        dtype=tensor.dtype,
        layer=type(_node_of(graph, place.reference).operation).__name__,
        parameters=parameters_up_to(graph, place.reference),
        flops=flops_up_to(graph, place.reference),
        names=tuple(name for name in names if name != place.path),
    )


def _output_taps(graph: Graph) -> list[Tap]:
    named = [
        (name or "output", tensor)
        for name, tensor in _leaves(graph.output_structure)
        if isinstance(tensor, keras.KerasTensor)
    ]
    names = identifiers([name for name, _ in named])
    return [
        Tap(
            name,
            "/".join(map(str, graph.reference(tensor)[:-1])),
            graph.reference(tensor),
            tuple(tensor.shape),
            tensor.dtype,
        )
        for name, (_, tensor) in zip(names, named, strict=True)
    ]


def _leaves(structure: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Outputs by their keys, level by level: `states_0` for a first state."""
    if isinstance(structure, dict):
        for key, value in structure.items():
            yield from _leaves(value, f"{name}_{key}" if name else str(key))
    elif isinstance(structure, list | tuple):
        for index, value in enumerate(structure):
            yield from _leaves(value, f"{name}_{index}" if name else "")
    else:
        yield name, structure


def _named(graph: Graph, name: str, pattern: str, label: str) -> Tap:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"Tap name {name!r} is no identifier: letters, digits and '_', "
            "not beginning with a digit. Weights and losses are named after "
            "it."
        )
    places = _found(graph, pattern, label)
    if len(places) > 1:
        paths = ", ".join(repr(place.path) for place in places[:5])
        raise ValueError(
            f"Tap '{name}': {pattern!r} selects {len(places)} operations in "
            f"{label} '{graph.name}' ({paths}{', ...' * (len(places) > 5)})"
            "; a named tap is one. Spell the path out, or give the pattern in "
            "a list."
        )
    return _tap(graph, name, places[0], label)


def _tap(graph: Graph, name: str, place: _Place, label: str) -> Tap:
    if not place.is_tensor:
        outputs = _node_of(graph, place.reference).outputs
        raise ValueError(
            f"'{place.path}' in {label} '{graph.name}' gives {len(outputs)} "
            "tensors; a tap is one. Tap an operation before or behind it."
            f"{_their_names(graph, place.reference)}"
        )
    tensor = graph.tensor(place.reference)
    shape = tuple(tensor.shape)
    return Tap(name, place.path, place.reference, shape, tensor.dtype)


def _their_names(graph: Graph, reference: Reference) -> str:
    """What a call's tensors are called, where the network has names."""
    names = [
        repr(place.by_name)
        for place in _named_places(graph)
        if place.reference[:-1] == reference[:-1]
    ]
    return f" Some have names: {', '.join(names)}." if names else ""


def _found(graph: Graph, pattern: str, label: str) -> list[_Place]:
    """What a pattern selects, or an error that helps.

    Where no call is of that name, a tensor may be.
    """
    if not isinstance(pattern, str):
        raise ValueError(
            f"A tap is a path as text; received {pattern!r} for {label} "
            f"'{graph.name}'."
        )
    short = pattern.removeprefix(f"{label}/")
    addresses = select(graph, pattern) or select(graph, short)
    if not addresses:
        return _found_by_name(graph, short, label)
    if is_exact(pattern):
        _one_call_only(addresses, pattern)
        _warn_of_another_name(graph, addresses[0], pattern)
    return [_place(graph, address) for address in addresses]


def _found_by_name(graph: Graph, pattern: str, label: str) -> list[_Place]:
    found = [
        place
        for place in _named_places(graph)
        if fnmatchcase(place.by_name, pattern)
    ]
    if not found:
        raise ValueError(_nothing_found(graph, pattern, label))
    return found


def _nothing_found(graph: Graph, pattern: str, label: str) -> str:
    paths = ["/".join(address) for address in all_addresses(graph)]
    paths += [place.by_name for place in _named_places(graph)]
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


def _node_of(graph: Graph, reference: Reference) -> Node:
    return _node(graph, tuple(map(str, reference[:-1])))


def _node(graph: Graph, address: Address) -> Node:
    return _level_of(graph, address).by_key[address[-1]]


def identifiers(names: Iterable[str]) -> list[str]:
    """Names made identifiers, and numbered where two are equal."""
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
