"""Where injected features enter a network."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_cascade._messages import closest
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph, Node
from keras_cascade.graph.paths import Address, all_addresses, is_exact, select
from keras_cascade.graph.taps import identifiers
from keras_cascade.injection.arguments import Injection


@dataclass(frozen=True)
class Site:
    """A place where a stream enters a network.

    Attributes:
        source: The tap or extra input that enters.
        injection: Where and how, in the user's words.
        address: The call behind which it enters.
        tensor: What that call gives.
        data_format: Where a map has its channels there.
        dtype: The dtype policy of the layer, for those that merge.
        label: The name of what merges, unique in the cascade.
    """

    source: str
    injection: Injection
    address: Address
    tensor: keras.KerasTensor
    data_format: str
    dtype: Any
    label: str

    @property
    def feeds(self) -> list[str]:
        """The inputs that a merge adds to the network."""
        if self.injection.merge == "film":
            return [f"{self.label}_scale", f"{self.label}_shift"]
        return [self.label]

    @property
    def channel_axis(self) -> int:
        """The axis of the channels, counted without the batch."""
        rank = len(self.tensor.shape) - 1
        return 0 if rank > 2 and self.data_format == "channels_first" else -1

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of what the call gives, without the batch."""
        return tuple(self.tensor.shape[1:])

    @property
    def width(self) -> int:
        """The number of channels."""
        width = self.shape[self.channel_axis]
        if width is None:
            raise ValueError(
                f"inject['{self.source}'] enters '{self.injection.path}', "
                f"whose width is open: {self.shape}. Inject behind a layer "
                "with a known number of channels."
            )
        return width


def find_sites(
    graph: Graph,
    injections: Mapping[str, Sequence[Injection]],
    label: str,
    entered: Container[str] | None = None,
) -> list[Site]:
    """The places in a network that the injections mean.

    Args:
        graph: The network.
        injections: What is injected where.
        label: The network's block, "downstream", for paths and errors.
        entered: The inputs that were added for them, where they have entered
            already; else each gets a name that nothing in the network has.
            Defaults to `None`.

    Raises:
        ValueError: If a path selects no operation, or several, or one of
            which the features cannot enter.
    """
    sites = [
        _site(graph, source, injection, label)
        for source, several in injections.items()
        for injection in several
    ]
    return _labelled(graph, sites, entered)


def site_at_input(
    graph: Graph,
    position: int,
    others: Sequence[Site] = (),
    entered: Container[str] | None = None,
) -> Site:
    """The place where fused features join an input of a network.

    Args:
        graph: The network.
        position: Which of its inputs.
        others: The other places at which something enters.
        entered: As in `find_sites`. Defaults to `None`.
    """
    node, _ = graph.sources[id(graph.inputs[position])]
    injection = Injection(node.key, merge="concat")
    site = _site(graph, "features", injection, "downstream")
    return _labelled(graph, [*others, site], entered)[-1]


def _site(graph: Graph, source: str, injection: Injection, label: str) -> Site:
    address = _address(graph, source, injection.path, label)
    _check_called_once(graph, source, address)
    reference = (*address, 0)
    tensor = graph.tensor(reference)
    if not keras.backend.is_float_dtype(tensor.dtype):
        raise ValueError(
            f"inject['{source}'] enters '{injection.path}', which gives "
            f"{tensor.dtype}; features are floats. Inject behind the layer "
            "that makes floats of it, such as an Embedding."
        )
    layer = address[-1].replace(":", "_")
    operation = _operation(graph, address)
    known = data_format_at(graph, reference)
    return Site(
        source,
        injection,
        address,
        tensor,
        known or keras.config.image_data_format(),
        getattr(operation, "dtype_policy", tensor.dtype),
        f"{source}_into_{layer}",
    )


def _labelled(
    graph: Graph, sites: Sequence[Site], entered: Container[str] | None
) -> list[Site]:
    """The sites with names of their own: what enters is called so."""
    names = [node.name for _, node in _calls(graph)]
    labels: list[str] = []
    for site in sites:
        (base,) = identifiers([site.label])
        numbers = range(1, len(names) + len(sites) + 1)
        possible = [base, *(f"{base}_{number}" for number in numbers)]
        labels.append(
            next(
                name
                for name in possible
                if name not in labels
                and _is_its_own(replace(site, label=name), names, entered)
            )
        )
    return [
        replace(site, label=label)
        for site, label in zip(sites, labels, strict=True)
    ]


def _is_its_own(
    site: Site, names: Sequence[str], entered: Container[str] | None
) -> bool:
    """Whether nothing else in the network is called as what enters is."""
    if entered is not None:
        return all(name in entered for name in site.feeds)
    begins = f"{site.label}_"
    return not any(n == site.label or n.startswith(begins) for n in names)


def _address(graph: Graph, source: str, path: str, label: str) -> Address:
    short = path.removeprefix(f"{label}/")
    found = select(graph, path) or select(graph, short)
    if len(found) == 1:
        return found[0]
    if not found:
        paths = ["/".join(address) for address in all_addresses(graph)]
        raise ValueError(
            f"inject['{source}'] names '{path}', which is no layer of {label} "
            f"'{graph.name}'.{closest(short, paths)} list_taps(network) shows "
            "them all."
        )
    several = ", ".join(f"'{'/'.join(address)}'" for address in found[:5])
    advice = (
        "Say which call" if is_exact(path) else "Give a list with one for each"
    )
    raise ValueError(
        f"inject['{source}'] names '{path}', which is {len(found)} operations "
        f"of {label} '{graph.name}' ({several}{', ...' * (len(found) > 5)}). "
        f"{advice}."
    )


def _check_called_once(graph: Graph, source: str, address: Address) -> None:
    level = graph
    for key in address[:-1]:
        node = level.by_key[key]
        calls = [
            "/".join(other)
            for other, call in _calls(graph)
            if call.operation is node.operation
        ]
        if len(calls) > 1:
            places = " or ".join(f"'{call}'" for call in calls)
            raise ValueError(
                f"inject['{source}'] enters '{'/'.join(address)}', and the "
                f"network '{node.name}' is called {len(calls)} times: what "
                "enters one call of it would enter all. Inject behind a call "
                f"as a whole: {places}."
            )
        level = node.inner or level
    node = level.by_key[address[-1]]
    if len(node.outputs) != 1:
        raise ValueError(
            f"inject['{source}'] enters '{'/'.join(address)}', which gives "
            f"{len(node.outputs)} tensors. Inject before or behind it, where "
            "there is one."
        )


def _calls(graph: Graph) -> Iterator[tuple[Address, Node]]:
    """Every call, and those in nested networks, with its address."""
    for node in graph.nodes:
        yield (node.key,), node
        for address, inside in _calls(node.inner) if node.inner else ():
            yield (node.key, *address), inside


def _operation(graph: Graph, address: Address) -> keras.Operation:
    for key in address[:-1]:
        graph = graph.by_key[key].inner or graph
    return graph.by_key[address[-1]].operation
