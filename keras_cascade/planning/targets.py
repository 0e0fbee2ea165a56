"""Plans the values that stitched taps are mapped to.

Tested by `tests/behaviour/test_stitching.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.adapters import StitchAdapter
from keras_cascade.adapters.streams import Stream
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.pruning import find_needed
from keras_cascade.injection.sites import Site
from keras_cascade.networks.loading import as_network
from keras_cascade.planning.inputs import (
    CascadeInput,
    NetworkInput,
    network_inputs,
)
from keras_cascade.planning.spec import CascadeSpec


@dataclass(frozen=True, eq=False)
class Values:
    """The values that a stitched tap is mapped to, and how to compute them.

    Attributes:
        graph: The network that computes them.
        reference: Their tensor in it.
        feeds: The cascade's input for each input that they depend on.
    """

    graph: Graph
    reference: Reference
    feeds: tuple[tuple[CascadeInput, NetworkInput], ...]

    @property
    def is_downstream(self) -> bool:
        """Whether the network is the downstream, with its preprocessing."""
        return all(fed.network == "downstream" for _, fed in self.feeds)


def plan_targets(
    streams: Sequence[Stream],
    sites: Sequence[Site],
    downstream: Graph | None,
    spec: CascadeSpec,
    inputs: Sequence[CascadeInput],
) -> dict[str, Values]:
    """Returns the values of each stitched stream, by the stream's name.

    They are what the original downstream computes where the stream enters, or
    what the adapter's own `target` computes, from the cascade's inputs.

    Raises:
        ValueError: If they cannot be computed from these, and the adapter has
            not been fitted.
    """
    by_label = {site.label: site for site in sites}
    found = {}
    for stream in streams:
        adapter = stream.choice
        if not isinstance(adapter, StitchAdapter):
            continue
        try:
            if adapter.target is not None:
                found[stream.name] = _of_network(stream, adapter.target, inputs)
            else:
                site = by_label.get(stream.labels[0]) if stream.labels else None
                found[stream.name] = _of_site(
                    stream, site, downstream, spec, inputs
                )
        except ValueError:
            # One that knows its values has been fitted, or will be given
            # weights: it says so when it is to be fitted again.
            if adapter.open_width or adapter.target is not None:
                raise
    return found


def _of_site(
    stream: Stream,
    site: Site | None,
    downstream: Graph | None,
    spec: CascadeSpec,
    inputs: Sequence[CascadeInput],
) -> Values:
    """Returns the values at the place where the stream enters."""
    advice = (
        "Give it the network that computes the values from the cascade's "
        "inputs, StitchAdapter(target=network); or fit it first, "
        "StitchAdapter().adapt((features, values))."
    )
    if downstream is None or site is None or site.injection.merge == "film":
        raise ValueError(
            f"The StitchAdapter of '{stream.source}' learns what a downstream "
            "computes in an inner layer, and its output does not take the "
            f"place of one. Enter one: inject={{'{stream.source}': "
            f"Injection(path, merge='replace')}}. {advice}"
        )
    named = spec.inputs.get("downstream", {})
    try:
        return values_at(downstream, site.reference, named, inputs)
    except UnfedError as error:
        raise ValueError(
            f"The StitchAdapter of '{stream.source}' learns what downstream "
            f"'{downstream.name}' computes at '{site.path}' on the inputs of "
            f"the cascade, and {error} If it takes one, say which: "
            f"inputs={{'downstream': name}}. {advice}"
        ) from error


class UnfedError(ValueError):
    """An input of a network that takes none of the inputs of a cascade."""


def values_at(
    graph: Graph,
    reference: Reference,
    named: Mapping[str, str],
    inputs: Sequence[CascadeInput],
    label: str = "downstream",
) -> Values:
    """Returns what a network computes at a tensor, from inputs of a cascade.

    Args:
        graph: The network.
        reference: The tensor.
        named: The cascade's inputs that the user named for the network's.
        inputs: The inputs of the cascade.
        label: The role of the network. Defaults to `"downstream"`.

    Raises:
        UnfedError: If one of its inputs takes none of the cascade's.
    """
    first = graph.reference(graph.inputs[0])
    known = network_inputs(graph, label, data_format_at(graph, first))
    pairs = []
    for position in find_needed(graph, [reference]).inputs:
        one = known[position]
        given = next(_possible(one, named.get(one.name), inputs), None)
        if given is None:
            raise UnfedError(
                f"its input '{one.name}' of shape "
                f"{tuple(one.tensor.shape[1:])} takes none of them: "
                f"{_shown(inputs)}."
            )
        pairs.append((given, one))
    return Values(graph, reference, tuple(pairs))


def _of_network(
    stream: Stream, target: keras.Model, inputs: Sequence[CascadeInput]
) -> Values:
    """Returns the values that the network of the user computes."""
    graph = read_graph(as_network(target, "target"))
    reference = graph.reference(graph.outputs[0])
    try:
        return values_at(graph, reference, {}, inputs, "target")
    except UnfedError as error:
        raise ValueError(
            f"The target '{target.name}' of the StitchAdapter of "
            f"'{stream.source}' computes from the inputs of the cascade, and "
            f"{error} Give a network that takes them."
        ) from error


def _possible(
    one: NetworkInput, name: str | None, inputs: Sequence[CascadeInput]
) -> Iterator[CascadeInput]:
    """Yields the cascade's inputs that a network's input may take.

    That is the one that the user named, or of the name that it would have in
    the cascade, or the only one; images are resized.
    """
    names = [name] if name else [one.base, one.name]
    for given in inputs:
        if given.name in names and _fits(given, one):
            yield given
    if name is None and len(inputs) == 1 and _fits(inputs[0], one):
        yield inputs[0]


def _fits(given: CascadeInput, one: NetworkInput) -> bool:
    shapes = tuple(given.tensor.shape[1:]), tuple(one.tensor.shape[1:])
    kinds = [
        keras.backend.is_float_dtype(x.dtype) or x.dtype == "uint8"
        for x in (given.tensor, one.tensor)
    ]
    if kinds[0] != kinds[1] or len(shapes[0]) != len(shapes[1]):
        return False
    # The sizes of images may differ, not their channels.
    first = one.data_format == "channels_first"
    axes = range(len(shapes[0]))
    if len(shapes[0]) == 3:
        axes = [0 if first else 2]
    return all(
        None in (shapes[0][axis], shapes[1][axis])
        or shapes[0][axis] == shapes[1][axis]
        for axis in axes
    )


def _shown(inputs: Sequence[CascadeInput]) -> str:
    return listed(f"{x.name} {tuple(x.tensor.shape[1:])}" for x in inputs)
