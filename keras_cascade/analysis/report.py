"""Defines the report of `check_interface`: rows and findings as a table."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_cascade._reporting import tables
from keras_cascade._reporting.messages import finite

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A fact to know before building.

    Attributes:
        severity: `"error"`: the cascade does not build, or cannot be trained;
            `"warning"`: it builds and most likely does not do what is meant;
            `"note"`: good to know.
        where: The names of the taps, networks or inputs concerned.
        what: The fact.
        advice: What to do.
    """

    severity: str
    where: tuple[str, ...]
    what: str
    advice: str = ""


@dataclass(frozen=True)
class Place:
    """The destination of a stream.

    Attributes:
        path: The downstream's input, a layer of it, a head, or the output.
        merge: The merge at a layer, or the fusion; None if nothing is merged.
        shape: The expected shape, without the batch; None if any will do.
        expected: The expected values, in words.
        parameters: The merge's parameters on the features' side.
        inner_parameters: The merge's parameters inside the downstream.
    """

    path: str
    merge: str | None
    shape: tuple[int | None, ...] | None
    expected: str
    parameters: int = 0
    inner_parameters: int = 0


@dataclass(frozen=True)
class AdapterChoice:
    """The adapter between a tap and its destination.

    Attributes:
        origin: `"auto"`, `"given"`, or `"none"` if there is no adapter.
        name: The name that the user gave to a layer; else None.
        layer: Its class; None if no layer is inserted.
        settings: The arguments that are not the class's defaults.
        parameters: The number of its parameters; None if it cannot be built.
        learns: Whether its weights are randomly initialised, to be trained.
    """

    origin: str
    name: str | None
    layer: str | None
    settings: Mapping[str, Any]
    parameters: int | None
    learns: bool = False

    def __str__(self) -> str:
        if self.origin == "none":
            return "none"
        if self.layer is None:
            unknown = self.parameters is None
            return f"{self.origin}: {'?' if unknown else 'nothing'}"
        settings = ", ".join(f"{k}={v!r}" for k, v in self.settings.items())
        named = f" '{self.name}'" if self.name else ""
        return f"{self.origin}: {self.layer}({settings}){named}"


@dataclass(frozen=True)
class ValueStatistics:
    """The statistics of a tensor's values on the data.

    Attributes:
        mean: The mean of the finite values.
        deviation: Their standard deviation, with denominator n.
        minimum: The smallest of them.
        maximum: The largest of them.
        zeros: The share of values that are zero.
        non_finite: The number of values that are not finite.
        values: The number of values seen.
    """

    mean: float
    deviation: float
    minimum: float
    maximum: float
    zeros: float
    non_finite: int
    values: int

    def __str__(self) -> str:
        text = (
            f"{self.mean:.3g} ± {self.deviation:.3g} "
            f"in [{self.minimum:.3g}, {self.maximum:.3g}]"
        )
        if self.zeros:
            text += f", {self.zeros:.0%} zeros"
        if self.non_finite:
            text += f", {self.non_finite:,} not finite"
        return text


@dataclass(frozen=True)
class Distance:
    """The distance of features from those that a layer was trained on.

    Per channel, `shift` is |mean - mean0| / deviation0 and `spread` is
    |log(variance / variance0)|.

    Attributes:
        layer: The layer whose statistics they are compared with.
        at: The place of the comparison, seen from that layer: `"before"`,
            `"after"` or `"after the ReLU of"` it.
        shift_median: The median over the channels.
        shift_max: The maximum over the channels.
        spread_median: The median over the channels.
        spread_max: The maximum over the channels.
        channels: The number of channels.
    """

    layer: str
    at: str
    shift_median: float
    shift_max: float
    spread_median: float
    spread_max: float
    channels: int

    @property
    def spread_factor(self) -> float:
        """The median spread as a factor of the variance, at least 1."""
        # Larger exponents overflow.
        return math.exp(min(self.spread_median, 700.0))

    def __str__(self) -> str:
        return (
            f"shift {self.shift_median:.2g} (max {self.shift_max:.2g}), "
            f"variance by a factor of {self.spread_factor:.2g} "
            f"{self.at} {self.layer}"
        )


