"""Sums up the features of taps and entries, in one pass and bounded memory.

Tested by `tests/ranking/test_stitching.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from keras_cascade._reporting.messages import in_bytes
from keras_cascade.adapters.affine import Scatter
from keras_cascade.adapters.moments import Moments
from keras_cascade.adapters.resampling import Resampling
from keras_cascade.ranking.projection import Narrowing

# The positions of a sample that are compared, of those that there are.
POSITIONS = 64
MAX_BYTES = 2 * 2**30
_SEED = 0


@dataclass(frozen=True, eq=False)
class PlacedFeatures:
    """The features of some samples, by position.

    Attributes:
        rows: `(samples, *positions, channels)`.
        mask: `(samples, steps)`, the steps of sequences that count; None if
            all do.
    """

    rows: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _Grid:
    """The taps and entries that are compared at the same positions.

    Attributes:
        columns: The columns of each tap and entry in the moments.
        moments: Those of all of them together.
        positions: The positions that are compared; None for all.
    """

    columns: dict[tuple[str, str], slice]
    moments: Moments
    positions: np.ndarray | None


class PairMoments:
    """The joint moments of each tap and each entry that fits it.

    Maps are compared with maps, at the positions of the entry, sequences with
    sequences, and anything, averaged, with vectors.

    Args:
        max_features: The width to which wider features are projected.
    """

    def __init__(self, max_features: int):
        self._max_features = max_features
        self._grids: dict[tuple[int, ...], _Grid] = {}
        self._narrowed = Narrowing(max_features)

    def add(
        self,
        taps: Mapping[str, PlacedFeatures],
        entries: Mapping[str, PlacedFeatures],
    ) -> None:
        """Adds the features of the same samples at taps and entries."""
        if not self._grids:
            self._begin(taps, entries)
        for size, grid in self._grids.items():
            rows, kept = [], None
            for kind, name in grid.columns:
                given = (taps if kind == "tap" else entries)[name]
                found, mask = _at(given, size)
                kept = mask if kept is None else kept
                rows.append(self._rows(found, grid.positions))
            joined = np.hstack(rows)
            if kept is not None:
                joined = joined[_chosen(kept, grid.positions).reshape(-1)]
            grid.moments.update(joined)

    def scatters(self) -> Iterator[tuple[str, str, Scatter]]:
        """Yields the moments of each pair of a tap and an entry that fit."""
        for grid in self._grids.values():
            whole, mean = grid.moments.scatter, grid.moments.mean
            count = grid.moments.count
            for (kind, tap), x in grid.columns.items():
                for (other, entry), y in grid.columns.items():
                    if kind == "tap" and other == "entry":
                        sums = whole[x, x], whole[x, y], whole[y, y]
                        found = Scatter(*sums, mean[x], mean[y], count)
                        yield tap, entry, found

    def _begin(
        self,
        taps: Mapping[str, PlacedFeatures],
        entries: Mapping[str, PlacedFeatures],
    ) -> None:
        sizes = dict.fromkeys(x.rows.shape[1:-1] for x in entries.values())
        layouts = {size: self._layout(size, taps, entries) for size in sizes}
        widths = {
            size: max((x.stop for x in columns.values()), default=0)
            for size, columns in layouts.items()
        }
        # The sums, a copy that is read, and the rows that wait.
        needed = sum(8 * w * (2 * w + max(w, 1024)) for w in widths.values())
        if needed > MAX_BYTES:
            raise ValueError(
                f"{len(taps)} taps and {len(entries)} entries take "
                f"{in_bytes(needed)} of memory to compare, more than "
                f"{in_bytes(MAX_BYTES)}. Name fewer, or lower max_features="
                f"{self._max_features}."
            )
        draw = np.random.default_rng(_SEED)
        for size, columns in layouts.items():
            count = int(np.prod(size))
            some = None
            if count > POSITIONS:
                some = np.sort(draw.choice(count, POSITIONS, replace=False))
            width = widths[size]
            moments = Moments(width, block=max(width, 1024))
            self._grids[size] = _Grid(columns, moments, some)

    def _layout(
        self,
        size: tuple[int, ...],
        taps: Mapping[str, PlacedFeatures],
        entries: Mapping[str, PlacedFeatures],
    ) -> dict[tuple[str, str], slice]:
        """Returns the columns of what is compared at some positions."""
        fitting = {
            ("tap", name): x
            for name, x in taps.items()
            if not size or x.rows.ndim == len(size) + 2
        } | {
            ("entry", name): x
            for name, x in entries.items()
            if x.rows.shape[1:-1] == size
        }
        columns, start = {}, 0
        for key, x in fitting.items():
            width = min(x.rows.shape[-1], self._max_features)
            columns[key] = slice(start, start + width)
            start += width
        return columns

    def _rows(
        self, found: np.ndarray, positions: np.ndarray | None
    ) -> np.ndarray:
        width = found.shape[-1]
        rows = _chosen(found.reshape(len(found), -1, width), positions).reshape(
            -1, width
        )
        return self._narrowed(rows)


def _chosen(x: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
    return x if positions is None else x[:, positions]


def _at(
    given: PlacedFeatures, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns features at some positions, and which of the steps count."""
    x, mask = given.rows, given.mask
    if not size:
        return _mean(x, mask), None
    for axis, count in enumerate(size, start=1):
        if x.shape[axis] != count:
            x, mask = Resampling(axis, count).of_array(x), None
    return x, mask


def _mean(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        return x.mean(axis=tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x
    counts = mask[..., None] != 0
    total = np.where(counts, x, 0.0).sum(axis=1)
    return total / np.maximum(counts.sum(axis=1), 1)
