"""Plans the stream of each tap and extra input: its target and adapter.

Tested by `tests/assembly/test_adapters.py` and
`tests/behaviour/test_downstream_input.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from keras_cascade.adapters import StitchAdapter
from keras_cascade.adapters.streams import Stream, Target
from keras_cascade.graph.data_formats import data_format_at
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.taps import Tap
from keras_cascade.injection.sites import Site
from keras_cascade.planning.spec import AdapterChoice, CascadeSpec
from keras_cascade.planning.wiring import Wiring


def plan_streams(
    graphs: Mapping[str, Graph],
    tapped: Sequence[Tap],
    spec: CascadeSpec,
    wiring: Wiring,
) -> list[Stream]:
    """Returns the streams of all taps in order, then of the extra inputs.

    A tap that only a head reads has none.
    """
    formats = {
        tap.name: data_format_at(graphs[tap.network], tap.reference)
        for tap in tapped
    }
    main = _main_target(graphs.get("downstream"), spec, wiring)
    streams: list[Stream] = []
    for name in (*spec.taps, *spec.extra_inputs):
        for stream in _streams_of(name, spec, wiring, graphs, main):
            is_extra = name in spec.extra_inputs
            data_format = formats.get(name)
            streams.append(
                replace(stream, data_format=data_format, is_extra=is_extra)
            )
    return streams


def check_adapters_are_used(
    adapters: object, streams: Sequence[Stream]
) -> None:
    """Raises a ValueError for an adapter of a tap that only a head reads."""
    if not isinstance(adapters, Mapping):
        return
    going = {stream.source for stream in streams}
    for name, choice in adapters.items():
        if name not in going and choice is not None and choice != "auto":
            raise ValueError(
                f"adapters gives '{name}' an adapter, and nothing but the head "
                "of its name reads that tap, as it is. Leave the adapter out, "
                f"or put it first in the head: head={{'{name}': [adapter, "
                "layer]}."
            )


def _streams_of(
    name: str,
    spec: CascadeSpec,
    wiring: Wiring,
    graphs: Mapping[str, Graph],
    main: Target,
) -> list[Stream]:
    """Returns the streams of a tap: one, or one for each kind of target."""
    choice = spec.adapters[name]
    if name in wiring.fused:
        return [Stream(name, name, choice, main)]
    fed = {source: inner for inner, source in (wiring.fed or {}).items()}
    if name in fed:
        target = _input_target(graphs["downstream"], fed[name])
        return [Stream(name, name, choice, target)]
    sites = [site for site in wiring.sites if site.source == name]
    return _injected_streams(name, choice, sites)


def _injected_streams(
    name: str, choice: AdapterChoice, sites: Sequence[Site]
) -> list[Stream]:
    """Returns a stream for each result that the adapter must give."""
    targets: dict[tuple, Target] = {}
    labels: dict[tuple, list[str]] = {}
    for site in sites:
        target = _site_target(site)
        key: tuple = ()
        if isinstance(choice, StitchAdapter):
            # Each place has values of its own.
            key = (site.label,)
        elif choice == "auto":
            key = (target.shape, target.data_format, target.broadcasts)
        targets.setdefault(key, target)
        labels.setdefault(key, []).append(site.label)
    return [
        Stream(
            name if len(targets) == 1 else labels[key][0],
            name,
            choice,
            target,
            labels=tuple(labels[key]),
        )
        for key, target in targets.items()
    ]


def _site_target(site: Site) -> Target:
    shape = (site.width,) if site.injection.merge == "film" else site.shape
    return Target(
        site.injection.path,
        shape,
        concatenated=False,
        data_format=site.data_format,
        broadcasts=site.injection.merge != "replace",
    )


def _main_target(
    downstream: Graph | None, spec: CascadeSpec, wiring: Wiring
) -> Target:
    """Returns the target of the fused streams."""
    concatenated = spec.fusion == "concat"
    if downstream is None:
        return Target(concatenated=concatenated)
    tensor = downstream.inputs[0]
    return Target(
        downstream.name,
        tuple(tensor.shape[1:]),
        concatenated and wiring.joint is None,
        data_format_at(downstream, downstream.reference(tensor)),
        broadcasts=wiring.joint is not None,
    )


def _input_target(downstream: Graph, name: str) -> Target:
    (tensor,) = [
        x
        for x in downstream.inputs
        if downstream.sources[id(x)][0].name == name
    ]
    return Target(
        f"{downstream.name}/{name}",
        tuple(tensor.shape[1:]),
        concatenated=False,
        data_format=data_format_at(downstream, downstream.reference(tensor)),
    )
