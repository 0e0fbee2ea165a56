"""Shows the results of range tests as suggestions, as a table, as a plot.

Tested by `tests/training/range_test/test_finder.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_cascade._reporting import figures, tables
from keras_cascade._reporting.messages import listed
from keras_cascade.training.range_test.rules import (
    RULES,
    before_the_end,
    smooth_both_ways,
    suggest,
)


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        cells = ", ".join(map(" ".join, zip(RULES, _rates(self), strict=True)))
        first, last = self.rates[[0, -1]] if len(self.rates) else (0, 0)
        steps = f"{len(self.rates)} steps from {first:.2g} to {last:.2g}"
        return f"<RangeTest of {steps}: {cells}>"


@dataclass(frozen=True, eq=False, repr=False)
class FoundLearningRates(tables.Tabular):
    """The results of `find_learning_rates`, which are shown as a table.

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
        figure, axes = figures.figure(
            len(self.tests), 3, "FoundLearningRates.plot"
        )
        for (name, test), axis in zip(self.tests.items(), axes, strict=True):
            _draw(axis, name, test, self.rule)
        return figure

    def _line(self) -> str:
        position = list(RULES).index(self.rule)
        found = (f"{n} {_rates(x)[position]}" for n, x in self.tests.items())
        return f"<FoundLearningRates by '{self.rule}': {', '.join(found)}>"

    def _parts(self) -> list[tables.Part]:
        rules = list(RULES)
        rows = [_row(name, test) for name, test in self.tests.items()]
        table = tables.Table(
            "Learning rates",
            ("block", *rules, "lowest loss", "at", "steps", "end"),
            rows,
            right=(*rules, "lowest loss", "at", "steps"),
        )
        note = f"suggestions follow the rule '{self.rule}'"
        return [table, tables.Note(note)]


def check_rule(rule: str) -> None:
    """Raises a ValueError if there is no such rule."""
    if not isinstance(rule, str) or rule not in RULES:
        raise ValueError(f"rule={rule!r} is none of {listed(RULES)}.")


def _row(name: str, test: RangeTest) -> tuple:
    curve = test.smoothed if len(test.smoothed) else test.losses[:1]
    lowest = int(curve.argmin())
    return (
        name,
        *_rates(test),
        f"{curve[lowest]:.4g}",
        f"{test.rates[lowest]:.2g}",
        len(test.rates),
        "diverged" if test.diverged else "highest rate",
    )


def _rates(test: RangeTest) -> list[str]:
    """Returns the rate that each rule suggests, as text."""
    return [
        "does not fall" if rate is None else f"{rate:.2g}"
        for rate in (test.suggestions[rule] for rule in RULES)
    ]


def _draw(axis: Any, name: str, test: RangeTest, rule: str) -> None:
    faint = {"color": figures.FAINT, "linewidth": 1}
    axis.plot(test.rates, test.losses, label="loss", **faint)
    rates = test.rates[: len(test.smoothed)]
    blue = figures.COLOURS[0]
    axis.plot(rates, test.smoothed, color=blue, label="smoothed")
    for number, (one, rate) in enumerate(test.suggestions.items(), start=1):
        if rate is None:
            continue
        size = 11 if one == rule else 7
        axis.plot(
            rate,
            np.interp(rate, rates, test.smoothed),
            label=f"{one}: {rate:.2g}",
            **{**figures.point_style(number), "markersize": size},
        )
    axis.set(title=name, xlabel="learning rate", ylabel="loss", xscale="log")
    axis.set_ylim(*_limits(test))
    figures.add_legend(axis)


def _limits(test: RangeTest) -> tuple[float, float]:
    """Returns limits without the explosion, which would flatten the rest."""
    shown = before_the_end(test.losses)
    shown = shown if len(shown) else np.nan_to_num(test.losses[:1])
    curve = test.smoothed if len(test.smoothed) else shown
    low, high = float(shown.min()), float(curve.max())
    margin = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin
