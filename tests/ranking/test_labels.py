"""Labels of every kind, and those that rank nothing."""

import numpy as np
import pytest

from keras_cascade.ranking.labels import as_labels, read_labels

KINDS = {
    "whole numbers": ([0, 2, 0, 2], "classes", 2),
    "a column": ([[0], [1], [0], [1]], "classes", 2),
    "texts": (["a", "b", "c", "a", "b", "c"], "classes", 3),
    "booleans": ([True, False, True, False], "classes", 2),
    "one-hot": (np.eye(3)[[0, 1, 2, 0, 1, 2]], "classes", 3),
    "several labels": ([[1, 1], [0, 1], [0, 0]], "labels", 2),
    "numbers": ([0.5, 1.0, 2.0], "numbers", 1),
    "several numbers": ([[0.5, 1.0], [2.0, 3.0]], "numbers", 2),
}


@pytest.mark.parametrize("case", KINDS)
def test_labels_are_told_apart(case):
    given, kind, width = KINDS[case]
    labels = as_labels(np.array(given))
    assert (labels.kind, labels.targets.shape[1]) == (kind, width)


def test_accuracy_and_r2_are_the_means_of_parts():
    classes = as_labels(np.array([0, 1, 0, 1]))
    right = classes.parts_of(np.array([[-1.0], [2.0], [0.5], [-0.1]]))
    assert right.ravel().tolist() == [1, 1, 0, 0]
    several = as_labels(np.array([[1, 1], [0, 1], [0, 0]]))
    signs = np.array([[1.0, -1], [-1, 1], [-1, -1]])
    assert several.parts_of(signs).ravel().tolist() == [0.5, 1, 1]


def test_r2_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    y = draw.normal(size=(30, 3))
    found = y + 0.3 * draw.normal(size=y.shape)
    parts = as_labels(y).parts_of(found)
    assert parts.mean() == pytest.approx(metrics.r2_score(y, found))


BAD = {
    "one class": ([1, 1, 1], "one class"),
    "a class alone": ([0, 0, 0, 1], "single sample"),
    "more classes than samples": ([0, 1, 2, 3], "4 samples have 4 classes"),
    "equal numbers": ([[0.5, 0.1], [0.5, 0.2]], "equal in all 2"),
    "not finite": ([0.5, np.nan, 1.5], "1 of 3 labels are NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_labels_that_rank_nothing_are_refused(case):
    given, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        as_labels(np.array(given))


def test_labels_of_several_outputs_are_refused():
    with pytest.raises(ValueError, match="labels of one output"):
        read_labels([{"a": np.zeros(3), "b": np.zeros(3)}])
    assert read_labels([None]) is None
