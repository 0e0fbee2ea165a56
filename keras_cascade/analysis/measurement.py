"""Runs a plan on data, once, and measures what its tensors hold."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade import data as user_data
from keras_cascade.adapters.fitting import fit_adapters, unfitted
from keras_cascade.analysis.report import Distance, Finding, ValueStatistics
from keras_cascade.analysis.statistics import (
    ChannelMoments,
    distance,
    to_rows,
)
from keras_cascade.analysis.trained_statistics import (
    TrainedStatistics,
    first_normalisations_after,
    statistics_at,
    statistics_before,
)
from keras_cascade.assembly.adapters import run_adapters
from keras_cascade.assembly.networks import (
    fuse_streams,
    read_taps,
    run_downstream,
)
from keras_cascade.assembly.preprocessing import prepare_inputs
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.graph.flattening import FlatGraph, flatten
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.replay import Replay
from keras_cascade.planning.inputs import make_inputs, packed, side_inputs
from keras_cascade.planning.plan import Plan

BATCH = 32


@dataclass(frozen=True, eq=False)
class Measurement:
    """What data showed.

    Attributes:
        inputs: What the cascade's inputs hold, by their names.
        sources: What taps and extra inputs hold, by their names.
        distances: How far each stream is from what the downstream was trained
            on, by the streams' names.
        untrained: The streams that were compared with what never trained.
        findings: What kept something from being measured.
    """

    inputs: dict[str, ValueStatistics]
    sources: dict[str, ValueStatistics]
    distances: dict[str, tuple[Distance, ...]]
    untrained: set[str]
    findings: list[Finding]


def measure(plan: Plan, data: Any) -> Measurement:
    """Measures taps, and what arrives at the downstream, in one pass.

    A copy of everything is run, in inference mode. Adapters that learn from
    data and have not done so are fitted first, in a pass of their own.

    Args:
        plan: A plan that builds.
        data: Everything that `fit` takes.

    Raises:
        ValueError: If the data lack an input.
    """
    trial = _Trial(plan)
    findings = _fit(trial.cascade, data)
    comparisons = [] if findings else list(_comparisons(trial))
    return _run(trial, comparisons, data, findings)


class _Trial:
    """A cascade of copies, as building makes it, up to heads and flags."""

    def __init__(self, plan: Plan):
        # Copies also where the cascade is to share the networks' layers.
        plan = replace(plan, spec=plan.spec.with_changes(shares=False))
        main = make_inputs(plan.inputs)
        side = side_inputs(plan.spec.extra_inputs)
        prepared = prepare_inputs(plan, main)
        features = read_taps(plan, prepared)
        streams, feeds = run_adapters(plan, {**features, **side})
        fused = fuse_streams(plan, streams)
        result = run_downstream(plan, fused, feeds, prepared)
        outputs = {**features, "fused": fused, "result": result}
        flat = {
            f"output_{number}": tensor
            for number, tensor in enumerate(keras.tree.flatten(outputs))
        }
        self.plan = plan
        self.main = list(main)
        self.cascade = Cascade(packed({**main, **side}), flat, spec=plan.spec)
        self.graph: Graph = read_graph(self.cascade, keep_names=True)
        self.flat: FlatGraph = flatten(self.graph)
        self.sources = {
            name: self._reference(x) for name, x in {**features, **side}.items()
        }
        self.fused = [self._reference(x) for x in keras.tree.flatten(fused)]
        self.streams = {s.name: self._stream(s) for s in plan.streams}

    def _reference(self, tensor: keras.KerasTensor) -> Reference:
        return self.flat.resolve(self.graph.reference(tensor))

    def _stream(self, stream: Any) -> Reference:
        """Where a stream leaves its adapter; the tap where it has none."""
        own: Reference = ("adapters", stream.name, 0)
        found = self.flat.resolve(own)
        if found in self.flat.producers:
            return found
        return self.sources[stream.source]


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A tensor, and what is expected of it, for some streams."""

    reference: Reference
    expected: TrainedStatistics
    streams: tuple[str, ...]


def _fit(cascade: Cascade, data: Any) -> list[Finding]:
    """Fits what has to be fitted; says what cannot be."""
    waiting = ["/".join(path) for path in unfitted(cascade)]
    if not waiting:
        return []
    if not user_data.is_reiterable(data):
        return [
            Finding(
                "note",
                tuple(waiting),
                "They learn from data, which takes a pass of its own, and the "
                "data can be read once: what lies behind them was not "
                "measured.",
                "Pass an array, a data set or a PyDataset.",
            )
        ]
    try:
        fit_adapters(cascade, data, BATCH, verbose=False)
    except ValueError as error:
        what = f"adapt would fail on these data: {error}"
        return [Finding("warning", tuple(waiting), what)]
    return []


def _comparisons(trial: _Trial) -> Iterator[_Comparison]:
    """What is compared with what, place by place."""
    plan = trial.plan
    if plan.downstream is None:
        return
    graph = plan.downstream
    flat = flatten(graph)
    for stream in plan.streams:
        for site in plan.wiring.sites:
            if site.label in stream.labels:
                own = trial.streams[stream.name]
                reference = (*site.address, 0)
                replaces = site.injection.merge == "replace"
                yield from _compared(
                    trial, flat, reference, own, stream.name, replaces
                )
    for name, source in (plan.wiring.fed or {}).items():
        (tensor,) = [
            x for x in graph.inputs if graph.sources[id(x)][0].name == name
        ]
        reference = graph.reference(tensor)
        own = trial.streams[source]
        yield from _compared(trial, flat, reference, own, source, True)
    # What is joined with the input is silent at first.
    if plan.wiring.fused and plan.wiring.joint is None:
        yield from _fused_comparisons(trial, flat)


