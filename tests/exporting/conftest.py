"""Fixtures that the tests of exports share."""

import numpy as np
import pytest

from keras_cascade.exporting import job
from keras_cascade.exporting.folding.rules import fold
from keras_cascade.graph.flattening import as_program


@pytest.fixture(autouse=True)
def convert_here(request, monkeypatch):
    """Runs converters in the process of the tests, whose start takes seconds.

    Those marked `apart` or `large` have them in a process of their own, as
    users do.
    """
    marks = {mark.name for mark in request.node.iter_markers()}
    if not marks & {"apart", "large", "interop"}:
        monkeypatch.setattr(job, "CONVERTED", ())


@pytest.fixture
def settle():
    """Function: gives every weight of a model a value that is not special."""

    def settle(model, seed=0):
        random = np.random.default_rng(seed)
        for variable in model.variables:
            if variable.dtype != "float32":
                continue
            values = random.normal(size=variable.shape)
            if "variance" in variable.path:
                values = 0.5 + np.abs(values)
            variable.assign(values.astype("float32"))
        return model

    return settle


@pytest.fixture
def folded(settle, answers):
    """Function: folds a model of one input, and asserts that it answers alike.

    Returns the rules that were applied, and the operations that are left.
    """

    def folded(model, means=None, run=True, bound=1e-5, rounding=0.0):
        settle(model)
        before = as_program(model)
        after = fold(before, means or {})
        if run:
            shape = [size or 5 for size in model.inputs[0].shape[1:]]
            draw = np.random.default_rng(1)
            x = draw.normal(size=(6, *shape)).astype("float32")
            own, found = answers(before, x), answers(after.program, x)
            for name, values in own.items():
                far = np.abs(values - found[name]).max()
                least = rounding * np.abs(values).max()
                assert far <= bound * values.std(axis=0).mean() + least, name
        kinds = [type(x.operation).__name__ for x in after.program.steps]
        return after.counts, kinds

    return folded
