"""Reports before building what would have to be adapted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras

from keras_cascade.adapters.automatic import KINDS
from keras_cascade.adapters.streams import Stream
from keras_cascade.analysis.dry_run import AdaptedStream, DryRun, dry_run
from keras_cascade.analysis.input_requirements import (
    data_findings,
    preprocess_findings,
    required_range,
    with_preprocess,
)
from keras_cascade.analysis.measurement import measure
from keras_cascade.analysis.mismatches import find_mismatch
from keras_cascade.analysis.report import (
    AdapterChoice,
    Finding,
    InterfaceReport,
    Place,
    StreamRow,
    ValueStatistics,
    in_order,
)
from keras_cascade.analysis.statistics import (
    SHIFT,
    VARIANCE_RATIO,
    is_far,
)
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.program import Program
from keras_cascade.planning.arguments import (
    Arguments,
    Network,
    check_names,
    takes_arguments,
)
from keras_cascade.planning.plan import Plan, make_plan
from keras_cascade.values.range_inference import infer_range
from keras_cascade.values.value_ranges import UNKNOWN, ValueRange


@takes_arguments
def check_interface(
    upstream: Network | Mapping[str, Network],
    downstream: Network | None = None,
    *,
    data: object = None,
    **arguments: Any,
) -> InterfaceReport:
    """Reports what would have to be adapted, and why, before building.

    The arguments are those of `build_cascade`. The adapters are built on small
    symbolic inputs, and none of the networks. The report has for each tap its
    destination, the features that are expected there, the adapter in between
    and its number of parameters. Where shapes do not fit, the finding has the
    message that building would raise, and the rest of the report stands.

    The layers around a tap and around its destination show the range of the
    values there: probabilities after a softmax, pixels before a Rescaling,
    standardised features before a BatchNormalization. Ranges that do not fit
    are findings, and so are networks that share an input and need different
    preprocessing.

    With `data`, a copy is run over it once, in inference mode (adapters that
    learn from data and are not fitted yet are fitted in a pass before). The
    report compares mean and variance of each channel that arrives with those
    that the downstream was trained on, as far as its BatchNormalizations (or
    Normalizations) show them: before one, after one, after one and a ReLU,
    else at the first that the features reach. It warns if half of the channels
    are off by more than one standard deviation (a rectifier that half of the
    values passed then passes 84 % or 16 %), or by more than a factor of four
    in variance. A randomly initialised adapter is measured as it is. Masked
    steps do not count, and values that are not finite are an error.

    Args:
        upstream: As in `build_cascade`.
        downstream: As in `build_cascade`. Defaults to `None`.
        data: All that `fit` takes; only adapters that learn from labels read
            them. `None` reads nothing. Defaults to `None`.
        **arguments: The other arguments of `build_cascade`, with the same
            defaults. `optimizer`, `loss`, `metrics` and `name` have no effect;
            the patterns of `trainable`, `learning_rates` and `retention` are
            matched when building. The measured model is always a copy.

    Returns:
        An `InterfaceReport`, which prints as a table: `.rows`, `.findings`
        (each with `severity`, `where`, `what`, `advice`), `.to_dict()`.

    Raises:
        ValueError: If arguments do not go together, as in `build_cascade`.
        TypeError: If an argument is of a kind that is not understood.

    Example:
    >>> report = kc.check_interface(
    ...     kc.zoo.load("glyph_encoder"),
    ...     kc.zoo.load("digits_expert"),
    ...     taps={"texture": "stage2_out", "shape": "-1"},
    ...     extra_inputs={"metadata": (2,)},
    ... )
    >>> [str(row.adapter) for row in report.rows]
    ['auto: DenseAdapter(units=64)', 'auto: DenseAdapter(units=64)', 'none']
    """
    check_names(arguments, "check_interface")
    given = Arguments(upstream=upstream, downstream=downstream, **arguments)
    # Preprocessing follows: what building warns of becomes a finding.
    plan = make_plan(replace(given, preprocess=None))
    plan = with_preprocess(plan, given.preprocess, given.networks)
    run = dry_run(plan)
    findings = [*run.findings, *preprocess_findings(plan, given.preprocess)]
    rows = _rows(plan, run, findings)
    if data is not None:
        rows = _with_data(plan, rows, data, findings)
    return InterfaceReport(
        tuple(row for _, row in rows),
        in_order(findings),
        run.fusion_parameters,
    )


# Streams by name, each with its row.
_Rows = list[tuple[str, StreamRow]]


def _rows(plan: Plan, run: DryRun, findings: list[Finding]) -> _Rows:
    flat = {name: flatten(graph) for name, graph in plan.graphs.items()}
    ranges = {
        tap.name: infer_range(flat[tap.network], tap.reference)
        for tap in plan.taps
    }
    rows: _Rows = []
    for one in run.streams:
        known = ranges.get(one.stream.source, UNKNOWN)
        arriving = _arriving(one, known)
        places = _places(plan, run, one.stream, flat)
        for place, expected in places:
            findings += _range_findings(
                one.stream, place, known, arriving, expected
            )
        where = tuple(place for place, _ in places)
        adapter = one.adapter_choice()
        row = _row(plan, one.stream.source, where, adapter, known, arriving)
        rows.append((one.stream.name, row))
    streaming = {one.stream.source for one in run.streams}
    # Taps that only a head reads are no streams.
    for tap in (x.name for x in plan.taps if x.name not in streaming):
        head = Place(f"head '{tap}'", None, None, str(UNKNOWN))
        nothing = AdapterChoice("none", None, None, {}, 0)
        known = ranges[tap]
        rows.append((tap, _row(plan, tap, (head,), nothing, known, known)))
    order = [*plan.spec.taps, *plan.spec.extra_inputs]
    return sorted(rows, key=lambda row: order.index(row[1].tap))


def _row(
    plan: Plan,
    source: str,
    places: tuple[Place, ...],
    adapter: AdapterChoice,
    values: ValueRange,
    arriving: ValueRange,
) -> StreamRow:
    extras = plan.spec.extra_inputs
    if source in extras:
        path, shape = None, tuple(extras[source].shape)
    else:
        (tap,) = [tap for tap in plan.taps if tap.name == source]
        path, shape = tap.path, tuple(tap.shape[1:])
    kind = KINDS.get(len(shape), f"tensor of {len(shape)} axes")
    texts = str(values), str(arriving)
    return StreamRow(source, path, shape, kind, places, adapter, *texts)


def _arriving(one: AdaptedStream, known: ValueRange) -> ValueRange:
    """Returns the range of the adapter's output."""
    if one.tensor is None:
        return UNKNOWN
    if one.network is None:
        return known
    graph = read_graph(one.network)
    flat = flatten(graph)
    output = graph.reference(graph.outputs[0])
    return infer_range(flat, output, {flat.inputs[0].reference: known})


