"""What `check_interface` found: rows, findings, as a table and as a dict."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_cascade import _tables
from keras_cascade._messages import finite

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something to know before building.

    Attributes:
        severity: `"error"`: it does not build, or cannot be trained;
            `"warning"`: it builds and most likely does not do what is meant;
            `"note"`: good to know.
        where: The names of the taps, networks or inputs that it is about.
        what: What was found.
        advice: What to do.
    """

    severity: str
    where: tuple[str, ...]
    what: str
    advice: str = ""


@dataclass(frozen=True)
class Place:
    """Where a stream goes.

    Attributes:
        path: The downstream's input, a layer of it, a head, or the output.
        merge: How it enters a layer; the fusion's name where it is fused;
            None where it goes in alone.
        shape: What is expected there, without the batch; None if anything is.
        expected: What is known of the values expected there, in words.
        parameters: Of the merge, on the features' side.
        inner_parameters: Of the merge, inside the downstream.
    """

    path: str
    merge: str | None
    shape: tuple[int | None, ...] | None
    expected: str
    parameters: int = 0
    inner_parameters: int = 0


@dataclass(frozen=True)
class AdapterChoice:
    """What stands between a tap and where it goes.

    Attributes:
        origin: `"auto"`, `"given"`, or `"none"` where nothing was asked for.
        name: The name that the user gave to a layer; else None.
        layer: Its class; None where nothing is inserted.
        settings: The arguments that are not the class's defaults.
        parameters: How many it has; None where it cannot be built.
        learns: Whether it starts from random weights, for training to move.
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
        if self.parameters is None and self.layer is None:
            return f"{self.origin}: ?"
        if self.layer is None:
            return f"{self.origin}: nothing"
        settings = ", ".join(f"{k}={v!r}" for k, v in self.settings.items())
        named = f" '{self.name}'" if self.name else ""
        return f"{self.origin}: {self.layer}({settings}){named}"


@dataclass(frozen=True)
class Measured:
    """What a tensor's values are on the data.

    Attributes:
        mean: Of all values that are finite.
        deviation: Likewise, with denominator n.
        minimum: Likewise.
        maximum: Likewise.
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
    """How far features are from what a layer was trained on.

    Per channel, `shift` is |mean - mean0| / deviation0 and `spread` is
    |log(variance / variance0)|.

    Attributes:
        layer: The layer whose statistics they are compared with.
        at: Where they are compared, seen from that layer: `"before"`, `"as
            behind"`, `"as behind the ReLU of"`.
        shift_median: Over the channels.
        shift_max: Over the channels.
        spread_median: Over the channels.
        spread_max: Over the channels.
        channels: How many there are.
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
        """The median spread as the factor that it is, at least 1."""
        return math.exp(min(self.spread_median, 700.0))

    def __str__(self) -> str:
        return (
            f"shift {self.shift_median:.2g} (max {self.shift_max:.2g}), "
            f"variance by a factor of {self.spread_factor:.2g} "
            f"{self.at} {self.layer}"
        )


@dataclass(frozen=True)
class StreamRow:
    """A tap or extra input on its way to where it goes.

    Attributes:
        tap: Its name.
        path: Where it is read; None for an extra input.
        shape: Without the batch.
        kind: `"vector"`, `"sequence"`, `"map"` or `"volume"`.
        places: Where it goes: one, or the layers that one adapter serves.
        adapter: What stands between.
        values: What is known of the tap's values, in words.
        arriving: The same of what leaves the adapter.
        measured: On the data, where there are data.
        distances: From what the downstream was trained on.
    """

    tap: str
    path: str | None
    shape: tuple[int | None, ...]
    kind: str
    places: tuple[Place, ...]
    adapter: AdapterChoice
    values: str
    arriving: str
    measured: Measured | None = None
    distances: tuple[Distance, ...] = ()


@dataclass(frozen=True, repr=False)
class InterfaceReport:
    """What would have to be adapted, and why.

    Prints as a table.

    Attributes:
        rows: One a stream, in the order of `taps`, then `extra_inputs`.
        findings: Errors first, then warnings, then notes.
        fusion_parameters: What the fusion itself would have.
    """

    rows: tuple[StreamRow, ...]
    findings: list[Finding]
    fusion_parameters: int = 0

    @property
    def builds(self) -> bool:
        """Whether nothing was found that keeps the cascade from building."""
        return all(finding.severity != "error" for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join([self._streams(), *self._listed_findings()])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """The same in plain values, for JSON; what is not finite is None."""
        return finite(
            {
                "streams": [asdict(row) for row in self.rows],
                "findings": [asdict(finding) for finding in self.findings],
                "fusion_parameters": self.fusion_parameters,
            }
        )

    def _streams(self) -> str:
        columns = [
            "tap",
            "what it gives",
            "goes to",
            "expected there",
            "adapter",
            "parameters",
        ]
        measured = any(row.measured for row in self.rows)
        caption = None
        if self.fusion_parameters:
            caption = f"fusion: {self.fusion_parameters:,} parameters"
        return _tables.as_text(
            "Interface",
            [*columns, *(["on the data"] if measured else [])],
            [_cells(row, measured) for row in self.rows],
            right=("parameters",),
            caption=caption,
        )

    def _listed_findings(self) -> Iterable[str]:
        for one in self.findings:
            advice = f" {one.advice}" if one.advice else ""
            names = ", ".join(one.where)
            yield f"{one.severity}: {names}: {one.what}{advice}"


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; what is found of several is said once."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for one in findings:
        key = (one.severity, one.what, one.advice)
        before = merged[key].where if key in merged else ()
        where = tuple(dict.fromkeys((*before, *one.where)))
        merged[key] = replace(one, where=where)
    return sorted(
        merged.values(), key=lambda one: SEVERITIES.index(one.severity)
    )


def _cells(row: StreamRow, measured: bool) -> list[str]:
    merges = sum(p.parameters + p.inner_parameters for p in row.places)
    parameters = _tables.count(row.adapter.parameters)
    if merges:
        parameters += f" + {merges:,}"
    shape = _tables.shape((None, *row.shape))
    cells = [
        row.tap if row.path is None else f"{row.tap}: {row.path}",
        f"{shape} ({row.kind})\n{row.values}",
        "\n".join(f"{x.path}\n{x.merge or ''}" for x in row.places),
        "\n".join(f"{_expected(x)}\n{x.expected}" for x in row.places),
        str(row.adapter),
        parameters,
    ]
    if measured:
        cells.append("\n".join(map(str, _measured(row))))
    return cells


def _expected(place: Place) -> str:
    if place.shape is None:
        return "any"
    return _tables.shape((None, *place.shape))


def _measured(row: StreamRow) -> list[Any]:
    return [*([row.measured] if row.measured else []), *row.distances]
