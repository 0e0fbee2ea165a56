"""Arithmetic between floats and integers, in ONNX files."""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.exporting.runtimes import run

RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(3, 4)).astype("float32"),
    "count": RNG.integers(1, 9, size=(3, 4)).astype("int32"),
}
# Each is a function of arrays as well.
RESULTS = {
    "doubled": lambda x, count: x * 2,
    "from_one": lambda x, count: 1 - x,
    "by_two": lambda x, count: x / 2,
    "more": lambda x, count: x + count,
    "less": lambda x, count: x - count,
    "times": lambda x, count: x * count,
    "share": lambda x, count: x / count,
    "halves": lambda x, count: count * 0.5,
    "whole": lambda x, count: count * 2 - count,
}


@pytest.mark.skipif(
    keras.config.backend() == "jax",
    reason="jax2onnx adds floats to integers, which no runtime does",
)
def test_numbers_of_two_kinds_are_calculated_with(tmp_path):
    inputs = {
        name: keras.Input(values.shape[1:], dtype=values.dtype.name, name=name)
        for name, values in DATA.items()
    }
    outputs = {name: f(**inputs) for name, f in RESULTS.items()}
    path = tmp_path / "file.onnx"
    report = kc.export(keras.Model(inputs, outputs), path, verbose=False)
    assert report.backend == keras.config.backend()
    found = run(path, DATA)
    for name, f in RESULTS.items():
        expected = f(**{key: x.astype("float64") for key, x in DATA.items()})
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
