"""Rows come from many arrays as from the one that they make up."""

import ml_dtypes
import numpy as np
import pytest

from keras_cascade.cache.storage.gathering import gather

# No backend takes part in it.
pytestmark = pytest.mark.once

WHOLE = np.arange(60, dtype=np.float32).reshape(20, 3)


@pytest.mark.parametrize("dtype", [np.float32, bool, ml_dtypes.bfloat16])
@pytest.mark.parametrize("cuts", [[], [7], [7, 7, 12], range(1, 20)])
@pytest.mark.parametrize(
    "positions",
    [
        range(20),
        range(3, 15),
        range(19, -1, -1),
        [5, 5, 19, 0, 5],
        [8],
        [],
        np.random.default_rng(0).permutation(20),
    ],
    ids=["all", "a piece", "backward", "repeated", "one", "none", "shuffled"],
)
def test_rows_are_those_of_the_whole_array(dtype, cuts, positions):
    whole = WHOLE.astype(dtype)
    positions = np.array(positions, np.int64)
    rows = gather(np.split(whole, list(cuts)), positions)
    assert rows.dtype == whole.dtype
    np.testing.assert_array_equal(rows, whole[positions])
    rows[:] = 0
    np.testing.assert_array_equal(whole, WHOLE.astype(dtype))


@pytest.mark.parametrize("position", [-1, 20])
@pytest.mark.parametrize("cuts", [[], [7]])
def test_a_row_that_is_not_there_is_an_error(position, cuts):
    with pytest.raises(IndexError, match=rf"no row {position}: there are 20"):
        gather(np.split(WHOLE, cuts), np.array([3, position]))
