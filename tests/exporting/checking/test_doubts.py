"""Checks that prove little, told from those that prove something."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting.checking.doubts import (
    find_one_label,
    find_unproven,
)
from keras_cascade.exporting.samples import store_samples
from keras_cascade.graph.flattening import as_program

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (RNG.normal(size=(4, 3)), None),
        (np.full((4, 3), 0.2), "the model answers all 4 samples alike"),
        # Answers that differ in their last digit.
        (1 + 1e-7 * RNG.normal(size=(4, 3)), "all 4 samples alike"),
        (np.array([[0.0, 1.0], [0.0, 1.0 + 1e-3]]), None),
        (np.array([[0.1, 0.9]]), "one sample"),
        (np.zeros((3, 2)), "all 3 samples alike"),
        (np.full((3, 2), np.nan), "all 3 samples alike"),
    ],
)
def test_answers_that_do_not_vary_prove_little(answers, why):
    found = find_unproven({"y": answers})
    assert found == {} if why is None else why in found["y"]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([Y[:3], Y[3:]], ""),
        ([Y[:1], Y[2:3]], "all 2 labels are 0"),
        ([np.eye(3)[[1, 1]]], "all 2 labels are [0. 1. 0.]"),
        ([np.eye(3)[[1, 2]]], ""),
        ([{"kind": Y, "size": X[:, 0] * 0}], "labels of 'size' are 0."),
        ([Y[:1]], ""),
        ([None, None], ""),
        ([], ""),
    ],
)
def test_labels_of_one_class_show_little(labels, why):
    assert find_one_label(labels) == why or why in find_one_label(labels) != ""


def dead_model():
    inputs = keras.Input((3,), name="x")
    x = layers.Rescaling(0.0)(inputs)
    model = keras.Model(inputs, layers.Dense(2, "softmax", name="y")(x))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_an_export_says_what_its_check_does_not_show(tmp_path):
    data, path = (X, Y * 0), tmp_path / "m.keras"
    with pytest.warns(UserWarning) as caught:
        report = kc.export(dead_model(), path, check_data=data, verbose=False)
    told = " ".join(str(x.message) for x in caught)
    assert "output 'y' proves little: the model answers all 6 samples" in told
    assert "The metrics show little: all 6 labels are 0." in told
    assert report.difference == 0
    assert report.holds is None
    text = str(report)
    assert "not shown" in text
    assert "answers all 6 samples alike" in text
    assert report.to_dict()["unproven"] == dict(report.unproven)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[3 * index : 3 * index + 3], Y[3 * index : 3 * index + 3]


FORMS = {
    "a tuple": lambda: (X, Y),
    "weights": lambda: (X, Y, np.ones(6)),
    "a dict": lambda: ({"x": X}, Y),
    "a list of inputs": lambda: ([X], Y),
    "a PyDataset": Batches,
    "a generator": lambda: (Batches()[i] for i in range(2)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("argument", ["check_data", "calibration_data"])
def test_data_come_in_the_forms_of_fit(tmp_path, form, argument):
    ports = as_program(dead_model()).inputs
    folder = tmp_path / "samples"
    found = store_samples(FORMS[form](), ports, folder, argument)
    stored = np.concatenate([batch["x"] for batch in found])
    np.testing.assert_array_equal(stored, X)
    np.testing.assert_array_equal(np.concatenate(found.labels), Y)
