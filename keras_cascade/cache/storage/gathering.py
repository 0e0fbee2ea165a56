"""Gathers rows from several arrays that make up one."""

from collections.abc import Sequence

import numpy as np


def gather(segments: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
    """Returns rows as a new array, in the order of their positions.

    Each segment is read once and in its own order.

    Args:
        segments: At least one array; rows are numbered over all of them.
        positions: Numbers of rows, in any order, also repeated.

    Raises:
        IndexError: A position is negative or after the last row.
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
    """Copies to `rows[places]`, without a temporary array if it is a slice."""
    begin, end = int(places[0]), int(places[-1]) + 1
    if end - begin == len(places) and (np.diff(places) == 1).all():
        # Unlike mode="raise", NumPy buffers no result for mode="clip".
        segment.take(local, axis=0, out=rows[begin:end], mode="clip")
    else:
        rows[places] = segment.take(local, axis=0)
