"""Networks whose class alone can make their layers."""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.graph.block import Block
from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.reconstruction import reconstruct

layers = keras.layers


@keras.saving.register_keras_serializable(package="tests_rebuilt")
class Scaled(layers.Layer):
    """A Dense layer whose config has an argument that it does not take."""

    def __init__(self, units, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.scale = units, scale
        self.inner = layers.Dense(units)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units, "width": 3}


@keras.saving.register_keras_serializable(package="tests_rebuilt")
class Holder(layers.Layer):
    """A layer that calls another one, which is in the graph as well."""

    def __init__(self, held, **kwargs):
        super().__init__(**kwargs)
        self.held = held

    def build(self, shape):
        self.held.build(shape)

    def call(self, x):
        return self.held(x) + 1.0


@keras.saving.register_keras_serializable(package="tests_rebuilt")
class Backbone(keras.Model):
    """Makes its layers from a few numbers, as KerasHub's backbones do."""

    def __init__(self, units=4, scale=2.0, name="backbone", trainable=True):
        x = keras.Input((4,), name="x")
        held = Scaled(units, scale, name="held")
        y = Scaled(units, scale)(x)
        y = Holder(held, name="holder")(y)
        inner_x = keras.Input((units,), name="inner_x")
        inner = keras.Model(inner_x, Scaled(units, name="deep")(inner_x))
        y = inner(held(y) * 0.5)
        outputs = {"low": y, "high": layers.Dense(2, name="out")(y)}
        super().__init__(x, outputs, name=name, trainable=trainable)
        self.arguments = {"units": units, "scale": scale}

    def get_config(self):
        return {
            **self.arguments,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


@pytest.fixture
def backbone():
    return Backbone()


def _values(outputs):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def test_a_layer_without_a_full_config_cannot_be_copied_alone():
    x = keras.Input((4,), name="x")
    network = keras.Model(x, Scaled(2, name="scaled")(x))
    with pytest.raises(ValueError, match=r"'scaled' .* cannot be copied"):
        copy_network(network, "copy")


def test_the_copy_computes_the_same(backbone, rows, same):
    same(copy_network(backbone, "copy")(rows), backbone(rows))


def test_the_backbone_stays_as_it_is(backbone, rows, state, same):
    before, config = state(backbone), backbone.get_config()
    copy_network(backbone, "copy")
    same(state(backbone), before)
    assert backbone.get_config() == config


def test_names_in_the_copy_do_not_depend_on_the_process(backbone):
    paths = [v.path for v in copy_network(backbone, "copy").variables]
    for _ in range(3):
        Scaled(2)
    again = copy_network(Backbone(), "copy")
    assert [v.path for v in again.variables] == paths
    assert "copy/scaled/dense/kernel" in paths
    assert "copy/functional/deep/dense/kernel" in paths


def test_the_copy_has_only_the_layers_that_a_tap_needs(backbone, part):
    block = part(backbone, {"tap": "holder"})
    assert [layer.name for layer in block.layers] == ["x", "scaled", "holder"]
    assert block.count_params() == 2 * 20


def test_a_layer_that_another_layer_refers_to_stays_one_layer(backbone):
    copy = copy_network(backbone, "copy")
    assert copy.get_layer("holder").held is copy.get_layer("held")


def test_a_copy_is_saved_and_loaded(backbone, rows, same, tmp_path):
    copy = copy_network(backbone, "copy")
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    same(loaded(rows), backbone(rows))
    assert [v.path for v in loaded.variables] == [
        v.path for v in copy.variables
    ]
    assert loaded.get_layer("holder").held is loaded.get_layer("held")


def test_a_part_of_it_is_saved_loaded_and_saved_again(
    backbone, rows, same, part, tmp_path
):
    block = part(backbone, {"tap": "functional/deep"})
    for name in ("first", "second"):
        block.save(tmp_path / f"{name}.keras")
        block = keras.saving.load_model(tmp_path / f"{name}.keras")
    same(block(rows)["tap"], backbone(rows)["low"])


def test_a_nested_network_of_it_is_saved_by_itself(backbone, same, tmp_path):
    inner = copy_network(backbone, "copy").get_layer("functional")
    assert isinstance(inner, Block)
    inner.save(tmp_path / "inner.keras")
    x = np.ones((2, 4), "float32")
    same(keras.saving.load_model(tmp_path / "inner.keras")(x), inner(x))


def test_a_copy_is_copied_again(backbone, rows, same):
    copy = copy_network(copy_network(backbone, "first"), "second")
    same(copy(rows), backbone(rows))


def test_a_backbone_inside_another_network_is_reconstructed(
    backbone, rows, same, tmp_path
):
    x = keras.Input((4,), name="outer_x")
    y = layers.Dense(4, name="before")(x)
    network = keras.Model(x, backbone(y)["high"], name="outer")
    copy = copy_network(network, "copy")
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    same(copy(rows), network(rows))
    same(loaded(rows), network(rows))


def test_two_of_one_config_are_two(rows, same, tmp_path):
    one, other = Backbone(), Backbone()
    cascade = kc.build_cascade(
        {"one": one, "other": other},
        taps={"a": "one/out", "b": "other/out"},
        adapters=None,
        fusion=None,
    )
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    expected = {"a": one(rows)["high"], "b": other(rows)["high"]}
    same(cascade(rows), expected)
    same(loaded(rows), expected)
    assert not np.array_equal(*_values(expected).values())


def test_flags_are_saved(backbone, tmp_path):
    backbone.get_layer("holder").trainable = False
    copy = copy_network(backbone, "copy")
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    trains = [v.path for v in copy.trainable_variables]
    assert trains == [v.path for v in loaded.trainable_variables]
    assert 0 < len(trains) < len(copy.variables)


def test_shared_layers_are_saved_too(backbone, rows, same, tmp_path):
    block = copy_network(backbone, "block", share=True)
    assert block.get_layer("held") is backbone.get_layer("held")
    block.save(tmp_path / "block.keras")
    loaded = keras.saving.load_model(tmp_path / "block.keras")
    same(loaded(rows), backbone(rows))


def test_merging_layers_are_saved_beside_its_parts(backbone, rows, tmp_path):
    x = keras.Input((4,), name="x")
    upstream = keras.Model(x, layers.Dense(3, name="found")(x), name="up")
    cascade = kc.build_cascade(
        upstream, backbone, taps={"found": "found"}, inject={"found": "holder"}
    )
    expected = _values(backbone(rows))
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    for model in (cascade, loaded):
        given = _values(model(rows))
        np.testing.assert_array_equal(given["high"], expected["high"])


def test_a_network_that_was_changed_since_is_copied_by_its_layers(rows, same):
    x = keras.Input((4,), name="x")
    changed = Outdated(x, layers.Dense(2, name="own")(x))
    assert reconstruct(read_graph(changed)) is None
    same(copy_network(changed, "copy")(rows), changed(rows))


@keras.saving.register_keras_serializable(package="tests_rebuilt")
class Outdated(keras.Model):
    """A network whose config gives another one."""

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        x = keras.Input((4,), name="x")
        return cls(x, layers.Dense(3, name="own")(x), **config)


def test_a_class_that_keras_cannot_find_is_copied_by_its_layers(rows, same):
    class Unregistered(Outdated):
        pass

    x = keras.Input((4,), name="x")
    network = Unregistered(x, layers.Dense(3, name="own")(x))
    assert reconstruct(read_graph(network)) is None
    same(copy_network(network, "copy")(rows), network(rows))


def test_a_part_without_its_network_is_an_error(backbone):
    config = copy_network(backbone, "copy").get_config()
    del config["origin"]
    with pytest.raises(ValueError, match="'scaled' is part of a network"):
        Block.from_config(config)


def test_layers_that_were_cut_off_are_not_kept_in_memory(backbone, part):
    block = part(backbone, {"tap": "scaled"})
    layer = block.get_layer("scaled")
    assert len(layer._outbound_nodes) == 0
    assert len(layer._inbound_nodes) == 1