def _compared(
    trial: _Trial,
    flat: FlatGraph,
    reference: Reference,
    own: Reference,
    stream: str,
    runs_on: bool,
) -> Iterator[_Comparison]:
    expected = statistics_at(flat, reference)
    if expected is not None:
        yield _Comparison(own, expected, (stream,))
    elif runs_on:
        yield from _behind(trial, own, (stream,))


def _fused_comparisons(trial: _Trial, flat: FlatGraph) -> Iterator[_Comparison]:
    plan = trial.plan
    names = plan.wiring.fused
    (fused,) = trial.fused
    expected = statistics_at(flat, flat.inputs[0])
    if expected is None:
        yield from _behind(trial, fused, names)
        return
    start = 0
    widths = [_width(trial, name) for name in names]
    is_split = plan.spec.fusion == "concat" or len(names) == 1
    if not is_split or sum(widths) != len(expected.mean):
        yield _Comparison(fused, expected, names)
        return
    for name, width in zip(names, widths, strict=True):
        part = expected.channels(start, start + width)
        yield _Comparison(trial.streams[name], part, (name,))
        start += width


def _behind(
    trial: _Trial, reference: Reference, streams: tuple[str, ...]
) -> Iterator[_Comparison]:
    """At the first normalisations of the downstream that features reach."""
    for call in first_normalisations_after(trial.flat, reference):
        expected = statistics_before(call)
        origin = call.inputs[0]
        if call.address[0] == "downstream" and expected and origin:
            yield _Comparison(origin, expected, streams)


def _width(trial: _Trial, stream: str) -> int:
    return int(trial.graph.tensor(trial.streams[stream]).shape[-1] or 0)


def _run(
    trial: _Trial,
    comparisons: list[_Comparison],
    data: Any,
    findings: list[Finding],
) -> Measurement:
    wanted = dict.fromkeys(
        (*trial.sources.values(), *(one.reference for one in comparisons))
    )
    names = {reference: str(i) for i, reference in enumerate(wanted)}
    axes = {names[one.reference]: one.expected.axis for one in comparisons}
    probe = _Probe(trial, {name: ref for ref, name in names.items()})
    moments, paths = _Moments(), input_paths(trial.cascade.input)
    for batch in user_data.batches(data, BATCH):
        given = sort_inputs(batch, paths, "The data")
        for name in trial.main:
            moments.update(f"input/{name}", given[name].reshape(-1, 1))
        tensors, masks = probe.predict_on_batch(list(given.values()))
        for name, tensor in tensors.items():
            axis, mask = axes.get(name, -1), masks.get(name)
            moments.update(name, to_rows(tensor, axis, mask))
    found = moments.by_name
    distances, untrained = _distances(comparisons, names, found)
    return Measurement(
        {
            name: found[f"input/{name}"].over_all()
            for name in trial.main
            if f"input/{name}" in found
        },
        {
            name: found[names[reference]].over_all()
            for name, reference in trial.sources.items()
            if names[reference] in found
        },
        distances,
        untrained,
        findings,
    )


def _distances(
    comparisons: list[_Comparison],
    names: Mapping[Reference, str],
    found: Mapping[str, ChannelMoments],
) -> tuple[dict[str, tuple[Distance, ...]], set[str]]:
    """By stream, and the streams whose norm has never been trained."""
    distances: dict[str, tuple[Distance, ...]] = {}
    untrained: set[str] = set()
    for one in comparisons:
        seen = found.get(names[one.reference])
        if seen is None or len(seen.mean) != len(one.expected.mean):
            continue
        for stream in one.streams:
            far = distance(one.expected, seen)
            distances[stream] = (*distances.get(stream, ()), far)
            untrained |= {stream} if one.expected.is_untrained else set()
    return distances, untrained


class _Moments:
    """The moments of several tensors, of those that hold numbers."""

    def __init__(self):
        self.by_name: dict[str, ChannelMoments] = {}

    def update(self, name: str, rows: Any) -> None:
        """Adds rows, with a column a channel."""
        if rows.dtype.kind in "OSU":
            return
        if name not in self.by_name:
            self.by_name[name] = ChannelMoments(rows.shape[-1])
        self.by_name[name].update(rows)


class _Probe(keras.Model):
    """Gives inner tensors of a trial, and the masks that travel with them.

    Keras hangs masks on tensors; what `predict_on_batch` gives has lost them.
    """

    def __init__(self, trial: _Trial, wanted: Mapping[str, Reference]):
        super().__init__(name="probe")
        replay = Replay(share=True)
        self.network, self.positions = replay.part(
            trial.graph, "measured", wanted
        )

    def call(self, inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors by their names, and the masks of those that have one."""
        given = [inputs[position] for position in self.positions]
        packed = keras.tree.pack_sequence_as(self.network.input, given)
        tensors = self.network(packed, training=False)
        masks = {name: compat.keras_mask(x) for name, x in tensors.items()}
        return tensors, {n: m for n, m in masks.items() if m is not None}
