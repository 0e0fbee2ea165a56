"""Shows the results of range tests as suggestions, as a table, as a plot.

Tested by `tests/training/range_test/test_finder.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_cascade import _figures, _tables
from keras_cascade._messages import listed
from keras_cascade.training.range_test.rules import (
    RULES,
    before_the_end,
    smooth_both_ways,
    suggest,
)


@dataclass(frozen=True, eq=False)
class RangeTest:
    """The range test of one block.

    Attributes:
        rates: The learning rate of each step.
        losses: The loss of each step, before the step is taken.
        smoothing: The weight of a neighbour in their moving average.
        diverged: Whether the loss exploded before the highest rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothing: float
    diverged: bool

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The moving average that rules read, without the last losses."""
        return smooth_both_ways(before_the_end(self.losses), self.smoothing)

    @property
    def suggestions(self) -> dict[str, float | None]:
        """Rule to the rate that it suggests; None if the loss never fell."""
        return suggest(self.rates, self.smoothed)


@dataclass(frozen=True, eq=False)
class FoundLearningRates:
    """The results of `find_learning_rates`, which print as a table.

    Attributes:
        tests: Block, or path pattern, to its range test.
        rule: The rule of `suggestions`.

    Example:
    >>> found = keras_cascade.find_learning_rates(cascade, (images, labels))
    >>> cascade.compile("adam", "mse", learning_rates=found.suggestions)
    """

    tests: Mapping[str, RangeTest]
    rule: str

    @property
    def suggestions(self) -> dict[str, float]:
        """Block to its learning rate, as `learning_rates=` takes them.

        A block whose loss did not fall at any rate is left out.
        """
        return self.suggestions_by(self.rule)

    def suggestions_by(self, rule: str) -> dict[str, float]:
        """Returns suggestions by a rule: `"valley"` or `"steepest"`."""
        check_rule(rule)
        found = {n: test.suggestions[rule] for n, test in self.tests.items()}
        return {n: rate for n, rate in found.items() if rate is not None}

    def to_dict(self) -> dict[str, Any]:
        """Returns the curves and all suggestions as plain values."""
        return {
            "rule": self.rule,
            "suggestions": self.suggestions,
            "tests": {
                name: {
                    "rates": test.rates.tolist(),
                    "losses": test.losses.tolist(),
                    "smoothed": test.smoothed.tolist(),
                    "diverged": test.diverged,
                    "suggestions": test.suggestions,
                }
                for name, test in self.tests.items()
            },
        }

    def plot(self) -> Any:
        """Draws the losses over the rates, with a panel for each block.

        Returns:
            A `matplotlib.figure.Figure`: `savefig(path)` writes it.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        figure, axes = _figures.figure(
            len(self.tests), 3, "FoundLearningRates.plot"
        )
        for (name, test), axis in zip(self.tests.items(), axes, strict=True):
            _draw(axis, name, test, self.rule)
        return figure

    def __str__(self) -> str:
        rules = list(RULES)
        return _tables.as_text(
            "Learning rates",
            ("block", *rules, "lowest loss", "at", "steps", "end"),
            [_row(name, test) for name, test in self.tests.items()],
            right=(*rules, "lowest loss", "at", "steps"),
            caption=f"suggestions follow the rule '{self.rule}'",
        )

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"


def check_rule(rule: str) -> None:
    """Raises a ValueError if there is no such rule."""
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is none of {listed(RULES)}.")


def _row(name: str, test: RangeTest) -> tuple:
    suggested = test.suggestions
    cells = [
        "does not fall" if suggested[rule] is None else f"{suggested[rule]:.2g}"
        for rule in RULES
    ]
    curve = test.smoothed if len(test.smoothed) else test.losses[:1]
    lowest = int(curve.argmin())
    return (
        name,
        *cells,
        f"{curve[lowest]:.4g}",
        f"{test.rates[lowest]:.2g}",
        len(test.rates),
        "diverged" if test.diverged else "highest rate",
    )


def _draw(axis: Any, name: str, test: RangeTest, rule: str) -> None:
    faint = {"color": _figures.FAINT, "linewidth": 1}
    axis.plot(test.rates, test.losses, label="loss", **faint)
    rates = test.rates[: len(test.smoothed)]
    blue = _figures.COLOURS[0]
    axis.plot(rates, test.smoothed, color=blue, label="smoothed")
    for number, (one, rate) in enumerate(test.suggestions.items(), start=1):
        if rate is None:
            continue
        size = 11 if one == rule else 7
        axis.plot(
            rate,
            np.interp(rate, rates, test.smoothed),
            label=f"{one}: {rate:.2g}",
            **{**_figures.point_style(number), "markersize": size},
        )
    axis.set(title=name, xlabel="learning rate", ylabel="loss", xscale="log")
    axis.set_ylim(*_limits(test))
    _figures.add_legend(axis)


def _limits(test: RangeTest) -> tuple[float, float]:
    """Returns limits without the explosion, which would flatten the rest."""
    shown = before_the_end(test.losses)
    shown = shown if len(shown) else np.nan_to_num(test.losses[:1])
    curve = test.smoothed if len(test.smoothed) else shown
    low, high = float(shown.min()), float(curve.max())
    margin = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin
