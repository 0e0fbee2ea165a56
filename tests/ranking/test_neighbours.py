"""The vote of the nearest neighbours beside scikit-learn."""

import numpy as np
import pytest

from keras_cascade.ranking.neighbours import neighbour_means


@pytest.mark.parametrize("samples", [40, 600])
def test_neighbours_are_those_of_scikit_learn(samples):
    neighbors = pytest.importorskip("sklearn.neighbors")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(samples, 7))
    classes = draw.integers(3, size=samples)
    means = neighbour_means(x, np.eye(3)[classes])
    for left in range(0, samples, 13):
        kept = np.arange(samples) != left
        model = neighbors.KNeighborsClassifier(5, metric="cosine")
        model.fit(x[kept], classes[kept])
        expected = model.predict_proba(x[left : left + 1])[0]
        np.testing.assert_allclose(means[left], expected)


def test_few_samples_have_few_neighbours():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    targets = np.array([[0.0], [3.0], [6.0]])
    found = neighbour_means(x, targets).ravel()
    assert found.tolist() == [4.5, 3.0, 1.5]
