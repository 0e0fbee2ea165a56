"""Chooses taps of a ranking: one that is cheap, or several that add up.

Tested by `tests/ranking/test_ranking.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from keras_cascade.graph.taps import Tap
from keras_cascade.ranking.candidates import Networks
from keras_cascade.ranking.labels import Labels
from keras_cascade.ranking.ridge import leave_one_out
from keras_cascade.ranking.spectrum import one_thread


class Row(Protocol):
    """A row of a ranking."""

    @property
    def path(self) -> str:
        """Returns the tap's path."""
        ...

    @property
    def network(self) -> str:
        """Returns the name of its network."""
        ...

    @property
    def flops(self) -> int | None:
        """Returns the operations up to the tap."""
        ...

    @property
    def scores(self) -> dict[str, float]:
        """Returns the scores by name."""
        ...

    @property
    def errors(self) -> dict[str, float]:
        """Returns the standard errors of the scores."""
        ...

    @property
    def bytes(self) -> int | None:
        """Returns the bytes of a sample in a cache."""
        ...

    @property
    def tap(self) -> Tap:
        """Returns the tap."""
        ...

    @property
    def cost(self) -> int:
        """The operations up to the tap, else the parameters."""
        ...


@dataclass(frozen=True, eq=False)
class Limits:
    """The cost that some taps together may have.

    Attributes:
        networks: The networks.
        max_flops: The most operations for a sample; None for any number.
        max_bytes: The most bytes for a sample; None for any number.
    """

    networks: Networks
    max_flops: float | None
    max_bytes: float | None

    def allow(self, rows: Sequence[Row]) -> bool:
        """Returns whether some taps together are within the limits.

        A cost that is not known is not within a limit.
        """
        if self.max_flops is not None:
            flops = self.networks.flops([row.tap for row in rows])
            if flops is None or flops > self.max_flops:
                return False
        sizes = [row.bytes for row in rows]
        known = [size for size in sizes if size is not None]
        return self.max_bytes is None or (
            len(known) == len(sizes) and sum(known) <= self.max_bytes
        )

    def error(self, what: str, cheapest: Row) -> ValueError:
        """Returns the error for limits that allow too little."""
        given = {"max_flops": self.max_flops, "max_bytes": self.max_bytes}
        limits = ", ".join(f"{k}={x}" for k, x in given.items() if x)
        return ValueError(
            f"{what} within {limits or 'the ranking'}. The cheapest, "
            f"'{cheapest.path}', takes {cheapest.cost:,} operations and "
            f"{cheapest.bytes} bytes a sample."
        )


def cheapest(rows: Sequence[Row], score: str, limits: Limits) -> Row:
    """Returns the cheapest tap within one standard error of the best.

    Raises:
        ValueError: If no tap is within the limits.
    """
    allowed = [row for row in rows if limits.allow([row])]
    if not allowed:
        raise limits.error("No tap is", min(rows, key=lambda x: x.cost))
    best = max(allowed, key=lambda x: x.scores[score])
    least = best.scores[score] - best.errors.get(score, 0.0)
    good = [row for row in allowed if row.scores[score] >= least]
    return min(good, key=lambda x: x.cost)


def greedy(
    rows: Sequence[Row],
    features: Mapping[str, np.ndarray],
    labels: Labels,
    k: int,
    limits: Limits,
) -> list[str]:
    """Returns several taps, each the best beside those before it.

    The kept features of the union are scored by the probe: nothing is
    computed from the data again. Each tap has the same weight in it.

    Raises:
        ValueError: If fewer than `k` taps are within the limits.
    """
    scaled = {row.path: _scaled(features[row.path]) for row in rows}
    chosen: list[Row] = []
    for _ in range(k):
        left = [row for row in rows if row not in chosen]
        allowed = [row for row in left if limits.allow([*chosen, row])]
        if not allowed:
            raise limits.error(
                f"Only {len(chosen)} of {k} taps are",
                min(rows, key=lambda x: x.cost),
            )
        before = [scaled[row.path] for row in chosen]
        with one_thread():
            values = [
                _value(np.hstack([*before, scaled[row.path]]), labels)
                for row in allowed
            ]
        chosen.append(allowed[int(np.argmax(values))])
    return [row.path for row in chosen]


def _scaled(features: np.ndarray) -> np.ndarray:
    """Returns centred features of the same sum of squares for each tap."""
    x = features.astype("float64")
    x = x - x.mean(axis=0)
    return x / max(np.sqrt((x**2).sum()), np.finfo("float64").tiny)


def _value(features: np.ndarray, labels: Labels) -> float:
    found = leave_one_out(features, labels.signs)
    return float(labels.parts_of(found.predictions).mean())
