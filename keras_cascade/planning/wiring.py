"""Settles what feeds the downstream: features, taps by name, its own inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.insertion import inject
from keras_cascade.graph.pruning import Needed, find_needed
from keras_cascade.injection.merging import make_insertion, placeholders
from keras_cascade.injection.sites import Site, find_sites, site_at_input
from keras_cascade.planning.spec import CascadeSpec

MODES = ("features", "inputs", "both")


@dataclass(frozen=True, eq=False)
class Wiring:
    """The tensors that feed the downstream, by where they come from.

    Attributes:
        mode: "features", "inputs" or "both"; None without a downstream.
        fused: The taps and extra inputs that join the fusion.
        fed: Input of the downstream to the tap or extra input that feeds it.
        own: The positions of the downstream's inputs that become inputs of
            the cascade.
        sites: The layers at which features are injected.
        joint: The site at which the fused features join the cascade's own
            input.
    """

    mode: str | None = None
    fused: tuple[str, ...] = ()
    fed: Mapping[str, str] | None = None
    own: tuple[int, ...] = ()
    sites: tuple[Site, ...] = ()
    joint: Site | None = None


def check_mode(mode: str | None, downstream: object) -> None:
    """Raises a ValueError for a `downstream_input` that is not possible."""
    if mode is None:
        return
    # An array compared with names gives an array.
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(
            f"Unknown downstream_input {mode!r}. Possible: {listed(MODES)}, or "
            "None, which is 'inputs' if every tap is injected."
        )
    if downstream is None:
        raise ValueError(
            f"downstream_input='{mode}' says what a downstream sees, and there "
            "is none."
        )


def wire_without_downstream(spec: CascadeSpec) -> Wiring:
    """Returns the wiring in which all streams are fused, or the outputs."""
    if spec.inject:
        raise ValueError(
            f"inject names {listed(spec.inject)}, and there is no downstream "
            "whose layers they could enter. Give downstream=, or leave out "
            "inject."
        )
    return Wiring(fused=(*spec.taps, *spec.extra_inputs))


def wire(graph: Graph, spec: CascadeSpec) -> Wiring:
    """Returns the wiring of a downstream, by its mode.

    Raises:
        ValueError: If a stream goes nowhere, or an input stays unfed.
    """
    streams = (*spec.taps, *spec.extra_inputs)
    free = [name for name in streams if name not in spec.inject]
    sites = tuple(find_sites(graph, spec.inject, "downstream"))
    all_injected = bool(spec.taps) and set(spec.taps) <= set(spec.inject)
    mode = spec.downstream_input
    if mode == "inputs" or (mode is None and all_injected):
        return _wire_inputs(graph, spec, free, sites)
    if mode == "both":
        return _wire_both(graph, spec, free, sites)
    if all_injected:
        raise ValueError(
            "downstream_input='features', and every tap is injected "
            f"({listed(spec.taps)}): no features are left for the input of "
            f"'{graph.name}'. Use 'inputs', or tap once more what is to feed "
            "it: an injected tap does not join the fusion."
        )
    return _wire_features(graph, spec, free, sites)


def _wire_features(
    graph: Graph, spec: CascadeSpec, free: list[str], sites: tuple[Site, ...]
) -> Wiring:
    """Features take the place of the downstream's inputs."""
    if len(graph.inputs) > 1 and free:
        fed = _fed_by_name(graph, spec, free)
        _check_all_are_fed(graph, fed, spec.inputs.get("downstream", {}))
        own = _own_inputs(graph, fed, sites)
        return Wiring("features", fed=fed, own=own, sites=sites)
    if not _own_inputs(graph, {}, sites) and free:
        raise ValueError(_unreachable(graph, sites, "The features"))
    return Wiring("features", tuple(free), {}, sites=sites)


def _wire_inputs(
    graph: Graph, spec: CascadeSpec, free: list[str], sites: tuple[Site, ...]
) -> Wiring:
    """The downstream sees the cascade's own inputs; all else is injected."""
    if left := [name for name in free if name not in _read_by_heads(spec)]:
        raise ValueError(
            f"'{graph.name}' sees the cascade's own inputs "
            f"(downstream_input='inputs'), so {listed(left)} goes nowhere. "
            "Inject it, or use downstream_input='both'."
        )
    own = _own_inputs(graph, {}, sites)
    return Wiring("inputs", fed={}, own=own, sites=sites)


