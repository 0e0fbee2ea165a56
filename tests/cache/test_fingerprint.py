"""Equal content has equal keys, and anything that may differ has others."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_cascade.cache.fingerprint import joint_ids, row_ids, tensor_key
from keras_cascade.graph.flattening import as_program


def key_of(layer, shape=(4,), dtype=None, name="model"):
    inputs = keras.Input(shape, dtype=dtype, name="input")
    model = keras.Model(inputs, layer(inputs), name=name)
    program = as_program(model)
    return tensor_key(program, next(iter(program.outputs)))


def dense(**arguments):
    return layers.Dense(3, kernel_initializer="ones", **arguments)


def test_equal_layers_have_equal_keys():
    assert key_of(dense()) == key_of(dense(name="other"), name="another")
    assert key_of(dense(trainable=False)) == key_of(dense())


@pytest.mark.parametrize(
    "other",
    [
        dense(activation="relu"),
        dense(use_bias=False),
        dense(dtype="mixed_float16"),
        layers.Dense(3, kernel_initializer="zeros"),
        layers.Dense(4, kernel_initializer="ones"),
        layers.Dropout(0.5),
    ],
)
def test_another_layer_has_another_key(other):
    assert key_of(other) != key_of(dense())


def test_arguments_of_operations_count():
    class Power(layers.Layer):
        def call(self, x):
            return x**2

    ops = keras.ops
    keys = {
        key_of(call)
        for call in (
            lambda x: ops.mean(x, axis=1, keepdims=True),
            lambda x: ops.mean(x, axis=0, keepdims=True),
            lambda x: x * 2,
            lambda x: x * 3,
            lambda x: ops.clip(x, 0, 1),
            lambda x: ops.clip(x, 0, 2),
            Power(),
        )
    }
    assert len(keys) == 7


def test_code_of_ones_own_layers_counts():
    def of(code):
        space = {"keras": keras}
        exec(code, space)
        return space["Own"]

    code = "class Own(keras.layers.Layer):\n def call(self, x): return x + {}\n"
    # Without a file there is no source: good for this object alone.
    one, other = of(code.format(1)), of(code.format(2))
    assert key_of(one()) == key_of(one())
    assert key_of(one()) != key_of(other())


def test_functions_count_by_what_they_do():
    def scaled(by):
        return layers.Lambda(lambda x: x * by, output_shape=(4,))

    assert key_of(scaled(2.0)) != key_of(scaled(3.0))


def test_layers_without_a_config_have_a_key_of_their_own():
    class Untold(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    one = Untold(keras.ops.relu)
    assert key_of(one) == key_of(one)
    assert key_of(one) != key_of(Untold(keras.ops.relu))


def test_constant_tensors_count_by_their_values():
    def added(values):
        constant = keras.ops.convert_to_tensor(values)
        return lambda x: keras.ops.add(x, constant)

    one, other = np.arange(4.0), np.ones(4)
    assert key_of(added(one)) == key_of(added(one))
    assert key_of(added(one)) != key_of(added(other))


def test_layers_whose_configs_fail_have_a_key_of_their_own():
    class Broken(layers.Layer):
        def call(self, x):
            return x

        def get_config(self):
            return {"width": self.width}

    class Empty(Broken):
        def get_config(self):
            return None

    for kind in (Broken, Empty):
        one = kind()
        assert key_of(one) == key_of(one)
        assert key_of(one) != key_of(kind())


def test_inputs_count_by_shape_and_dtype():
    assert key_of(layers.Rescaling(2), (4,)) != key_of(
        layers.Rescaling(2), (5,)
    )
    assert key_of(layers.Rescaling(2), dtype="uint8") != key_of(
        layers.Rescaling(2), dtype="float32"
    )


def test_rows_count_by_values_dtype_and_shape():
    rows = np.arange(6.0).reshape(3, 2)
    ids = row_ids(rows)
    assert len(set(ids.tolist())) == 3
    np.testing.assert_array_equal(row_ids(rows[::-1]), ids[::-1])
    for other in (rows.astype("float32"), rows[:, None], rows + 1e-9):
        assert not set(row_ids(other).tolist()) & set(ids.tolist())


def test_large_rows_have_the_ids_that_they_have_alone():
    rows = np.random.default_rng(0).normal(size=(37, 8, 700))
    alone = [row_ids(row[None])[0] for row in rows]
    assert row_ids(rows).tolist() == [x.tolist() for x in alone]
    assert len(row_ids(rows[:0])) == 0


def test_ids_of_several_inputs_depend_on_their_order():
    one, other = row_ids(np.arange(3)), row_ids(np.arange(3) + 10)
    assert joint_ids([one]) is one
    assert (joint_ids([one, other]) != joint_ids([other, one])).all()


# The names of the package's own operations that are part of keys. Where one
# moves, keys must have its earlier name, or features are computed again.
OPERATIONS = [
    "keras_cascade.adapters.dense.DenseAdapter",
    "keras_cascade.adapters.label_map.LabelMapAdapter",
    "keras_cascade.adapters.logits.LogitsAdapter",
    "keras_cascade.adapters.pca.PCAAdapter",
    "keras_cascade.adapters.size_matching.MatchSize",
    "keras_cascade.adapters.spatial.SpatialAdapter",
    "keras_cascade.adapters.stitch.StitchAdapter",
    "keras_cascade.adapters.tokens.TokenAdapter",
    "keras_cascade.graph.as_input.AsInput",
    "keras_cascade.injection.gate.Gate",
]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_have_the_names_that_stored_features_have(name):
    module, _, kind = name.rpartition(".")
    operation = getattr(importlib.import_module(module), kind)
    assert f"{operation.__module__}.{operation.__qualname__}" == name
