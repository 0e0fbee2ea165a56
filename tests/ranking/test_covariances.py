"""The H-score and the effective rank, beside values and formulas."""

import numpy as np
import pytest

from keras_cascade.ranking.covariances import effective_rank, h_score

# H-score, and that of a shrunk covariance, by the code of their papers.
VALUES = {
    "load_digits": (16.0, 5.917909, 5.851433),
    "load_iris": (1.0, 1.191899, 1.177842),
    "load_wine": (1.0, 1.705821, 0.766098),
}


@pytest.mark.parametrize("name", VALUES)
def test_h_scores_are_those_of_the_papers(name):
    datasets = pytest.importorskip("sklearn.datasets")
    scale, plain, shrunk = VALUES[name]
    x, labels = getattr(datasets, name)(return_X_y=True)
    classes = np.eye(labels.max() + 1)[labels]
    found = h_score(x / scale, classes, shrink=False)
    assert found == pytest.approx(plain, abs=1e-5)
    assert h_score(x / scale, classes) == pytest.approx(shrunk, abs=1e-5)


def test_more_features_than_samples_have_an_h_score():
    covariance = pytest.importorskip("sklearn.covariance")
    draw = np.random.default_rng(0)
    x, labels = draw.normal(size=(20, 50)), np.arange(20) % 4
    centred = x - x.mean(axis=0)
    model = covariance.LedoitWolf().fit(centred)
    means = [centred[labels == label].mean(axis=0) for label in labels]
    between = (1 - model.shrinkage_) * np.cov(np.array(means).T)
    expected = np.trace(np.linalg.solve(model.covariance_, between))
    found = h_score(x, np.eye(4)[labels])
    assert found == pytest.approx(expected)


def test_constant_features_have_no_h_score():
    assert h_score(np.ones((6, 3)), np.eye(2)[[0, 1] * 3]) == 0.0


def test_the_effective_rank_is_the_entropy_of_singular_values():
    x = np.diag([3.0, 1.0, 0.0])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank(x) == pytest.approx(np.exp(entropy))
