"""Plans a cascade: settles everything before anything is built.

Tested by `tests/test_build.py` and `tests/behaviour/test_bad_input.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_cascade.adapters.streams import Stream
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.graph.pruning import find_needed
from keras_cascade.graph.taps import Tap, resolve_all_taps
from keras_cascade.injection.arguments import normalise_injections
from keras_cascade.injection.merging import INJECTIONS
from keras_cascade.networks.loading import as_network, load_network
from keras_cascade.networks.preprocess_argument import resolve_preprocess
from keras_cascade.planning.arguments import Arguments
from keras_cascade.planning.direction import check_direction
from keras_cascade.planning.inputs import (
    CascadeInput,
    NetworkInput,
    declared_order,
    network_inputs,
    normalise_inputs,
    plan_inputs,
)
from keras_cascade.planning.normalization import (
    check_fusion,
    check_name,
    normalise_adapters,
    normalise_extra_inputs,
    normalise_head,
    normalise_rates,
    normalise_trainable,
)
from keras_cascade.planning.sharing import (
    check_shared_names,
    find_one_blocks,
    is_apart,
)
from keras_cascade.planning.spec import BLOCKS, CascadeSpec, NetworkInfo
from keras_cascade.planning.streams import check_adapters_are_used, plan_streams
from keras_cascade.planning.targets import Values, plan_targets
from keras_cascade.planning.wiring import (
    Wiring,
    check_mode,
    wire,
    wire_without_downstream,
)
from keras_cascade.training.lora import check_lora_on_copies
from keras_cascade.training.retention.targets import normalise_retention


@dataclass(frozen=True, eq=False)
class Plan:
    """A cascade that is settled and not yet built.

    Attributes:
        spec: The user's arguments, normalised.
        sources: The networks as the user has them, by their names.
        networks: The same as functional models.
        graphs: Their graphs.
        taps: The taps of all upstreams.
        inputs: The inputs of the cascade, but for the extra ones.
        wiring: The tensors that feed the downstream.
        streams: The path of each tap and extra input through its adapter to
            its target.
        targets: The values that stitched streams are mapped to, by stream.
        apart: Whether the downstream has copies of its own of layers that
            upstreams have too.
    """

    spec: CascadeSpec
    sources: Mapping[str, keras.Model]
    networks: Mapping[str, keras.Model]
    graphs: Mapping[str, Graph]
    taps: Sequence[Tap]
    inputs: Sequence[CascadeInput]
    wiring: Wiring
    streams: Sequence[Stream]
    targets: Mapping[str, Values]
    apart: bool = False

    @property
    def blocks(self) -> dict[str, Graph]:
        """The graphs by the names of their blocks."""
        roles = self.spec.roles.items()
        return {block: self.graphs[names[0]] for block, names in roles}

    @property
    def downstream(self) -> Graph | None:
        """The graph of the downstream, if there is one."""
        return self.graphs.get("downstream")

    @property
    def downstream_inputs(self) -> list[str]:
        """The names of the downstream's inputs."""
        graph = self.graphs["downstream"]
        return [graph.sources[id(x)][0].name for x in graph.inputs]


def make_plan(arguments: Arguments) -> Plan:
    """Checks the arguments of `build_cascade` and settles their meaning.

    Nothing is built: networks are loaded and read, no more.

    Raises:
        ValueError: If arguments do not go together.
        TypeError: If an argument is of a kind that is not understood.
    """
    check_name(arguments.name)
    check_mode(arguments.downstream_input, arguments.downstream)
    settled = _settled(arguments)
    given = arguments.networks
    _check_upstream_names(arguments.upstream)
    sources = {role: load_network(net, role) for role, net in given.items()}
    networks = _functional(sources)
    if not arguments.copy:
        check_lora_on_copies(settled["trainable"], networks)
    graphs = {
        name: read_graph(network, keep_names=not arguments.copy)
        for name, network in networks.items()
    }
    check_shared_names(graphs)
    tapped = resolve_all_taps(_without_downstream(graphs), arguments.taps)
    names = [tap.name for tap in tapped]
    known = _inputs_of_networks(graphs)
    named = normalise_inputs(arguments.inputs, known)
    extras = normalise_extra_inputs(
        arguments.extra_inputs, _taken(graphs, tapped)
    )
    spec = CascadeSpec(
        networks={k: NetworkInfo.of(v) for k, v in sources.items()},
        taps={tap.name: tap.path for tap in tapped},
        adapters=normalise_adapters(arguments.adapters, names, list(extras)),
        inject=normalise_injections(arguments.inject, [*names, *extras]),
        inputs=named,
        extra_inputs=extras,
        one_block=find_one_blocks(sources),
        **settled,
    )
    wiring = _wire(graphs, tapped, spec)
    spec = spec.with_changes(inject=_resolved(spec, wiring))
    needed = _needed_inputs(graphs, known, tapped, wiring, spec)
    taken = _blocks(graphs)
    taken |= {name: f"the extra input '{name}'" for name in extras}
    cascade_inputs = plan_inputs(needed, named, taken)
    streams = plan_streams(graphs, tapped, spec, wiring)
    check_adapters_are_used(arguments.adapters, streams)
    targets = plan_targets(
        streams, wiring.sites, graphs.get("downstream"), spec, cascade_inputs
    )
    readers = _readers(needed, targets)
    spec = spec.with_preprocess(
        resolve_preprocess(arguments.preprocess, readers, given, networks)
    )
    return Plan(
        spec=spec,
        sources=sources,
        networks=networks,
        graphs=graphs,
        taps=tapped,
        inputs=cascade_inputs,
        wiring=wiring,
        streams=streams,
        targets=targets,
        apart=_is_apart(graphs, wiring, arguments.copy),
    )


