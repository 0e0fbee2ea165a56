"""Finds the places in a network that injected features enter."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import keras

from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph, Reference
from keras_cascade.graph.names import make_identifiers
from keras_cascade.graph.paths import Address, all_addresses, is_exact
from keras_cascade.graph.tap_places import (
    Place,
    output_places,
    select_places,
)
from keras_cascade.injection.arguments import Injection


@dataclass(frozen=True)
class Site:
    """A place where a stream enters a network.

    Attributes:
        source: The tap or extra input that enters.
        injection: The injection, as the user gave it.
        address: The call after which it enters.
        tensor: The output of that call.
        data_format: The data format of maps there.
        dtype: The dtype policy of the layer, which merging layers get.
        label: The name of the merge, unique in the cascade.
        path: The path of the tensor.
        index: The position of the tensor among the outputs of the call.
    """

    source: str
    injection: Injection
    address: Address
    tensor: keras.KerasTensor
    data_format: str
    dtype: str | keras.DTypePolicy
    label: str
    path: str
    index: int

    @property
    def reference(self) -> Reference:
        """The tensor that the stream is merged into."""
        return (*self.address, self.index)

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs that the merge adds to the network."""
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
        """The shape of the call's output, without the batch."""
        return tuple(self.tensor.shape[1:])

    @property
    def width(self) -> int:
        """The number of channels."""
        width = self.shape[self.channel_axis]
        if width is None:
            raise ValueError(
                f"inject['{self.source}'] enters '{self.injection.path}', "
                f"whose width is open: {self.shape}. Inject after a layer "
                "with a known number of channels."
            )
        return width


def find_sites(
    graph: Graph,
    injections: Mapping[str, Sequence[Injection]],
    label: str,
    entered: Container[str] | None = None,
) -> list[Site]:
    """Finds the places in a network that the injections mean.

    Args:
        graph: The network.
        injections: The injections of each tap and extra input.
        label: The network's block, "downstream", for paths and errors.
        entered: The inputs that were added for the injections, if they have
            entered the network already. By default they have not, and each
            gets a name that nothing in the network has. Defaults to `None`.

    Raises:
        ValueError: If a path selects no operation, or several, or one of
            which the features cannot enter.
    """
    sites = [
        _find_site(graph, source, injection, label)
        for source, several in injections.items()
        for injection in several
    ]
    return _label_sites(graph, sites, entered)


def site_at_input(
    graph: Graph,
    position: int,
    others: Sequence[Site] = (),
    entered: Container[str] | None = None,
) -> Site:
    """Returns the place where fused features join an input of a network.

    Args:
        graph: The network.
        position: The position of the input.
        others: The other places at which something enters. Defaults to `()`.
        entered: As in `find_sites`. Defaults to `None`.
    """
    node, _ = graph.sources[id(graph.inputs[position])]
    injection = Injection(node.key, merge="concat")
    site = _find_site(graph, "features", injection, "downstream")
    return _label_sites(graph, [*others, site], entered)[-1]


def _find_site(
    graph: Graph, source: str, injection: Injection, label: str
) -> Site:
    place = _find_place(graph, source, injection.path, label)
    reference = place.reference
    address = tuple(map(str, reference[:-1]))
    _check_called_once(graph, source, address)
    tensor = graph.tensor(reference)
    if not keras.backend.is_float_dtype(tensor.dtype):
        raise ValueError(
            f"inject['{source}'] enters '{injection.path}', which gives "
            f"{tensor.dtype}; features are floats. Inject after the layer "
            "that makes floats of it, such as an Embedding."
        )
    layer = place.path.rpartition("/")[2].replace(":", "_")
    known = data_format_at(graph, reference)
    return Site(
        source,
        injection,
        address,
        tensor,
        known or keras.config.image_data_format(),
        getattr(graph.node(address).operation, "dtype_policy", tensor.dtype),
        f"{source}_into_{layer}",
        place.path,
        int(reference[-1]),
    )


def _label_sites(
    graph: Graph, sites: Sequence[Site], entered: Container[str] | None
) -> list[Site]:
    """Returns the sites with labels that are unique in the network."""
    names = [nodes[-1].name for nodes in graph.walk()]
    labelled: dict[str, Site] = {}
    for site in sites:
        (base,) = make_identifiers([site.label])
        numbers = range(1, len(names) + len(sites) + 1)
        possible = [base, *(f"{base}_{number}" for number in numbers)]
        candidates = (replace(site, label=x) for x in possible)
        chosen = next(
            x
            for x in candidates
            if x.label not in labelled and _fits(x, names, entered)
        )
        labelled[chosen.label] = chosen
    return list(labelled.values())


def _fits(
    site: Site, names: Sequence[str], entered: Container[str] | None
) -> bool:
    """Whether a label is free, or is that of inputs that have entered."""
    if entered is not None:
        return all(name in entered for name in site.input_names)
    begins = f"{site.label}_"
    return not any(n == site.label or n.startswith(begins) for n in names)


def _find_place(graph: Graph, source: str, path: str, label: str) -> Place:
    short = path.removeprefix(f"{label}/")
    found = select_places(graph, path) or select_places(graph, short)
    if len(found) == 1:
        _check_is_one_tensor(graph, source, found[0])
        return found[0]
    if not found:
        paths = ["/".join(address) for address in all_addresses(graph)]
        raise ValueError(
            f"inject['{source}'] names '{path}', which is no layer of {label} "
            f"'{graph.name}'.{closest(short, paths)} list_taps(network) shows "
            "them all."
        )
    several = listed(place.path for place in found[:5])
    advice = (
        "Say which call" if is_exact(path) else "Give a list with one for each"
    )
    raise ValueError(
        f"inject['{source}'] names '{path}', which is {len(found)} operations "
        f"of {label} '{graph.name}' ({several}{', ...' * (len(found) > 5)}). "
        f"{advice}."
    )


def _check_called_once(graph: Graph, source: str, address: Address) -> None:
    path = "/".join(address)
    for depth in range(1, len(address)):
        network = graph.node(address[:depth])
        if network.step is not None:
            raise ValueError(
                f"inject['{source}'] enters '{path}', which is inside "
                f"'{network.name}' ({type(network.operation).__name__}): it "
                "is called once per step, and features enter all steps. "
                f"Inject after it: '{'/'.join(address[:depth])}'."
            )
        calls = [
            "/".join(node.key for node in nodes)
            for nodes in graph.walk()
            if nodes[-1].operation is network.operation
        ]
        if len(calls) > 1:
            places = " or ".join(f"'{call}'" for call in calls)
            raise ValueError(
                f"inject['{source}'] enters '{path}', and the network "
                f"'{network.name}' is called {len(calls)} times: what enters "
                "one call of it would enter all. Inject after a call as a "
                f"whole: {places}."
            )


def _check_is_one_tensor(graph: Graph, source: str, place: Place) -> None:
    if place.is_tensor:
        return
    address = tuple(map(str, place.reference[:-1]))
    paths = [one.path for one in output_places(graph, address)]
    raise ValueError(
        f"inject['{source}'] enters '{place.path}', which gives {len(paths)} "
        f"tensors. Say which: {listed(paths)}."
    )
