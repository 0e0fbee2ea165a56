"""Compares linear CKA in batches with full Gram matrices in float64."""

import tracemalloc

import numpy as np
import pytest

from keras_cascade.training.drift.cka import LinearCKA, Sketch


def hsic_cka(x, y):
    """Returns CKA by Kornblith 2019, equations 1 and 3."""
    x, y = (a.astype("float64") for a in (x, y))
    n = len(x)
    centre = np.eye(n) - 1 / n

    def hsic(k, m):
        return np.trace(k @ centre @ m @ centre) / (n - 1) ** 2

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def in_batches(x, y, size, **arguments):
    products = LinearCKA(**arguments)
    for start in range(0, len(x), size):
        products.update(x[start : start + size], y[start : start + size])
    return products.similarity()


def two_streams(samples=100, features=7, mean=0.0):
    random = np.random.default_rng(3)
    x = random.normal(size=(samples, features)) @ random.normal(
        size=(features, features)
    )
    y = x + random.normal(size=x.shape) * 2
    return x + mean, y - mean


@pytest.mark.parametrize("size", [1, 7, 32, 100])
def test_cka_is_the_ratio_of_hsic_for_every_batch_size(size):
    x, y = two_streams()
    expected = hsic_cka(x, y)
    assert 0.1 < expected < 0.9
    assert in_batches(x, y, size) == pytest.approx(expected, rel=1e-12)


def test_a_large_mean_costs_no_digits():
    x, y = two_streams()
    expected = hsic_cka(x, y)
    # At a mean of 1e6, products that are not centred lose twelve digits.
    for mean in (1e3, 1e6):
        shifted = in_batches(x + mean, y - 2 * mean, 9)
        assert shifted == pytest.approx(expected, rel=1e-8)


def test_a_sorted_stream_whose_mean_moves_gives_the_same():
    x, y = two_streams()
    order = np.argsort(x[:, 0])
    expected = hsic_cka(x, y)
    assert in_batches(x[order], y[order], 10) == pytest.approx(expected)


def test_equal_streams_give_one_and_so_do_rotated_and_scaled_ones():
    x, _ = two_streams()
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))
    for y in (x, x @ rotation, x * 1e-3, x @ rotation * 1e120):
        assert in_batches(x, y, 16) == pytest.approx(1.0, abs=1e-12)


def test_independent_streams_give_almost_0():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 20_000, 4))
    assert in_batches(x, y, 1000) < 1e-3


def test_constant_or_infinite_features_give_nan():
    x, y = two_streams()
    assert np.isnan(in_batches(np.ones_like(x), y, 10))
    assert np.isnan(in_batches(x, np.where(y > 0, np.inf, y), 10))
    assert np.isnan(LinearCKA().similarity())


@pytest.mark.parametrize("noise", [0.2, 1.0, 3.0])
def test_a_sketch_of_many_features_has_the_documented_error(noise):
    random = np.random.default_rng(1)
    x = random.normal(size=(300, 40)) @ random.normal(size=(40, 1500))
    y = x + noise * np.sqrt(40) * random.normal(size=x.shape)
    expected = hsic_cka(x, y)
    found = in_batches(x, y, 50, max_features=256)
    assert found != expected
    assert abs(found - expected) < 0.5 / np.sqrt(256)
    assert in_batches(x, x, 50, max_features=256) == pytest.approx(1.0)


def test_a_sketch_sums_each_feature_once_with_a_sign():
    units = Sketch(50, 8)(np.eye(50))
    assert units.shape == (50, 8)
    assert (np.abs(units).sum(axis=1) == 1).all()
    assert (np.abs(units).sum(axis=0) >= 1).all()


def memory_of(samples):
    products = LinearCKA()
    random = np.random.default_rng(0)
    tracemalloc.start()
    try:
        for _ in range(samples // 100):
            batch = random.normal(size=(100, 64))
            products.update(batch, batch * 2)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_twenty_times_the_samples_take_no_more_memory():
    few, many = memory_of(1_000), memory_of(20_000)
    assert many < 1.05 * few
