"""Rows out of arrays that lie one behind the other."""

from collections.abc import Sequence

import numpy as np


def gather(segments: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
    """Reads rows, each segment once and in its own order.

    Args:
        segments: Arrays whose rows are numbered through, at least one.
        positions: Numbers of rows, in any order, also repeated.

    Returns:
        A new array, its rows in the order of `positions`.

    Raises:
        IndexError: A position is negative or lies behind the last row.
    """
    starts = np.cumsum([0, *map(len, segments)])
    _check_range(positions, int(starts[-1]))
    if len(segments) == 1:
        return segments[0].take(positions, axis=0)
    first = segments[0]
    rows = np.empty((len(positions), *first.shape[1:]), first.dtype)
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    bounds = np.searchsorted(ordered, starts)
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        part = slice(bounds[number], bounds[number + 1])
        local = ordered[part] - starts[number]
        _copy(segments[number], local, rows, order[part])
    return rows


def _check_range(positions: np.ndarray, rows: int) -> None:
    wrong = (positions < 0) | (positions >= rows)
    if wrong.any():
        raise IndexError(
            f"There is no row {positions[wrong][0]}: there are {rows}."
        )


def _copy(
    segment: np.ndarray, local: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> None:
    """To `rows[places]`, without an array in between where it is one piece."""
    begin, end = int(places[0]), int(places[-1]) + 1
    if end - begin == len(places) and (np.diff(places) == 1).all():
        # Unlike "raise", "clip" writes where it is told without a buffer.
        segment.take(local, axis=0, out=rows[begin:end], mode="clip")
    else:
        rows[places] = segment.take(local, axis=0)
