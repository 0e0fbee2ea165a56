"""Draws what a DriftMonitor measured."""

from collections.abc import Mapping
from typing import Any

from keras_cascade import _figures

PANELS = {
    "drift": ("Weights", "relative distance from pretrained"),
    "cka": ("Representations", "linear CKA with pretrained"),
    "old_task": ("Old task with the old head", "score"),
}
# Less is no drift: an axis must not blow rounding up.
SMALLEST_SPAN = 0.02


def draw(table: Mapping[str, list[float]]) -> Any:
    """Draws a table of `DriftMonitor.to_dict`, a panel a kind of value."""
    lines = {
        kind: [name for name in table if name.startswith(f"{kind}/")]
        for kind in PANELS
    }
    lines = {kind: names for kind, names in lines.items() if names}
    figure, axes = _figures.figure(len(lines), 3, "DriftMonitor.plot")
    styles: dict[str, dict[str, str]] = {}
    for (kind, names), axis in zip(lines.items(), axes, strict=True):
        for name in names:
            label = name.removeprefix(f"{kind}/")
            style = styles.setdefault(label, _figures.style(len(styles)))
            axis.plot(table["epochs"], table[name], label=label, **style)
        title, label = PANELS[kind]
        axis.set(title=title, xlabel="epochs of training", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(*_limits(*axis.get_ylim()))
        axis.legend(frameon=False)
    return figure


def _limits(low: float, high: float) -> tuple[float, float]:
    middle, span = (low + high) / 2, max(high - low, SMALLEST_SPAN)
    return middle - span / 2, middle + span / 2
