"""The names for types cover the objects that Keras hands around."""

import keras
import numpy as np
import pytest

from keras_cascade._keras_compat.annotations import Tensor


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros((2, 3)),
        lambda: keras.ops.zeros((2, 3)),
        lambda: keras.Variable(np.zeros((2, 3))),
        lambda: keras.KerasTensor((2, 3)),
    ],
    ids=["array", "backend", "variable", "symbolic"],
)
def test_all_kinds_of_tensors_are_tensors(make):
    assert isinstance(make(), Tensor)
    assert tuple(make().shape) == (2, 3)
    assert not isinstance([1.0, 2.0], Tensor)
