"""The weights of a resampling are those by hand, and those of Keras."""

import keras
import numpy as np
import pytest

from keras_cascade.adapters.resampling import Resampling

to_numpy = keras.ops.convert_to_numpy


def test_half_the_size_averages_triangles_over_two_cells():
    expected = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    np.testing.assert_allclose(Resampling(1, 2).kernel(4).T, expected)


def test_twice_the_size_interpolates_between_neighbours():
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_allclose(Resampling(1, 4).kernel(2).T, expected)


def test_without_antialiasing_two_neighbours_count():
    sparse = Resampling(1, 2, antialias=False).kernel(8)
    np.testing.assert_allclose(sparse.T @ np.arange(8), [1.5, 5.5])
    assert (sparse > 0).sum() == 4


@pytest.mark.parametrize("count", [1, 5, 33])
@pytest.mark.parametrize("size", [1, 4, 40])
def test_weights_add_up_to_one(count, size):
    kernel = Resampling(1, size).kernel(count)
    assert kernel.shape == (count, size)
    np.testing.assert_allclose(kernel.sum(axis=0), 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(("count", "size"), [(33, 7), (7, 33), (13, 12)])
def test_the_weights_are_those_of_keras_resizing(count, size, interpolation):
    x = np.random.default_rng(0).normal(size=(2, count, 3)).astype("float32")
    expected = keras.ops.image.resize(
        x[:, :, None],
        (size, 1),
        interpolation=interpolation,
        antialias=True,
        data_format="channels_last",
    )
    y = Resampling(1, size, interpolation)(keras.ops.convert_to_tensor(x))
    np.testing.assert_allclose(
        to_numpy(y), to_numpy(expected)[:, :, 0], atol=1e-5
    )
