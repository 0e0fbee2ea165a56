"""check_interface(): what would have to be adapted, before building."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keras_cascade.adapters.automatic import KINDS
from keras_cascade.adapters.choosing import Stream
from keras_cascade.analysis.dry_run import Settled, Settlement, settle
from keras_cascade.analysis.input_requirements import (
    data_findings,
    preprocess_findings,
    required_range,
    with_preprocess,
)
from keras_cascade.analysis.measurement import Measurement, measure
from keras_cascade.analysis.mismatches import Mismatch, find_mismatch
from keras_cascade.analysis.range_inference import infer_range
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
from keras_cascade.analysis.value_ranges import UNKNOWN, ValueRange
from keras_cascade.arguments import (
    Arguments,
    Network,
    check_names,
    takes_arguments,
)
from keras_cascade.graph.flattening import FlatGraph, flatten
from keras_cascade.graph.graph import read_graph
from keras_cascade.planning.plan import Plan, make_plan


@takes_arguments
def check_interface(
    upstream: Network | Mapping[str, Network],
    downstream: Network | None = None,
    *,
    data: Any = None,
    **arguments: Any,
) -> InterfaceReport:
    """Reports what would have to be adapted, and why, before building.

    It takes what `build_cascade` takes, builds the adapters on small symbolic
    inputs and none of the networks, and says for each tap where it goes, what
    is expected there, which adapter would stand between and how many
    parameters that has. Where shapes do not go together the finding has the
    message that building would raise, and the rest of the report stands.

    From the layers around a tap and around the place where it goes follows
    what is known of the values there: probabilities behind a softmax, pixels
    before a Rescaling, standardised features before a BatchNormalization.
    What does not go together is a finding, and so are networks that share an
    input and need different preprocessing.

    With `data`, a copy is run over it once, in inference mode (adapters that
    learn from data and have not yet are fitted in a pass before). For each
    channel of what arrives, the report compares the mean and the variance
    with what the downstream was trained on there, as far as its
    BatchNormalizations (or Normalizations) know: before one, behind one,
    behind one and a ReLU, else at the first that the features reach. It warns
    where half of the channels are off by more than one standard deviation (a
    rectifier that half of the values passed then passes 84 % or 16 %), or by
    more than a factor of four in variance. An adapter that starts from random
    weights is measured as it starts. Masked steps do not count, and what is
    not finite is an error.

    Args:
        upstream: As in `build_cascade`.
        downstream: As in `build_cascade`. Defaults to `None`.
        data: All that `fit` takes; labels are read by adapters that learn
            from them alone. `None` reads nothing. Defaults to `None`.
        **arguments: The other arguments of `build_cascade`, with the same
            defaults. `optimizer`, `loss`, `metrics` and `name` have no effect;
            whether the patterns of `trainable`, `learning_rates` and
            `retention` match anything is found when building. The model that
            is measured is a copy in any case.

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
    # Preprocessing is settled afterwards: what building warns of becomes a
    # finding.
    plan = make_plan(replace(given, preprocess=None))
    plan = with_preprocess(plan, given.preprocess, given.networks)
    settlement = settle(plan)
    findings = [
        *settlement.findings,
        *preprocess_findings(plan, given.preprocess),
    ]
    rows = _rows(plan, settlement, findings)
    if data is not None:
        rows = _with_data(plan, rows, data, findings)
    return InterfaceReport(
        tuple(row for _, row in rows),
        in_order(findings),
        settlement.fusion_parameters,
    )


# A stream's name, and its row.
_Rows = list[tuple[str, StreamRow]]


def _rows(plan: Plan, settlement: Settlement, findings: list[Finding]) -> _Rows:
    flat = {name: flatten(graph) for name, graph in plan.graphs.items()}
    values = {
        tap.name: infer_range(flat[tap.network], tap.reference)
        for tap in plan.taps
    }
    rows: _Rows = []
    for one in settlement.streams:
        known = values.get(one.stream.source, UNKNOWN)
        arriving = _arriving(one, known)
        places = _places(plan, settlement, one, flat)
        for place, expected in places:
            findings += _of_values(one.stream, place, known, arriving, expected)
        rows.append(
            (
                one.stream.name,
                _row(
                    plan,
                    one.stream.source,
                    tuple(place for place, _ in places),
                    one.choice(),
                    str(known),
                    str(arriving),
                ),
            )
        )
    streaming = {one.stream.source for one in settlement.streams}
    for tap in plan.taps:
        if tap.name not in streaming:
            rows.append((tap.name, _row_of_head(plan, tap.name, values)))
    order = [*plan.spec.taps, *plan.spec.extra_inputs]
    return sorted(rows, key=lambda row: order.index(row[1].tap))


def _row(
    plan: Plan,
    source: str,
    places: tuple[Place, ...],
    adapter: AdapterChoice,
    values: str,
    arriving: str,
) -> StreamRow:
    taps = {tap.name: tap for tap in plan.taps}
    extras = plan.spec.extra_inputs
    if source in extras:
        path, shape = None, tuple(extras[source].shape)
    else:
        path, shape = taps[source].path, tuple(taps[source].shape[1:])
    kind = KINDS.get(len(shape), f"tensor of {len(shape)} axes")
    return StreamRow(
        source, path, shape, kind, places, adapter, values, arriving
    )


def _row_of_head(
    plan: Plan, tap: str, values: Mapping[str, ValueRange]
) -> StreamRow:
    """A tap that nothing but a head reads, as it is."""
    place = Place(f"head '{tap}'", None, None, str(UNKNOWN))
    nothing = AdapterChoice("none", None, None, {}, 0)
    text = str(values[tap])
    return _row(plan, tap, (place,), nothing, text, text)