def _places(
    plan: Plan, run: DryRun, stream: Stream, flat: Mapping[str, Program]
) -> list[tuple[Place, ValueRange]]:
    """Returns the destinations of a stream, and the ranges expected there."""
    if plan.downstream is None:
        return [(_place_without_downstream(plan), UNKNOWN)]
    if not stream.labels:
        expected = _expected_at_input(plan, stream, flat["downstream"])
        path, shape = stream.target.name or "", stream.target.shape
        place = Place(path, _fusion_name(plan, stream), shape, str(expected))
        return [(place, expected)]
    places = []
    for site in plan.wiring.sites:
        if site.label not in stream.labels:
            continue
        path, merge = site.injection.path, site.injection.merge
        # A scale and a shift for each channel: film takes a vector.
        shape = (site.width,) if merge == "film" else site.shape
        expected = infer_range(flat["downstream"], site.reference)
        parameters = run.merges.get(site.label, (0, 0))
        place = Place(path, merge, shape, str(expected), *parameters)
        places.append((place, expected))
    return places


def _place_without_downstream(plan: Plan) -> Place:
    path = "the outputs" if plan.spec.head is None else "head"
    is_one = len(plan.spec.taps) + len(plan.spec.extra_inputs) == 1
    merge = None if is_one else _name_of(plan.spec.fusion)
    return Place(path, merge, None, str(UNKNOWN))


