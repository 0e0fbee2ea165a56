"""What feeds the downstream: fused features, taps by name, its own inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_cascade._messages import closest, listed
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.insertion import Insertion, inject
from keras_cascade.graph.paths import Address, select
from keras_cascade.graph.pruning import Needed, find_needed
from keras_cascade.graph.taps import Tap
from keras_cascade.injection.arguments import Injection
from keras_cascade.injection.merging import make_insertion, placeholders
from keras_cascade.injection.sites import Site, find_sites, site_at_input

MODES = ("features", "inputs", "both")
Injections = Mapping[str, Sequence[Injection]]


@dataclass(frozen=True, eq=False)
class Wiring:
    """What feeds the downstream.

    Attributes:
        mode: "features", "inputs" or "both"; None without a downstream.
        fused: The taps and extra inputs that join the fusion.
        fed: Input of the downstream to the tap or extra input that feeds it.
        own: The positions of the inputs that the cascade takes for it.
        sites: Where features are injected.
        joint: Where the fused features join the cascade's own input.
    """

    mode: str | None = None
    fused: tuple[str, ...] = ()
    fed: Mapping[str, str] | None = None
    own: tuple[int, ...] = ()
    sites: tuple[Site, ...] = ()
    joint: Site | None = None


def check_mode(mode: Any, downstream: Any) -> None:
    """Raises an error where `downstream_input` is none of what is possible."""
    if mode is None:
        return
    if mode not in MODES:
        possible = ", ".join(f"'{name}'" for name in MODES)
        raise ValueError(
            f"Unknown downstream_input {mode!r}. Possible: {possible}, or "
            "None, which is 'inputs' if every tap is injected."
        )
    if downstream is None:
        raise ValueError(
            f"downstream_input='{mode}' says what a downstream sees, and there "
            "is none."
        )


def check_direction(
    injections: Injections,
    upstreams: Mapping[str, Graph],
    downstream: Graph,
    taps: Sequence[Tap],
) -> None:
    """Raises an error where an injection means a layer of an upstream.

    Args:
        injections: What is injected where.
        upstreams: The upstreams by the names of their blocks.
        downstream: The downstream, whose own layers come first.
        taps: What is read of the upstreams.
    """
    sources = {tap.name: tap for tap in taps}
    for name, several in injections.items():
        for path in (injection.path for injection in several):
            found = _in_an_upstream(path, upstreams, downstream)
            if found is not None:
                raise ValueError(
                    _backward(name, path, found, sources.get(name), upstreams)
                    + f" Name a layer of the downstream '{downstream.name}'; "
                    "list_taps(network) shows them all."
                )


def wire_without_downstream(
    streams: Sequence[str], injections: Injections
) -> Wiring:
    """All streams are fused, or the outputs; nothing can be injected."""
    if injections:
        raise ValueError(
            f"inject names {listed(injections)}, and there is no downstream "
            "whose layers they could enter. Give downstream=, or leave out "
            "inject."
        )
    return Wiring(fused=tuple(streams))


def wire(
    graph: Graph,
    taps: Sequence[str],
    extras: Sequence[str],
    injections: Injections,
    *,
    fusion: Any,
    mode: str | None,
    named_inputs: Sequence[str],
    read_by_heads: Sequence[str],
) -> Wiring:
    """Settles what feeds the downstream.

    Args:
        graph: The downstream.
        taps: The taps' names.
        extras: The extra inputs' names.
        injections: What is injected where.
        fusion: The argument `fusion`.
        mode: The argument `downstream_input`.
        named_inputs: Inputs of the downstream that `inputs` gives a name.
        read_by_heads: Taps that heads read.

    Raises:
        ValueError: If something goes nowhere, or an input stays unfed.
    """
    free = [name for name in (*taps, *extras) if name not in injections]
    all_injected = bool(taps) and all(tap in injections for tap in taps)
    mode = mode or ("inputs" if all_injected else "features")
    if mode == "features" and all_injected:
        raise ValueError(
            "downstream_input='features', and every tap is injected "
            f"({listed(taps)}): no features are left for the input of "
            f"'{graph.name}'. Use 'inputs', or tap once more what is to feed "
            "it: an injected tap does not join the fusion."
        )
    if mode == "inputs":
        _check_nothing_is_left(free, read_by_heads, graph)
        free = []
    sites = tuple(find_sites(graph, injections, "downstream"))
    names = [graph.sources[id(x)][0].name for x in graph.inputs]
    by_name = len(names) > 1 and bool(free)
    if by_name:
        fed = _fed_by_name(graph, names, free, fusion, read_by_heads)
        _check_all_are_fed(graph, names, fed, mode, named_inputs)
        free = []
    else:
        fed = {}
    joint = None
    if mode == "both" and free:
        joint = site_at_input(graph, 0, sites)
    if mode == "both" and not free and not fed:
        raise ValueError(
            "downstream_input='both' joins features with the input, and every "
            f"tap is injected ({listed(taps)}). Use 'inputs'."
        )
    demand = _demand(graph, sites, joint)
    used = [i for i in demand.inputs if i < len(names) and names[i] not in fed]
    if mode == "features" and free and not used:
        raise ValueError(_left_out(graph, sites, "The features"))
    own = () if mode == "features" and not by_name else tuple(used)
    return Wiring(mode, tuple(free), fed, own, sites, joint)


def _in_an_upstream(
    path: str, upstreams: Mapping[str, Graph], downstream: Graph
) -> tuple[str, Address] | None:
    """The layer that a path means, if only an upstream has it."""
    if select(downstream, path) or path.startswith("downstream/"):
        return None
    label, _, inside = path.partition("/")
    if label in upstreams and inside:
        upstreams, path = {label: upstreams[label]}, inside
    for label, graph in upstreams.items():
        # An upstream with several outputs has no last operation.
        if not path.startswith("-") and (found := select(graph, path)):
            return label, found[0]
    return None


def _backward(
    name: str,
    path: str,
    found: tuple[str, Address],
    tap: Tap | None,
    upstreams: Mapping[str, Graph],
) -> str:
    label, address = found
    message = (
        f"inject['{name}'] names '{path}', a layer of the upstream "
        f"'{upstreams[label].name}': features enter the downstream."
    )
    if tap is None or tap.network != label:
        return message
    if _feeds(upstreams[label], address, tap):
        return (
            f"{message} There it would be a cycle: the tap '{name}' at "
            f"'{tap.path}' is computed from that layer."
        )
    return message


def _feeds(graph: Graph, address: Address, tap: Tap) -> bool:
    """Whether what a call gives is needed for a tap."""
    tensor = graph.tensor((*address, 0))
    entry = Insertion(address, {"probe": tensor}, lambda x, fed: [])
    entered = inject(graph, [entry])
    position = len(graph.inputs)
    return position in find_needed(entered, [tap.reference]).inputs


def _check_nothing_is_left(
    free: Sequence[str], read_by_heads: Sequence[str], graph: Graph
) -> None:
    left = [name for name in free if name not in read_by_heads]
    if left:
        raise ValueError(
            f"'{graph.name}' sees the cascade's own inputs "
            f"(downstream_input='inputs'), so {listed(left)} goes nowhere. "
            "Inject it, or use downstream_input='both'."
        )


def _fed_by_name(
    graph: Graph,
    names: Sequence[str],
    free: Sequence[str],
    fusion: Any,
    read_by_heads: Sequence[str],
) -> dict[str, str]:
    if fusion is not None:
        raise ValueError(
            f"downstream '{graph.name}' has {len(names)} inputs "
            f"({listed(names)}), and fusion={fusion!r} makes one of "
            f"{listed(free)}. Use fusion=None, which feeds each input by the "
            "tap or extra input of its name."
        )
    for name in free:
        if name not in names and name not in read_by_heads:
            raise ValueError(
                f"fusion=None feeds taps and extra inputs to the inputs of "
                f"their names, and '{graph.name}' has none called '{name}'."
                f"{closest(name, names)} There are: {listed(names)}."
            )
    return {name: name for name in names if name in free}


def _check_all_are_fed(
    graph: Graph,
    names: Sequence[str],
    fed: Mapping[str, str],
    mode: str,
    named_inputs: Sequence[str],
) -> None:
    if mode != "features":
        return
    for name in names:
        if name not in fed and name not in named_inputs:
            raise ValueError(
                f"Nothing feeds the input '{name}' of downstream "
                f"'{graph.name}'. Name a tap or an extra input so, or take it "
                "from the cascade's own inputs: "
                f"inputs={{'downstream': {{'{name}': '{name}'}}}}."
            )


def _demand(graph: Graph, sites: Sequence[Site], joint: Site | None) -> Needed:
    """What the downstream's outputs need once everything has entered."""
    entries = [
        make_insertion(site, placeholders(site))
        for site in (*sites, *([joint] if joint else []))
    ]
    entered = inject(graph, entries)
    demand = find_needed(
        entered, [entered.reference(x) for x in entered.outputs]
    )
    fed = {
        entered.sources[id(x)][0].name: i for i, x in enumerate(entered.inputs)
    }
    for site in sites:
        if not {fed[name] for name in placeholders(site)} <= set(demand.inputs):
            raise ValueError(_left_out(graph, sites, _of(site), site))
    if not demand.nodes & set(graph.by_key) - _input_keys(graph):
        raise ValueError(
            f"merge='replace' at the output of '{graph.name}' leaves nothing "
            "of the downstream. Leave the downstream out, or enter it at an "
            "earlier layer."
        )
    return demand


def _left_out(
    graph: Graph, sites: Sequence[Site], what: str, site: Site | None = None
) -> str:
    """What to say where something enters what nothing depends on."""
    others = [
        s.injection.path
        for s in sites
        if s.injection.merge == "replace" and s is not site
    ]
    if others:
        return (
            f"{what} would enter a part of '{graph.name}' that is not in the "
            f"cascade: merge='replace' at {listed(others)} leaves out what "
            "came before. Enter behind it, or drop one of the two."
        )
    return (
        f"{what} would not reach any output of '{graph.name}': nothing that "
        "it gives depends on that layer."
    )


def _of(site: Site) -> str:
    return f"inject['{site.source}'] at '{site.injection.path}'"


def _input_keys(graph: Graph) -> set[str]:
    return {node.key for node in graph.nodes if node.is_input}
