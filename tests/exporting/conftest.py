"""What the tests of the exporting package share."""

import keras
import numpy as np
import pytest


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
def answers():
    """Function: what a program gives for arrays, as arrays."""

    def answers(program, *arrays):
        found = program(*map(keras.ops.convert_to_tensor, arrays))
        return {k: keras.ops.convert_to_numpy(x) for k, x in found.items()}

    return answers


@pytest.fixture
def own_answers():
    """Function: what a model gives for its inputs, flat, as arrays."""

    def own_answers(model, inputs):
        given = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
        found = keras.tree.flatten(model(given, training=False))
        return [keras.ops.convert_to_numpy(x) for x in found]

    return own_answers
