import keras
import numpy as np
import pytest

from keras_cascade.graph.names import (
    is_numbered_by_keras,
    name_variables,
    rename,
    stable_names,
)

layers = keras.layers


def _network(first=None):
    x = keras.Input((4,))
    y = layers.Dense(4, name=first)(x)
    y = layers.Dense(4)(y)
    return keras.Model(x, (y * 2.0) * 3.0)


def _names(network):
    return list(stable_names(network.operations).values())


def test_names_do_not_depend_on_what_was_built_before():
    before = _names(_network())
    _network()
    layers.Dense(3)
    assert _names(_network()) == before
    assert before[:3] == ["input_layer", "dense", "dense_1"]
    assert before[3:] == ["multiply", "multiply_1"]


def test_names_that_a_user_chose_stay():
    assert _names(_network("mine"))[1:3] == ["mine", "dense"]


def test_a_number_that_a_user_took_is_skipped():
    # Named like another class's automatic name: the user's, so it stays.
    layers.Dense(2), layers.Dense(2)
    x = keras.Input((4,))
    y = layers.Activation("relu", name="dense")(x)
    y = layers.Dense(4)(y)
    y = layers.Dense(4)(y)
    assert _names(keras.Model(x, y))[1:] == ["dense", "dense_1", "dense_2"]


def test_layers_are_numbered_in_the_order_in_which_they_were_made():
    one, two = layers.Dense(4), layers.Dense(4)
    x = keras.Input((4,))
    network = keras.Model(x, one(two(x)))
    names = stable_names(network.operations)
    assert (names[id(one)], names[id(two)]) == ("dense", "dense_1")


@pytest.mark.parametrize(
    ("layer", "automatic"),
    [
        (lambda: layers.Dense(2), True),
        (lambda: layers.Dense(2, name="dense_7"), True),
        (lambda: layers.Dense(2, name="dense_a"), False),
        (lambda: layers.Conv2D(2, 3, name="dense"), False),
        (lambda: layers.BatchNormalization(), True),
        (lambda: layers.GlobalAveragePooling2D(), True),
        (lambda: layers.LSTM(2), True),
        (lambda: layers.Conv2DTranspose(2, 3), True),
    ],
)
def test_names_that_keras_numbered_differ_from_those_of_users(layer, automatic):
    assert is_numbered_by_keras(layer()) is automatic


class Scale(layers.Layer):
    """Leaves its weights unnamed, as ConvNeXt's LayerScale does."""

    def build(self, shape):
        self.first = self.add_weight(shape=shape[-1:], initializer="ones")
        self.second = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.first + self.second


def _with_unnamed_weights():
    x = keras.Input((4,))
    inner_x = keras.Input((4,))
    inner = keras.Model(
        inner_x, layers.Dropout(0.5, name="drop")(Scale(name="scale")(inner_x))
    )
    inner.name = "inner"
    y = layers.Dense(4, name="h")(inner(x))
    return keras.Model(x, Scale(name="scale")(y), name="outer")


def test_every_variable_gets_a_path_that_begins_with_its_block():
    network = _with_unnamed_weights()
    name_variables(network, "upstream")
    assert [variable.path for variable in network.variables] == [
        "upstream/inner/scale/variable",
        "upstream/inner/scale/variable_1",
        "upstream/inner/drop/seed_generator/seed_generator_state",
        "upstream/h/kernel",
        "upstream/h/bias",
        "upstream/scale/variable",
        "upstream/scale/variable_1",
    ]


def test_paths_of_variables_do_not_depend_on_what_was_built_before():
    paths = []
    for _ in range(2):
        network = _with_unnamed_weights()
        name_variables(network, "upstream")
        paths.append([variable.path for variable in network.variables])
    assert paths[0] == paths[1]


def test_variables_of_a_composite_layer_have_unique_paths():
    x = keras.Input((5, 4))
    layer = layers.Bidirectional(layers.LSTM(2), name="both")
    network = keras.Model(x, layer(x))
    name_variables(network, "upstream")
    paths = [variable.path for variable in network.variables]
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("upstream/both/") for path in paths)
    assert any("forward" in path for path in paths)
    assert any("backward" in path for path in paths)


def test_naming_again_changes_nothing():
    network = _with_unnamed_weights()
    name_variables(network, "upstream")
    before = [variable.path for variable in network.variables]
    name_variables(network, "upstream")
    assert [variable.path for variable in network.variables] == before


def test_naming_leaves_the_values_alone():
    network = _with_unnamed_weights()
    before = [value.copy() for value in network.get_weights()]
    name_variables(network, "upstream")
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_renamed_layers_variables_are_named_after_it():
    outer = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, name="old")], name="outer"
    )
    layer = outer.get_layer("old")
    for variable in layer.variables:
        variable._path = f"outer/old/{variable.name}"
    rename(layer, "new")
    assert layer.name == "new"
    assert [v.path for v in layer.variables] == ["new/kernel", "new/bias"]
