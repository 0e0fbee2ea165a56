"""Draws the scores of taps against their costs.

Tested by `tests/ranking/test_ranking.py`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_cascade._reporting import figures
from keras_cascade.ranking.selection import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(
    rows: Sequence[Row], score: str, baselines: Mapping[str, str]
) -> "Figure":
    """Returns a figure with a point for each tap."""
    figure, (axis,) = figures.figure(1, 1, "TapRanking.plot")
    figure.set_size_inches(8.5, 5.5)
    names = list(dict.fromkeys(row.network for row in rows))
    for number, network in enumerate(names):
        own = [row for row in rows if row.network == network]
        style = {**figures.point_style(number), "label": network}
        axis.plot(
            [x.cost for x in own], [x.scores[score] for x in own], **style
        )
    front = pareto_front(rows, score)
    _draw_front(axis, front, score)
    shown = {x.path for x in front}
    for name, path in baselines.items():
        row = next(x for x in rows if x.path == path)
        label = name if path in shown else f"{name}: {path}"
        _annotate(axis, row, score, label, below=True)
    costs = "parameters" if any(x.flops is None for x in rows) else "FLOPs"
    axis.set(xlabel=f"{costs} of a sample", ylabel=score, xscale="log")
    axis.set_title("Taps by score and cost")
    figures.add_legend(axis)
    return figure


def pareto_front(rows: Sequence[Row], score: str) -> list[Row]:
    """Returns the taps that no cheaper one beats, the cheapest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda x: (x.cost, -x.scores[score])):
        if not front or row.scores[score] > front[-1].scores[score]:
            front.append(row)
    return front


def _draw_front(axis: "Axes", front: Sequence[Row], score: str) -> None:
    axis.errorbar(
        [x.cost for x in front],
        [x.scores[score] for x in front],
        yerr=[x.errors.get(score, 0.0) for x in front],
        color=figures.COLOURS[1],
        linewidth=1.2,
        capsize=2,
        label="no cheaper tap is better",
        zorder=1,
    )
    # Names of close points would hide each other: the last of some.
    for row, following in zip(front, [*front[1:], None], strict=True):
        if following is None or following.cost > 1.6 * row.cost:
            _annotate(axis, row, score, row.path)


def _annotate(
    axis: "Axes", row: Row, score: str, text: str, below: bool = False
) -> None:
    axis.annotate(
        text,
        (row.cost, row.scores[score]),
        xytext=(4, -14) if below else (-4, 6),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
