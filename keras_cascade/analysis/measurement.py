"""Runs a plan on data once, and measures the values of its tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

import keras

from keras_cascade import data as user_data
from keras_cascade.adapters.fitting import (
    InnerFeatures,
    fit_adapters,
    unfitted,
)
from keras_cascade.adapters.streams import Stream
from keras_cascade.analysis.report import Distance, Finding, ValueStatistics
from keras_cascade.analysis.statistics import (
    ChannelMoments,
    distance,
    to_rows,
)
from keras_cascade.assembly.adapters import run_adapters
from keras_cascade.assembly.networks import (
    fuse_streams,
    read_taps,
    run_downstream,
)
from keras_cascade.assembly.preprocessing import prepare_inputs
from keras_cascade.assembly.targets import build_targets
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import Reference, read_graph
from keras_cascade.graph.program import Program
from keras_cascade.graph.replay import Replay
from keras_cascade.planning.inputs import make_inputs, packed, side_inputs
from keras_cascade.planning.plan import Plan
from keras_cascade.values.trained_statistics import (
    TrainedStatistics,
    first_normalisations_after,
    statistics_at,
    statistics_before,
)

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Measurement:
    """The statistics of a plan's tensors on data.

    Attributes:
        inputs: The statistics of the cascade's inputs, by their names.
        sources: The statistics of taps and extra inputs, by their names.
        distances: The distances of each stream from what the downstream was
            trained on, by the streams' names.
        untrained: The streams that were compared with a layer that was never
            trained.
        findings: The reasons why something was not measured.
    """

    inputs: dict[str, ValueStatistics]
    sources: dict[str, ValueStatistics]
    distances: dict[str, tuple[Distance, ...]]
    untrained: set[str]
    findings: list[Finding]


def measure(plan: Plan, data: object) -> Measurement:
    """Measures taps, and what arrives at the downstream, in one pass.

    A copy of everything is run, in inference mode. Adapters that learn from
    data and are not fitted yet are fitted first, in a pass of their own.

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
        # Copies also if the cascade is to share the networks' layers.
        plan = replace(plan, spec=plan.spec.with_changes(shares=False))
        main = make_inputs(plan.inputs)
        side = side_inputs(plan.spec.extra_inputs)
        prepared = prepare_inputs(plan, main)
        replay = Replay()
        features = read_taps(plan, prepared, replay)
        streams, feeds = run_adapters(plan, {**features, **side})
        fused = fuse_streams(plan, streams)
        result = run_downstream(plan, fused, feeds, prepared, replay)
        outputs = keras.tree.flatten([features, fused, result])
        named = {f"output_{i}": tensor for i, tensor in enumerate(outputs)}
        self.plan = plan
        self.main = list(main)
        self.cascade = Cascade(packed({**main, **side}), named, spec=plan.spec)
        self.cascade.stitch_to(build_targets(plan))
        # Names in a cascade are stable, also those that look like Keras's.
        self.graph = read_graph(self.cascade, keep_names=True)
        self.flat: Program = flatten(self.graph)
        self.sources = {
            name: self._reference(x) for name, x in {**features, **side}.items()
        }
        self.fused = [self._reference(x) for x in keras.tree.flatten(fused)]
        self.streams = {s.name: self._output(s) for s in plan.streams}

    def _reference(self, tensor: keras.KerasTensor) -> Reference:
        return self.flat.resolve(self.graph.reference(tensor))

    def _output(self, stream: Stream) -> Reference:
        """Returns the output of a stream's adapter, or else the tap."""
        # A copy of an adapter has the name of its stream.
        found = self.flat.resolve(("adapters", stream.name, 0))
        if found in self.flat.producers:
            return found
        return self.sources[stream.source]


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A tensor of some streams, and the statistics it had in training."""

    reference: Reference
    trained: TrainedStatistics
    streams: tuple[str, ...]


def _fit(cascade: Cascade, data: object) -> list[Finding]:
    """Fits the adapters that learn from data; returns a finding if it fails."""
    waiting = tuple("/".join(path) for path in unfitted(cascade))
    if not waiting:
        return []
    if not user_data.is_reiterable(data):
        what = (
            "They learn from data, which takes a pass of its own, and the data "
            "can be read once: features after them were not measured."
        )
        advice = "Pass an array, a data set or a PyDataset."
        return [Finding("note", waiting, what, advice)]
    try:
        fit_adapters(cascade, data, BATCH_SIZE, False, targets=cascade.targets)
    except ValueError as error:
        what = f"adapt would fail on these data: {error}"
        return [Finding("warning", waiting, what)]
    return []


def _comparisons(trial: _Trial) -> Iterator[_Comparison]:
    """Yields each place where features meet trained statistics."""
    plan, wiring = trial.plan, trial.plan.wiring
    if plan.downstream is None:
        return
    flat = flatten(plan.downstream)
    for stream in plan.streams:
        for site in wiring.sites:
            if site.label in stream.labels:
                place = site.reference
                replaces = site.injection.merge == "replace"
                names = (stream.name,)
                yield from _compare(trial, flat, place, names, replaces)
    for name, source in (wiring.fed or {}).items():
        place = flat.inputs[plan.downstream_inputs.index(name)].reference
        yield from _compare(trial, flat, place, (source,))
    # Features that join the input change nothing before training.
    if wiring.fused and wiring.joint is None:
        yield from _compare_fused(trial, flat)


def _compare(
    trial: _Trial,
    flat: Program,
    place: Reference,
    streams: tuple[str, ...],
    look_further: bool = True,
    reference: Reference | None = None,
) -> Iterator[_Comparison]:
    """Compares the output of streams with the statistics trained at a place.

    If there are none, it looks further: for the first normalisations that the
    features reach.
    """
    reference = reference or trial.streams[streams[0]]
    trained = statistics_at(flat, place)
    if trained is not None:
        yield _Comparison(reference, trained, streams)
    elif look_further:
        for call in first_normalisations_after(trial.flat, reference):
            trained, origin = statistics_before(call), call.data_inputs[0]
            if call.address[0] == "downstream" and trained and origin:
                yield _Comparison(origin, trained, streams)


def _compare_fused(trial: _Trial, flat: Program) -> Iterator[_Comparison]:
    """Compares each stream of a concatenation with its own channels."""
    names, place = trial.plan.wiring.fused, flat.inputs[0].reference
    trained = statistics_at(flat, place)
    tensors = [trial.graph.tensor(trial.streams[name]) for name in names]
    widths = [int(tensor.shape[-1] or 0) for tensor in tensors]
    has_parts = trial.plan.spec.fusion == "concat" or len(names) == 1
    if trained and has_parts and sum(widths) == len(trained.mean):
        ends = accumulate(widths)
        for name, end, width in zip(names, ends, widths, strict=True):
            part = trained.channels(end - width, end)
            yield _Comparison(trial.streams[name], part, (name,))
    else:
        (fused,) = trial.fused
        yield from _compare(trial, flat, place, names, reference=fused)


def _run(
    trial: _Trial,
    comparisons: list[_Comparison],
    data: object,
    findings: list[Finding],
) -> Measurement:
    wanted = [*trial.sources.values(), *(x.reference for x in comparisons)]
    # A tensor that several streams share is an output of the probe once.
    names = {ref: str(i) for i, ref in enumerate(dict.fromkeys(wanted))}
    axes = {names[x.reference]: x.trained.axis for x in comparisons}
    inner = {name: ref for ref, name in names.items()}
    features = InnerFeatures.inside(trial.graph, inner)
    paths = input_paths(trial.cascade.input)
    found: dict[str, ChannelMoments] = {}
    for batch in user_data.batches(data, BATCH_SIZE):
        given = sort_inputs(batch, paths, "The data")
        rows = {f"input/{x}": given[x].reshape(-1, 1) for x in trial.main}
        tensors, masks = features.of_batch(given)
        for name, tensor in tensors.items():
            rows[name] = to_rows(tensor, axes.get(name, -1), masks.get(name))
        for name, x in rows.items():
            # Text has no moments.
            if x.dtype.kind not in "OSU":
                found.setdefault(name, ChannelMoments(x.shape[-1])).update(x)
    overall = {name: moments.over_all() for name, moments in found.items()}
    keys = {name: f"input/{name}" for name in trial.main}
    sources = {name: names[ref] for name, ref in trial.sources.items()}
    return Measurement(
        {name: overall[key] for name, key in keys.items() if key in overall},
        {name: overall[key] for name, key in sources.items() if key in overall},
        *_distances(comparisons, names, found),
        findings,
    )


def _distances(
    comparisons: list[_Comparison],
    names: Mapping[Reference, str],
    found: Mapping[str, ChannelMoments],
) -> tuple[dict[str, tuple[Distance, ...]], set[str]]:
    """Returns distances by stream, and streams whose layer never trained."""
    distances: dict[str, tuple[Distance, ...]] = {}
    untrained: set[str] = set()
    for one in comparisons:
        seen = found.get(names[one.reference])
        if seen is None or len(seen.mean) != len(one.trained.mean):
            continue
        far = distance(one.trained, seen)
        for stream in one.streams:
            distances[stream] = (*distances.get(stream, ()), far)
        untrained |= set(one.streams) if one.trained.is_untrained else set()
    return distances, untrained
