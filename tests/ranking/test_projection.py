"""The sparse random projection, beside that of scikit-learn."""

import numpy as np
import pytest

from keras_cascade.ranking.projection import SparseProjection

FEATURES, COMPONENTS = 900, 200


def matrix():
    projection = SparseProjection(FEATURES, COMPONENTS)
    return projection(np.eye(FEATURES, dtype="float32")).T


def test_entries_are_those_of_scikit_learn():
    random = pytest.importorskip("sklearn.random_projection")
    other = random.SparseRandomProjection(COMPONENTS, random_state=0)
    expected = other.fit(np.zeros((1, FEATURES))).components_
    found = matrix()
    values = np.unique(np.abs(found[found != 0]))
    np.testing.assert_allclose(values, np.unique(np.abs(expected.data)), 1e-6)
    density = np.count_nonzero(found) / found.size
    assert density == pytest.approx(expected.nnz / found.size, rel=0.05)
    assert np.mean(np.sign(found[found != 0])) == pytest.approx(0, abs=0.05)


def test_distances_are_kept_and_every_projection_is_the_same():
    rows = np.random.default_rng(1).normal(size=(20, FEATURES))
    first = SparseProjection(FEATURES, COMPONENTS)(rows.astype("float32"))
    again = SparseProjection(FEATURES, COMPONENTS)(rows.astype("float32"))
    np.testing.assert_array_equal(first, again)
    before = np.linalg.norm(rows[1:] - rows[0], axis=1)
    after = np.linalg.norm(first[1:] - first[0], axis=1)
    assert np.abs(after / before - 1).max() < 0.3


def test_few_features_leave_no_component_empty():
    found = SparseProjection(5, 4)(np.eye(5, dtype="float32"))
    assert (np.count_nonzero(found, axis=0) >= 1).all()
