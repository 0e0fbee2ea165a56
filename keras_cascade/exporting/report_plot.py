"""Draws the comparison in an export report.

Tested by `tests/exporting/test_report_plot.py`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_cascade._reporting import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_cascade.exporting.report import ExportReport

# Layers are in order of their errors, so that the rest matter less.
SHOWN_LAYERS = 20


def draw(report: "ExportReport") -> "Figure":
    """Draws a report, with a panel for each kind of comparison in it.

    Raises:
        ValueError: If nothing was compared.
    """
    panels: list[Callable[[Axes], None]] = []
    if report.parity:
        panels.append(lambda axis: _draw_parity(axis, report))
    if report.metrics:
        panels.append(lambda axis: _draw_metrics(axis, report.metrics))
    if report.layers:
        panels.append(lambda axis: _draw_layers(axis, report.layers))
    if not panels:
        raise ValueError(
            f"The report of '{report.path}' compares nothing that could be "
            "drawn: pass check_data to export."
        )
    figure, axes = figures.figure(len(panels), 3, "ExportReport.plot")
    for panel, axis in zip(panels, axes, strict=True):
        panel(axis)
    return figure


def _draw_parity(axis: "Axes", report: "ExportReport") -> None:
    """Draws the differences of each output on a logarithmic scale."""
    kinds = {"largest": "maximum", "mean": "mean"}
    found = {
        label: [getattr(x, kind) for x in report.parity.values()]
        for label, kind in kinds.items()
    }
    _draw_points(axis, list(report.parity), found)
    bounded = {kind: label for label, kind in kinds.items()}[report.bounds]
    axis.axvline(
        report.tolerance,
        color="black",
        linestyle="--",
        label=f"tolerance of the {bounded}",
    )
    # A scale that is logarithmic, and has a place for equal answers.
    axis.set_xscale("symlog", linthresh=_threshold(report, found))
    axis.set_xlim(left=0)
    axis.set(title="Answers", xlabel="difference from the model, in σ")
    figures.add_legend(axis)


def _threshold(
    report: "ExportReport", found: Mapping[str, list[float]]
) -> float:
    """Returns a power of ten below all that is shown but zero."""
    shown = np.array([*itertools.chain(*found.values()), report.tolerance])
    smallest = shown[shown > 0].min(initial=1.0)
    return float(10.0 ** np.floor(np.log10(smallest)))


def _draw_metrics(
    axis: "Axes", metrics: Mapping[str, Mapping[str, float]]
) -> None:
    sides = ("model", "file")
    values = {s: [x[s] for x in metrics.values()] for s in sides}
    _draw_points(axis, list(metrics), values)
    axis.set(title="Metrics", xlabel="value")
    figures.add_legend(axis)


def _draw_layers(axis: "Axes", layers: Sequence[Mapping[str, Any]]) -> None:
    shown = layers[:SHOWN_LAYERS]
    names = [row["layer"].partition(";")[0] for row in shown]
    places = range(len(shown))
    axis.barh(places, [x["error"] for x in shown], color=figures.COLOURS[0])
    _name_rows(axis, names)
    axis.set(title="Layers in 8 bits", xlabel="error, in steps of the scale")


def _draw_points(
    axis: "Axes", names: Sequence[str], values: Mapping[str, list[float]]
) -> None:
    """Draws a row for each name, with a point for each kind of value."""
    for number, (label, row) in enumerate(values.items()):
        style = {**figures.point_style(number), "clip_on": False}
        axis.plot(row, range(len(names)), label=label, **style)
    _name_rows(axis, names)


def _name_rows(axis: "Axes", names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [_short(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)  # the first on top


def _short(name: str, length: int = 24) -> str:
    """Returns the end of a long name, which tells layers apart."""
    return name if len(name) <= length else f"…{name[1 - length :]}"
