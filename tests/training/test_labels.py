"""Labels that a loss can take, and those that it cannot."""

import keras
import numpy as np
import pytest

from keras_cascade.training.labels import (
    check_label_values,
    check_labels,
    output_losses,
)

Y = np.arange(20) % 10
ONE_HOT = np.eye(10)[Y]
SPARSE = "sparse_categorical_crossentropy"
OUTPUT = keras.KerasTensor((None, 10))
STOCK = {
    SPARSE: keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "mse": keras.losses.MeanSquaredError,
}
ONE = keras.KerasTensor((None, 1))
MAP = keras.KerasTensor((None, 4, 4, 10))


def check(loss, labels, output):
    losses = output_losses(loss, [""])
    check_labels(losses, labels, output)
    check_label_values(losses, labels, output)


RIGHT = {
    "class numbers": (SPARSE, Y, OUTPUT),
    "class numbers in a column": (SPARSE, Y[:, None], OUTPUT),
    "class numbers as floats": (SPARSE, Y.astype("float32"), OUTPUT),
    "class numbers of pixels": (SPARSE, Y[:16].reshape(1, 4, 4), MAP),
    "some left out": (
        keras.losses.SparseCategoricalCrossentropy(ignore_class=-1),
        Y - 1,
        OUTPUT,
    ),
    "one-hot": ("categorical_crossentropy", ONE_HOT, OUTPUT),
    "binary": ("binary_crossentropy", Y % 2, ONE),
    "booleans": ("binary_crossentropy", Y > 4, ONE),
    "smoothed": ("binary_crossentropy", (Y % 2) * 0.9 + 0.05, ONE),
    "several labels": ("binary_crossentropy", ONE_HOT.astype(int), OUTPUT),
    "numbers in a row": ("mse", Y, ONE),
    "numbers in a column": (
        keras.losses.MeanSquaredError(),
        Y[:, None],
        ONE,
    ),
    "a loss in a dict": ({"head": SPARSE}, Y, OUTPUT),
    # Whatever these take, Keras says it.
    "a function of the user's": (lambda y, found: found, Y + 100, OUTPUT),
    "no loss": (None, ONE_HOT, ONE),
}


@pytest.mark.parametrize("case", RIGHT)
def test_labels_that_the_loss_takes_are_fine(case):
    loss, labels, output = RIGHT[case]
    check(loss, labels, output)
    if isinstance(loss, str):
        # Stock Keras takes them, too.
        shape = (len(labels), *output.shape[1:])
        STOCK[loss]()(labels, keras.ops.ones(shape) / 10)


WRONG = {
    "one-hot": (SPARSE, ONE_HOT, OUTPUT, "one-hot rows"),
    "of another rank": (SPARSE, np.zeros((2, 4, 4)), OUTPUT, "batch, 4, 4"),
    "out of range": (SPARSE, Y + 5, OUTPUT, "from 5 to 14"),
    "in a column": ("categorical_crossentropy", Y[:, None], OUTPUT, "class n"),
    "of another width": ("mse", ONE_HOT[:, :4], OUTPUT, r"\(batch, 4\)"),
    "classes": (keras.losses.BinaryCrossentropy(), Y, ONE, "from 0 to 1"),
    "NaN": ("mse", np.full(3, np.nan), ONE, "3 values that are not finite"),
    "of the loss's own class": (
        keras.losses.SparseCategoricalCrossentropy(name="mine"),
        Y + 1,
        OUTPUT,
        "from 1 to 10.*'mine'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_labels_that_the_loss_does_not_take_are_refused(case):
    loss, labels, output, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        check(loss, labels, output)


def test_the_labels_of_several_outputs_are_told_apart():
    losses = output_losses({"kind": SPARSE, "size": "mse"}, ["kind", "size"])
    outputs = {"kind": OUTPUT, "size": ONE}
    check_labels(losses, {"kind": Y, "size": Y}, outputs)
    with pytest.raises(ValueError, match="labels of 'kind' go from 1 to 10"):
        check_label_values(losses, {"kind": Y + 1, "size": Y}, outputs)
