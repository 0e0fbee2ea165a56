"""Leave-one-out ridge regression beside scikit-learn and a loop."""

import numpy as np
import pytest

from keras_cascade.ranking.ridge import PENALTIES, leave_one_out

PENALTY = np.array([0.03, 1.0, 40.0])


def data(samples, features, targets=2):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(samples, features)) + 5.0
    noise = draw.normal(size=(samples, targets))
    return x, x[:, :targets] * 2 + noise


@pytest.mark.parametrize("shape", [(30, 6), (15, 40)])
def test_it_is_the_ridge_of_scikit_learn(shape):
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = data(*shape)
    expected = linear.RidgeCV(alphas=PENALTY, store_cv_results=True).fit(x, y)
    found = leave_one_out(x, y, PENALTY)
    errors = expected.cv_results_.mean(axis=(0, 1))
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8)
    assert found.penalty == expected.alpha_


def test_it_is_the_classifier_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    x, _ = data(40, 5)
    labels = (x[:, 0] > 5).astype(int) + (x[:, 1] > 6)
    signs = 2.0 * np.eye(3)[labels] - 1
    expected = linear.RidgeClassifierCV(alphas=PENALTY, store_cv_results=True)
    expected.fit(x, labels)
    found = leave_one_out(x, signs, PENALTY)
    assert found.penalty == expected.alpha_
    errors = expected.cv_results_.mean(axis=(0, 1))
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8)


@pytest.mark.parametrize("shape", [(12, 3), (8, 20)])
def test_it_is_a_loop_that_leaves_each_sample_out(shape):
    x, y = data(*shape)
    found = leave_one_out(x, y, np.array([0.5]))
    for left in range(len(x)):
        kept = np.arange(len(x)) != left
        mean_x, mean_y = x[kept].mean(axis=0), y[kept].mean(axis=0)
        a, b = x[kept] - mean_x, y[kept] - mean_y
        weights = np.linalg.solve(a.T @ a + 0.5 * np.eye(a.shape[1]), a.T @ b)
        expected = mean_y + (x[left] - mean_x) @ weights
        np.testing.assert_allclose(found.predictions[left], expected, atol=1e-9)


def test_the_scale_of_the_features_does_not_matter():
    x, y = data(30, 50)
    first, second = leave_one_out(x, y), leave_one_out(1000 * x, y)
    np.testing.assert_allclose(first.predictions, second.predictions, 1e-5)
    assert len(first.errors) == len(PENALTIES)


def test_constant_features_predict_the_mean_of_the_others():
    y = np.array([[1.0], [2.0], [6.0]])
    found = leave_one_out(np.ones((3, 4)), y)
    np.testing.assert_allclose(found.predictions.ravel(), [4.0, 3.5, 1.5])
