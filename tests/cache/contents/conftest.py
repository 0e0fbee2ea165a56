"""Fixtures for tests of code: modules that are written and edited."""

import sys
import types

import keras
import pytest

from keras_cascade.cache.fingerprint import tensor_key
from keras_cascade.graph.flattening import as_program


def key_of(layer, shape=(4, 3), key=None):
    inputs = keras.Input(shape)
    program = as_program(keras.Model(inputs, layer(inputs)))
    return tensor_key(program, next(iter(program.outputs)), key)


@pytest.fixture
def module(tmp_path):
    """Function: runs text as a module, as a new process would import it."""
    made = []

    def module(text, name="own_code"):
        found = types.ModuleType(name)
        found.__dict__["keras"] = keras
        # Keras reads the source of a lambda that it writes into a config.
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        found.__file__ = str(file)
        sys.modules[name] = found
        made.append(name)
        exec(compile(text, found.__file__, "exec"), found.__dict__)
        return found

    yield module
    for name in set(made):
        sys.modules.pop(name, None)