def _fusion_name(plan: Plan, stream: Stream) -> str | None:
    if plan.wiring.joint is not None:
        return "joined with the input"
    fused = plan.wiring.fused
    if stream.source not in fused or len(fused) < 2:
        return None
    return "concat" if stream.is_extra else _name_of(plan.spec.fusion)


def _name_of(fusion: str | keras.Layer | None) -> str | None:
    return fusion.name if isinstance(fusion, keras.Layer) else fusion


def _expected_at_input(plan: Plan, stream: Stream, flat: Program) -> ValueRange:
    fed = {source: name for name, source in (plan.wiring.fed or {}).items()}
    name = fed.get(stream.source)
    position = plan.downstream_inputs.index(name) if name else 0
    network = plan.networks["downstream"]
    return required_range(flat, flat.inputs[position].reference, network)


def _range_findings(
    stream: Stream,
    place: Place,
    known: ValueRange,
    arriving: ValueRange,
    expected: ValueRange,
) -> list[Finding]:
    found = find_mismatch(stream.source, known, arriving, expected)
    if found is None or place.merge == "multiply":
        return []
    # A gate that starts at zero learns how much of the features enters.
    is_gated = bool(stream.labels) and place.merge != "replace"
    severity = "note" if is_gated else found.severity
    where = (stream.source, place.path)
    return [replace(found, severity=severity, where=where)]


def _with_data(
    plan: Plan, rows: _Rows, data: object, findings: list[Finding]
) -> _Rows:
    if any(finding.severity == "error" for finding in findings):
        what = "The data were not read, as the cascade does not build."
        findings.append(Finding("note", ("data",), what))
        return rows
    seen = measure(plan, data)
    findings += [*seen.findings, *data_findings(plan, seen.inputs)]
    result: _Rows = []
    for stream, row in rows:
        row = replace(
            row,
            measured=seen.sources.get(row.tap),
            distances=seen.distances.get(stream, ()),
        )
        findings += _value_findings(row.tap, row.measured)
        findings += _distance_findings(row, stream in seen.untrained)
        result.append((stream, row))
    return result


def _value_findings(
    tap: str, measured: ValueStatistics | None
) -> list[Finding]:
    if measured is None:
        return []
    if measured.non_finite:
        what = (
            f"{measured.non_finite:,} of {measured.values:,} values are not "
            "finite on the data."
        )
        advice = "Look for missing values in the data, or tap elsewhere."
        return [Finding("error", (tap,), what, advice)]
    if measured.deviation == 0:
        what = f"Every value is {measured.mean:.4g} on the data."
        advice = "Such a tap tells the network nothing; tap elsewhere."
        return [Finding("warning", (tap,), what, advice)]
    return []


def _distance_findings(row: StreamRow, is_untrained: bool) -> list[Finding]:
    never = " (which has never been trained)" if is_untrained else ""
    learns = row.adapter.learns
    is_soft = is_untrained or learns or _is_gated(row)
    advice = (
        "That is where the adapter starts; training moves it."
        if learns
        else "An adapter that learns, such as kc.adapters.DenseAdapter, can "
        "bring them there; a BatchNormalization that trains adapts to them."
    )
    return [
        Finding(
            "note" if is_soft else "warning",
            (row.tap,),
            f"On the data, the median channel is shifted by "
            f"{found.shift_median:.2g} deviations and off in variance by a "
            f"factor of {found.spread_factor:.2g} {found.at} {found.layer}"
            f"{never}; the limits are {SHIFT:g} and {VARIANCE_RATIO:g}.",
            advice,
        )
        for found in row.distances
        if is_far(found)
    ]


def _is_gated(row: StreamRow) -> bool:
    """Whether each place has a merge that starts from nothing and learns."""
    gated = ("add", "multiply", "film", "concat")
    return row.distances != () and all(
        place.merge in gated and place.parameters for place in row.places
    )