def _readers(
    needed: Sequence[NetworkInput], targets: Mapping[str, Values]
) -> list[str]:
    """Returns the networks that read the cascade's inputs, or do in `adapt`."""
    readers = dict.fromkeys(one.network for one in needed)
    if any(x.is_downstream for x in targets.values()):
        readers["downstream"] = None
    return list(readers)


def _functional(sources: Mapping[str, keras.Model]) -> dict[str, keras.Model]:
    """Returns the networks as functional models, the same one for the same."""
    found = {
        id(source): as_network(source, role) for role, source in sources.items()
    }
    return {role: found[id(source)] for role, source in sources.items()}


def _is_apart(graphs: Mapping[str, Graph], wiring: Wiring, copy: bool) -> bool:
    downstream = graphs.get("downstream")
    injected = bool(wiring.sites or wiring.joint)
    if downstream is None:
        return False
    upstreams = _without_downstream(graphs).values()
    return is_apart(upstreams, downstream, injected, copy)


def _settled(arguments: Arguments) -> dict[str, Any]:
    """Returns the values of the spec that do not depend on the networks."""
    return {
        "fusion": check_fusion(arguments.fusion),
        "downstream_input": arguments.downstream_input,
        "head": normalise_head(arguments.head),
        "trainable": normalise_trainable(arguments.trainable),
        "learning_rates": normalise_rates(arguments.learning_rates),
        "retention": normalise_retention(arguments.retention),
        "shares": not arguments.copy,
    }


def _check_upstream_names(upstream: object) -> None:
    reserved = [block for block in BLOCKS if block != "upstream"]
    for name in upstream if isinstance(upstream, Mapping) else ():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"Upstream name {name!r} is no identifier. Weights and paths "
                "begin with it."
            )
        if name in reserved:
            raise ValueError(
                f"An upstream cannot be called '{name}', which is another "
                f"block of the cascade. Taken are: {', '.join(reserved)}."
            )


def _without_downstream(graphs: Mapping[str, Graph]) -> dict[str, Graph]:
    return {name: g for name, g in graphs.items() if name != "downstream"}


def _inputs_of_networks(
    graphs: Mapping[str, Graph],
) -> dict[str, list[NetworkInput]]:
    return {
        name: network_inputs(graph, name, _input_format(graph))
        for name, graph in graphs.items()
    }


def _input_format(graph: Graph) -> str | None:
    """Returns the data format of the first input, if it is a map."""
    return data_format_at(graph, graph.reference(graph.inputs[0]))


def _blocks(graphs: Mapping[str, Graph]) -> dict[str, str]:
    """Returns the names that no input can have, as Keras's are unique."""
    return dict.fromkeys((*BLOCKS, *graphs), "a block of the cascade")


def _taken(graphs: Mapping[str, Graph], tapped: Sequence[Tap]) -> dict:
    """Returns the names that no extra input can have, with their owners."""
    return (
        _blocks(graphs)
        | {INJECTIONS: "a part of the adapters"}
        | {tap.name: f"the tap at '{tap.path}'" for tap in tapped}
    )


def _wire(
    graphs: Mapping[str, Graph], tapped: Sequence[Tap], spec: CascadeSpec
) -> Wiring:
    downstream = graphs.get("downstream")
    if downstream is None:
        return wire_without_downstream(spec)
    upstreams = _without_downstream(graphs)
    check_direction(spec.inject, upstreams, downstream, tapped)
    return wire(downstream, spec)


def _resolved(spec: CascadeSpec, wiring: Wiring) -> dict[str, tuple]:
    """Returns the injections, each with the path that its pattern matched."""
    return {
        name: tuple(
            replace(site.injection, path=site.path)
            for site in wiring.sites
            if site.source == name
        )
        for name in spec.inject
    }


def _needed_inputs(
    graphs: Mapping[str, Graph],
    known: Mapping[str, Sequence[NetworkInput]],
    tapped: Sequence[Tap],
    wiring: Wiring,
    spec: CascadeSpec,
) -> list[NetworkInput]:
    """Returns the inputs of networks that the cascade has to feed."""
    needed = []
    for name, graph in _without_downstream(graphs).items():
        if all(tap.network != name for tap in tapped):
            raise ValueError(
                f"No tap reads the upstream '{name}'. Give it one, or leave "
                "the network out."
            )
        # Each call of a block computes the taps of all.
        (alike,) = (names for names in spec.roles.values() if name in names)
        read = [tap.reference for tap in tapped if tap.network in alike]
        used = find_needed(graph, read).inputs
        needed += _in_declared_order(graph, [known[name][i] for i in used])
    if "downstream" not in graphs:
        return needed
    own = [known["downstream"][i] for i in wiring.own]
    return needed + _in_declared_order(graphs["downstream"], own)


def _in_declared_order(
    graph: Graph, inputs: Sequence[NetworkInput]
) -> list[NetworkInput]:
    """Returns inputs as the network declares them: lists are taken so."""
    order = [id(x) for x in declared_order(graph.input_structure)]
    return sorted(inputs, key=lambda one: order.index(id(one.tensor)))
