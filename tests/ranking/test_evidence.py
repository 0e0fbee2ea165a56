"""LogME beside Bayesian ridge regression of scikit-learn."""

import numpy as np
import pytest

from keras_cascade.ranking.evidence import log_evidence

# Of BayesianRidge at its default tolerance, which stops a little early.
VALUES = {
    "load_digits": (16.0, 0.270277),
    "load_iris": (1.0, -0.160062),
    "load_wine": (1.0, -0.004465),
}


def bayesian(x, y):
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.BayesianRidge(
        fit_intercept=False,
        alpha_1=0,
        alpha_2=0,
        lambda_1=0,
        lambda_2=0,
        compute_score=True,
        tol=1e-12,
        max_iter=100_000,
    )
    return model.fit(x, y).scores_[-1] / len(x)


@pytest.mark.parametrize("mean", [0.0, 0.7, 100.0])
@pytest.mark.parametrize("shape", [(40, 10), (25, 60)])
def test_it_is_the_evidence_of_bayesian_ridge(shape, mean):
    draw = np.random.default_rng(1)
    x = draw.normal(size=shape) + mean * draw.normal(size=shape[1])
    y = x[:, :2] + 0.4 * draw.normal(size=(shape[0], 2)) - 0.2
    expected = np.mean([bayesian(x, one) for one in y.T])
    assert log_evidence(x, y) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", VALUES)
def test_known_data_have_the_published_values(name):
    datasets = pytest.importorskip("sklearn.datasets")
    scale, expected = VALUES[name]
    x, labels = getattr(datasets, name)(return_X_y=True)
    classes = np.eye(labels.max() + 1)[labels]
    found = log_evidence(x / scale, classes)
    assert found == pytest.approx(expected, abs=1e-5)
    exact = np.mean([bayesian(x / scale, one) for one in classes.T])
    assert found == pytest.approx(exact, abs=1e-6)


def test_the_scale_of_the_features_does_not_matter():
    draw = np.random.default_rng(2)
    x = draw.normal(size=(30, 50))
    y = (x[:, :1] > 0).astype(float)
    assert log_evidence(1000 * x, y) == pytest.approx(log_evidence(x, y))
