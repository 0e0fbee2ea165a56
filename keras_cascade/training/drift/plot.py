"""Draws the measurements of a DriftMonitor.

Tested by `tests/training/drift/test_monitor.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_cascade._reporting import figures

PANELS = {
    "drift": ("Weights", "relative distance from pretrained"),
    "cka": ("Representations", "linear CKA with pretrained"),
    "old_task": ("Old task with the old head", "score"),
}
# The smallest range of an axis, which must not magnify rounding errors.
SMALLEST_SPAN = 0.01


def draw(table: Mapping[str, list[float]]) -> Any:
    """Draws a table of `DriftMonitor.to_dict`, a panel for each kind."""
    lines = {
        kind: [name for name in table if name.startswith(f"{kind}/")]
        for kind in PANELS
    }
    lines = {kind: names for kind, names in lines.items() if names}
    figure, axes = figures.figure(len(lines), 3, "DriftMonitor.plot")
    styles: dict[str, dict[str, Any]] = {}
    for (kind, names), axis in zip(lines.items(), axes, strict=True):
        for name in names:
            label = name.removeprefix(f"{kind}/")
            style = styles.setdefault(label, figures.style(len(styles)))
            axis.plot(table["epochs"], table[name], label=label, **style)
        title, label = PANELS[kind]
        axis.set(title=title, xlabel="epochs of training", ylabel=label)
        locator: Any = axis.xaxis.get_major_locator()
        locator.set_params(integer=True)
        axis.set_ylim(*_limits(kind, [table[name] for name in names]))
        figures.add_legend(axis)
    return figure


def _limits(kind: str, columns: list[list[float]]) -> tuple[float, float]:
    """Returns the limits of an axis, with 0 for distances and 1 for CKA."""
    values = np.array(columns, dtype=np.float64)
    values = values[np.isfinite(values)]
    starts = {"drift": [0.0, SMALLEST_SPAN], "cka": [1.0, 1 - SMALLEST_SPAN]}
    shown = np.append(values, starts.get(kind, []))
    low, high = shown.min(initial=np.inf), shown.max(initial=-np.inf)
    if low > high:
        return 0.0, 1.0
    span = high - low
    margin = 0.06 * span if span >= SMALLEST_SPAN else SMALLEST_SPAN / 2
    return low - margin, high + margin