def _arriving(one: Settled, known: ValueRange) -> ValueRange:
    """What is known of the values behind the adapter."""
    network = one.network
    if one.tensor is None or network is None:
        return known if one.tensor is not None else UNKNOWN
    graph = read_graph(network)
    flat = flatten(graph)
    output = graph.reference(graph.outputs[0])
    return infer_range(flat, output, {flat.inputs[0]: known})


def _places(
    plan: Plan,
    settlement: Settlement,
    one: Settled,
    flat: Mapping[str, FlatGraph],
) -> list[tuple[Place, ValueRange]]:
    """Where a stream goes, and what values are expected there."""
    stream = one.stream
    if plan.downstream is None:
        return [(_place_without_downstream(plan), UNKNOWN)]
    if not stream.labels:
        expected = _required_range(plan, stream, flat["downstream"])
        shape = stream.target.shape
        merge = _fusion_name(plan, stream)
        path = stream.target.name or ""
        return [(Place(path, merge, shape, str(expected)), expected)]
    places = []
    for site in plan.wiring.sites:
        if site.label in stream.labels:
            reference = (*site.address, 0)
            expected = infer_range(flat["downstream"], reference)
            outside, inside = settlement.merges.get(site.label, (0, 0))
            place = Place(
                site.injection.path,
                site.injection.merge,
                # A scale and a shift a channel: a vector is asked for.
                (site.width,) if site.injection.merge == "film" else site.shape,
                str(expected),
                outside,
                inside,
            )
            places.append((place, expected))
    return places


def _place_without_downstream(plan: Plan) -> Place:
    path = "the outputs" if plan.spec.head is None else "head"
    streams = [*plan.spec.taps, *plan.spec.extra_inputs]
    merge = None
    if len(streams) > 1 and plan.spec.fusion is not None:
        merge = _name_of(plan.spec.fusion)
    return Place(path, merge, None, str(UNKNOWN))


def _fusion_name(plan: Plan, stream: Stream) -> str | None:
    if plan.wiring.joint is not None:
        return "joined with the input"
    fused = plan.wiring.fused
    if stream.source not in fused or len(fused) < 2:
        return None
    if stream.is_extra:
        return "concat"
    return _name_of(plan.spec.fusion)


def _name_of(fusion: Any) -> str | None:
    return getattr(fusion, "name", fusion)


def _required_range(plan: Plan, stream: Stream, flat: FlatGraph) -> ValueRange:
    names = plan.downstream_inputs
    fed = {source: name for name, source in (plan.wiring.fed or {}).items()}
    position = names.index(fed[stream.source]) if stream.source in fed else 0
    network = plan.networks["downstream"]
    return required_range(flat, flat.inputs[position], network)


def _of_values(
    stream: Stream,
    place: Place,
    known: ValueRange,
    arriving: ValueRange,
    expected: ValueRange,
) -> list[Finding]:
    """Returns a finding if values do not suit their place."""
    found = find_mismatch(stream.source, known, arriving, expected)
    if found is None or place.merge == "multiply":
        return []
    # A gate that starts at zero learns how much of them enters.
    gated = bool(stream.labels) and place.merge != "replace"
    severity = _severity(found, gated)
    where = (stream.source, place.path)
    return [Finding(severity, where, found.what, found.advice)]


def _severity(found: Mismatch, gated: bool) -> str:
    return "warning" if found.is_grave and not gated else "note"


def _with_data(
    plan: Plan, rows: _Rows, data: Any, findings: list[Finding]
) -> _Rows:
    if any(finding.severity == "error" for finding in findings):
        what = "The data were not read, as the cascade does not build."
        findings.append(Finding("note", ("data",), what))
        return rows
    seen = measure(plan, data)
    findings += seen.findings
    findings += data_findings(plan, seen.inputs)
    result: _Rows = []
    for stream, row in rows:
        measured = seen.sources.get(row.tap)
        distances = seen.distances.get(stream, ())
        row = replace(row, measured=measured, distances=distances)
        findings += _of_measured(row.tap, measured)
        findings += _of_distances(stream, row, seen)
        result.append((stream, row))
    return result


def _of_measured(tap: str, measured: ValueStatistics | None) -> list[Finding]:
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
        advice = "A tap that tells nothing apart is no use; tap elsewhere."
        return [Finding("warning", (tap,), what, advice)]
    return []


def _of_distances(
    stream: str, row: StreamRow, seen: Measurement
) -> list[Finding]:
    never = " (which has never been trained)" * (stream in seen.untrained)
    is_soft = bool(never) or row.adapter.learns or _is_gated(row)
    return [
        Finding(
            "note" if is_soft else "warning",
            (row.tap,),
            f"On the data, the median channel is shifted by "
            f"{found.shift_median:.2g} deviations and off in variance by a "
            f"factor of {found.spread_factor:.2g} {found.at} {found.layer}"
            f"{never}; the limits are {SHIFT:g} and {VARIANCE_RATIO:g}.",
            "That is where the adapter starts; training moves it."
            if row.adapter.learns
            else "An adapter that learns, such as kc.adapters.DenseAdapter, "
            "can bring them there; a BatchNormalization that trains comes to "
            "them.",
        )
        for found in row.distances
        if is_far(found)
    ]


def _is_gated(row: StreamRow) -> bool:
    """Whether how much of it enters is learned, from nothing on."""
    gated = ("add", "multiply", "film", "concat")
    return row.distances != () and all(
        place.merge in gated and place.parameters for place in row.places
    )
