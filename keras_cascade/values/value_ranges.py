"""Defines ranges of values, and interval arithmetic on them.

Tested by `tests/values/test_range_inference.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ValueRange:
    """The facts that are known about the values of a tensor.

    Attributes:
        low: The lower bound.
        high: The upper bound.
        sums_to_one: Whether the values are probabilities that sum to one;
            None if that is unknown.
        standardised: Whether the values have a mean of about zero and a
            deviation of about one.
        source: The layer or preprocessing from which the facts follow.
    """

    low: float = -math.inf
    high: float = math.inf
    sums_to_one: bool | None = None
    standardised: bool = False
    source: str = ""

    @property
    def is_bounded(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        return (
            f"{self._text()} ({self.source})" if self.source else self._text()
        )

    def _text(self) -> str:
        if self.sums_to_one:
            return "probabilities that sum to one"
        if self.standardised:
            return "standardised"
        if self.is_bounded:
            return f"in [{self.low:.4g}, {self.high:.4g}]"
        if math.isfinite(self.low):
            return f"at least {self.low:.4g}"
        if math.isfinite(self.high):
            return f"at most {self.high:.4g}"
        return "features" if self.source else "not known"

    def rescaled(self, scale: ArrayLike, offset: ArrayLike) -> "ValueRange":
        """Returns the range of `scale * x + offset`, over all channels."""
        if not self.is_bounded:
            return UNKNOWN
        # A negative scale swaps the bounds.
        scale, offset = np.asarray(scale), np.asarray(offset)
        ends = [scale * bound + offset for bound in (self.low, self.high)]
        low, high = float(np.min(ends)), float(np.max(ends))
        return ValueRange(low, high, source=self.source)


UNKNOWN = ValueRange()
PIXELS = ValueRange(0.0, 255.0, sums_to_one=False, source="pixels")
STANDARDISED = ValueRange(sums_to_one=False, standardised=True)
PROBABILITIES = ValueRange(0.0, 1.0, sums_to_one=True)


def pixels_for(reader: str) -> ValueRange:
    """Returns the range of pixels, with the reader that expects them."""
    return replace(PIXELS, source=f"pixels, for {reader}")


def hull(ranges: Sequence[ValueRange]) -> ValueRange:
    """Returns a range that covers several; other facts remain if they agree."""
    if not ranges or all(x == ranges[0] for x in ranges):
        return ranges[0] if ranges else UNKNOWN
    standardised = all(x.standardised for x in ranges)
    return ValueRange(
        min(x.low for x in ranges),
        max(x.high for x in ranges),
        sums_to_one=False if standardised else None,
        standardised=standardised,
        source=", ".join(dict.fromkeys(x.source for x in ranges if x.source)),
    )


def total(ranges: Sequence[ValueRange]) -> ValueRange:
    """Returns the range of a sum."""
    # A constant operand is no tensor of the graph, and is missing here.
    if len(ranges) < 2:
        return UNKNOWN
    return ValueRange(sum(x.low for x in ranges), sum(x.high for x in ranges))


def product(ranges: Sequence[ValueRange]) -> ValueRange:
    """Returns the range of a product."""
    if len(ranges) < 2:
        return UNKNOWN
    if not all(x.is_bounded for x in ranges):
        positive = all(x.low >= 0 for x in ranges)
        return ValueRange(0.0) if positive else UNKNOWN
    low = high = 1.0
    for one in ranges:
        ends = [a * b for a in (low, high) for b in (one.low, one.high)]
        low, high = min(ends), max(ends)
    return ValueRange(low, high)