def _wire_both(
    graph: Graph, spec: CascadeSpec, free: list[str], sites: tuple[Site, ...]
) -> Wiring:
    """Features join the input; of several inputs they feed some by name."""
    if not free:
        raise ValueError(
            "downstream_input='both' joins features with the input, and every "
            f"tap is injected ({listed(spec.taps)}). Use 'inputs'."
        )
    if len(graph.inputs) > 1:
        fed = _fed_by_name(graph, spec, free)
        own = _own_inputs(graph, fed, sites)
        return Wiring("both", fed=fed, own=own, sites=sites)
    joint = site_at_input(graph, 0, sites)
    own = _own_inputs(graph, {}, sites, joint)
    return Wiring("both", tuple(free), {}, own, sites, joint)


def _read_by_heads(spec: CascadeSpec) -> set[str]:
    return set(spec.head or {}) & set(spec.taps)


def _input_names(graph: Graph) -> list[str]:
    return [graph.sources[id(x)][0].name for x in graph.inputs]


def _own_inputs(
    graph: Graph,
    fed: Mapping[str, str],
    sites: Sequence[Site],
    joint: Site | None = None,
) -> tuple[int, ...]:
    """Returns the positions of the inputs that are needed and not fed."""
    names = _input_names(graph)
    used = _needed(graph, sites, joint).inputs
    return tuple(i for i in used if i < len(names) and names[i] not in fed)


def _fed_by_name(
    graph: Graph, spec: CascadeSpec, free: Sequence[str]
) -> dict[str, str]:
    names = _input_names(graph)
    if spec.fusion is not None:
        raise ValueError(
            f"downstream '{graph.name}' has {len(names)} inputs "
            f"({listed(names)}), and fusion={spec.fusion!r} makes one of "
            f"{listed(free)}. Use fusion=None, which feeds each input by the "
            "tap or extra input of its name."
        )
    for name in free:
        if name not in names and name not in _read_by_heads(spec):
            raise ValueError(
                "fusion=None feeds taps and extra inputs to the inputs of "
                f"their names, and '{graph.name}' has none called '{name}'."
                f"{closest(name, names)} There are: {listed(names)}."
            )
    return {name: name for name in names if name in free}


def _check_all_are_fed(
    graph: Graph, fed: Mapping[str, str], named: Mapping[str, str]
) -> None:
    for name in _input_names(graph):
        if name not in fed and name not in named:
            raise ValueError(
                f"Nothing feeds the input '{name}' of downstream "
                f"'{graph.name}'. Name a tap or an extra input so, or take it "
                "from the cascade's own inputs: "
                f"inputs={{'downstream': {{'{name}': '{name}'}}}}."
            )


def _needed(
    graph: Graph, sites: Sequence[Site], joint: Site | None = None
) -> Needed:
    """Finds what the downstream's outputs need once features have entered."""
    # An injection may replace all that reads the input: features that join the
    # input then change nothing, which is no error.
    places = [*sites, *([joint] if joint else [])]
    entered = inject(
        graph, [make_insertion(x, placeholders(x)) for x in places]
    )
    needed = find_needed(
        entered, [entered.reference(x) for x in entered.outputs]
    )
    positions = {name: i for i, name in enumerate(_input_names(entered))}
    for site in sites:
        entries = {positions[name] for name in placeholders(site)}
        if not entries <= set(needed.inputs):
            what = f"inject['{site.source}'] at '{site.injection.path}'"
            raise ValueError(_unreachable(graph, sites, what, site))
    inputs = {node.key for node in graph.nodes if node.is_input}
    if not needed.nodes & set(graph.by_key) - inputs:
        raise ValueError(
            f"merge='replace' at the output of '{graph.name}' leaves nothing "
            "of the downstream. Leave the downstream out, or enter it at an "
            "earlier layer."
        )
    return needed


def _unreachable(
    graph: Graph, sites: Sequence[Site], what: str, site: Site | None = None
) -> str:
    """Writes the error for features on which no output would depend."""
    others = [
        s.injection.path
        for s in sites
        if s.injection.merge == "replace" and s is not site
    ]
    if others:
        return (
            f"{what} would enter a part of '{graph.name}' that is not in the "
            f"cascade: merge='replace' at {listed(others)} leaves out what "
            "came before. Enter after it, or drop one of the two."
        )
    return (
        f"{what} would not reach any output of '{graph.name}': none of them "
        "depends on that layer."
    )