@dataclass(frozen=True)
class StreamRow:
    """A tap or extra input on its way to its destination.

    Attributes:
        tap: Its name.
        path: Its path in the upstream; None for an extra input.
        shape: Its shape, without the batch.
        kind: `"vector"`, `"sequence"`, `"map"` or `"volume"`.
        places: Its destinations: one, or the layers that one adapter serves.
        adapter: The adapter in between.
        values: The known range of the tap's values, in words.
        arriving: The same for the adapter's output.
        measured: The statistics on the data, if there are data.
        distances: The distances from what the downstream was trained on.
    """

    tap: str
    path: str | None
    shape: tuple[int | None, ...]
    kind: str
    places: tuple[Place, ...]
    adapter: AdapterChoice
    values: str
    arriving: str
    measured: ValueStatistics | None = None
    distances: tuple[Distance, ...] = ()


@dataclass(frozen=True, repr=False)
class InterfaceReport(tables.Tabular):
    """The adaptations that a cascade needs, and why.

    It is shown as a table.

    Attributes:
        rows: One for each stream, in the order of `taps`, then `extra_inputs`.
        findings: Errors first, then warnings, then notes.
        fusion_parameters: The number of parameters of the fusion itself.
    """

    rows: tuple[StreamRow, ...]
    findings: list[Finding]
    fusion_parameters: int = 0

    @property
    def builds(self) -> bool:
        """Whether the cascade can be built: no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def _line(self) -> str:
        builds = "builds" if self.builds else "does not build"
        found = Counter(finding.severity for finding in self.findings)
        counts = [f"{n} {x}{'s' * (n > 1)}" for x, n in found.items()]
        streams = ", ".join(row.tap for row in self.rows)
        facts = ", ".join([builds, *counts])
        return f"<InterfaceReport of {streams or 'nothing'}: {facts}>"

    def to_dict(self) -> dict[str, Any]:
        """Returns the report in plain values, None for NaN and infinity."""
        return finite(
            {
                "streams": [asdict(row) for row in self.rows],
                "findings": [asdict(finding) for finding in self.findings],
                "fusion_parameters": self.fusion_parameters,
            }
        )

    def _parts(self) -> list[tables.Part]:
        fusion = f"{self.fusion_parameters:,} parameters"
        notes = [tables.Note(fusion, "fusion")] * bool(self.fusion_parameters)
        for one in self.findings:
            text = f"{', '.join(one.where)}: {one.what} {one.advice}"
            notes.append(tables.Note(text.rstrip(), one.severity))
        return [self._table(), *notes]

    def _table(self) -> tables.Table:
        columns = ["tap", "output", "goes to", "expected there", "adapter"]
        columns += ["parameters", "on the data"]
        measured = any(row.measured for row in self.rows)
        end = len(columns) if measured else -1
        return tables.Table(
            "Interface",
            columns[:end],
            [_cells(row)[:end] for row in self.rows],
            right=("parameters",),
        )


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Returns findings with the worst first, equal ones merged into one."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for one in findings:
        key = (one.severity, one.what, one.advice)
        before = merged[key].where if key in merged else ()
        where = tuple(dict.fromkeys((*before, *one.where)))
        merged[key] = replace(one, where=where)
    return sorted(
        merged.values(), key=lambda one: SEVERITIES.index(one.severity)
    )


def _cells(row: StreamRow) -> list[str]:
    merges = sum(p.parameters + p.inner_parameters for p in row.places)
    shape = tables.shape((None, *row.shape))
    parameters = tables.count(row.adapter.parameters)
    measured = [row.measured] if row.measured else []
    return [
        row.tap if row.path is None else f"{row.tap}: {row.path}",
        f"{shape} ({row.kind})\n{row.values}",
        "\n".join(f"{x.path}\n{x.merge or ''}" for x in row.places),
        "\n".join(f"{_expected_shape(x)}\n{x.expected}" for x in row.places),
        str(row.adapter),
        f"{parameters} + {merges:,}" if merges else parameters,
        "\n".join(map(str, [*measured, *row.distances])),
    ]


def _expected_shape(place: Place) -> str:
    return "any" if place.shape is None else tables.shape((None, *place.shape))
