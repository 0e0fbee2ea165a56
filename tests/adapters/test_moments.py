"""Moments of streamed rows are those of all rows at once."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_cascade.adapters.moments import Moments, principal_components


def moments_of(rows: np.ndarray, block: int | None = None) -> Moments:
    moments = Moments(rows.shape[1], block)
    moments.update(rows)
    return moments


def covariance(moments: Moments) -> np.ndarray:
    lower = np.tril(moments.lower_covariance)
    return lower + np.tril(lower, -1).T


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    block=st.integers(1, 12),
    offset=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
)
def test_any_split_into_batches_gives_the_moments_of_the_whole(
    seed, sizes, block, offset
):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(size, 3)) + offset for size in [*sizes, 2]]
    moments = Moments(3, block)
    for part in parts:
        moments.update(part)
    rows = np.concatenate(parts)
    assert moments.count == len(rows)
    # A mean near 0 is what is left of samples of size 1, and their rounding.
    np.testing.assert_allclose(
        moments.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(
        covariance(moments), np.cov(rows, rowvar=False), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_of_any_size_give_the_same_moments(block: int):
    rows = np.random.default_rng(0).normal(size=(101, 5)) + 100.0
    moments = Moments(5, block)
    for start in range(0, 101, 10):
        moments.update(rows[start : start + 10])
    assert moments.count == 101
    np.testing.assert_allclose(
        covariance(moments), np.cov(rows, rowvar=False), rtol=1e-10
    )


def test_moments_can_be_read_in_the_middle_of_a_stream():
    rows = np.random.default_rng(0).normal(size=(20, 2))
    moments = moments_of(rows[:5])
    np.testing.assert_allclose(moments.mean, rows[:5].mean(axis=0))
    moments.update(rows[5:])
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0))


def test_update_leaves_the_rows_as_they_are():
    rows = np.arange(8.0).reshape(4, 2)
    moments_of(rows).lower_covariance  # noqa: B018
    np.testing.assert_array_equal(rows, np.arange(8.0).reshape(4, 2))


def test_components_are_orthonormal_with_their_largest_entry_positive():
    rows = np.random.default_rng(0).normal(size=(50, 6))
    found = principal_components(moments_of(rows), 6)
    np.testing.assert_allclose(
        found.components @ found.components.T, np.eye(6), atol=1e-12
    )
    largest = np.abs(found.components).argmax(axis=1)
    assert (found.components[np.arange(6), largest] > 0).all()
    np.testing.assert_allclose(
        found.total_variance, rows.var(axis=0, ddof=1).sum()
    )


def test_components_are_the_same_where_scipy_is_not_installed(monkeypatch):
    rows = np.random.default_rng(5).normal(size=(60, 12)) * np.arange(1, 13)
    moments = Moments(12, block=25)
    moments.update(rows)
    with_scipy = principal_components(moments, 4)

    found = importlib.util.find_spec

    def hidden(name, *rest):
        return None if name == "scipy" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    moments = Moments(12, block=25)
    moments.update(rows)
    without = principal_components(moments, 4)
    np.testing.assert_allclose(
        covariance(moments), np.cov(rows.T), rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(
        with_scipy.components, without.components, atol=1e-10
    )
    np.testing.assert_allclose(
        with_scipy.explained_variance, without.explained_variance, rtol=1e-10
    )
    np.testing.assert_allclose(
        without.total_variance, rows.var(axis=0, ddof=1).sum(), rtol=1e-10
    )


def test_a_fraction_of_no_variance_is_an_error():
    with pytest.raises(ValueError, match="5 rows are all equal"):
        principal_components(moments_of(np.ones((5, 3))), 0.9)
