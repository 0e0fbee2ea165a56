import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.graph.block import (
    Block,
    apply_flags,
    leaf_layers,
    read_flags,
)
from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.inference_inside import AUGMENTATIONS

layers = keras.layers


def _numpy(x):
    return keras.ops.convert_to_numpy(x)


def _chain(*made, shape=(4,)):
    """The layers one after the other, as a block."""
    x = keras.Input(shape, name="x")
    y = x
    for layer in made:
        y = layer(y)
    return copy_network(keras.Model(x, y, name="chain"), "chain")


def _with_normalisation(prefix):
    return [
        layers.Dense(4, name=f"{prefix}_dense"),
        layers.BatchNormalization(name=f"{prefix}_norm"),
        # Seeded: torch draws from its global generator else.
        layers.Dropout(0.5, seed=1, name=f"{prefix}_drop"),
    ]


def _reload(block, tmp_path):
    block.save(tmp_path / "block.keras")
    return keras.saving.load_model(tmp_path / "block.keras")


# --- Frozen means frozen -----------------------------------------------------


def test_a_frozen_batch_normalisation_does_not_move(rows, same):
    block = _chain(*_with_normalisation("a"))
    block.get_layer("a_norm").trainable = False
    before = block.get_layer("a_norm").get_weights()
    block(rows, training=True)
    same(before, block.get_layer("a_norm").get_weights())
    block.get_layer("a_norm").trainable = True
    block(rows, training=True)
    assert np.any(before[2] != block.get_layer("a_norm").get_weights()[2])


def test_dropout_is_off_in_a_frozen_layer(rows, same):
    block = _chain(layers.Dropout(0.5, name="drop"))
    assert np.any(_numpy(block(rows, training=True)) == 0)
    block.get_layer("drop").trainable = False
    same(rows, block(rows, training=True))


def test_stochastic_depth_is_off_in_a_frozen_layer(rows, same):
    depth = layers.Dropout(0.9, noise_shape=(None, 1), name="depth")
    block = _chain(depth)
    block.get_layer("depth").trainable = False
    same(rows, block(rows, training=True))
    block.get_layer("depth").trainable = True
    dropped = np.all(_numpy(block(rows, training=True)) == 0, axis=-1)
    assert dropped.any()  # whole rows


def test_a_network_may_be_frozen_in_part(rows, same):
    block = _chain(*_with_normalisation("a"), *_with_normalisation("b"))
    frozen = [layer for layer in block.layers if layer.name[0] == "a"]
    for layer in frozen:
        layer.trainable = False
    before = [layer.get_weights() for layer in frozen]
    moving = block.get_layer("b_norm").get_weights()[2]
    cut = keras.Model(block.input, block.get_layer("a_drop").output)
    expected = cut(rows, training=False)
    seen = []
    hook = block.get_layer("b_dense").call

    def call(inputs, *args, **kwargs):
        seen.append(_numpy(inputs))
        return hook(inputs, *args, **kwargs)

    block.get_layer("b_dense").call = call
    outputs = _numpy(block(rows, training=True))
    same(before, [layer.get_weights() for layer in frozen])
    same(_numpy(expected), seen[0])
    assert np.any(moving != block.get_layer("b_norm").get_weights()[2])
    assert np.any(outputs == 0)


def _nested_block():
    inner = _chain(*_with_normalisation("i"))
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="before")(x)
    y = keras.models.clone_model(keras.Sequential([x, layers.ReLU()]))(y)
    y = inner(y)
    return copy_network(
        keras.Model(x, layers.Dropout(0.5, seed=2, name="after")(y)), "outer"
    )


def test_frozen_layers_inside_a_nested_network_stay(rows, same):
    block = _nested_block()
    inner = block.get_layer("chain")
    inner.get_layer("i_norm").trainable = False
    inner.get_layer("i_drop").trainable = False
    block.get_layer("after").trainable = False
    before = inner.get_layer("i_norm").get_weights()
    expected = block(rows, training=False)
    same(_numpy(expected), _numpy(block(rows, training=True)))
    same(before, inner.get_layer("i_norm").get_weights())


def test_unfrozen_layers_inside_a_nested_network_train(rows):
    block = _nested_block()
    inner = block.get_layer("chain")
    block.get_layer("before").trainable = False
    before = inner.get_layer("i_norm").get_weights()
    assert np.any(_numpy(block(rows, training=True)) == 0)
    assert np.any(before[2] != inner.get_layer("i_norm").get_weights()[2])


def test_an_upstream_is_bit_identical_after_fit(rows, same):
    x = keras.Input((4,), name="x")
    y = x
    for layer in (*_with_normalisation("a"), *_with_normalisation("b")):
        y = layer(y)
    cascade = kc.build_cascade(
        keras.Model(x, y),
        head=layers.Dense(1),
        trainable={"upstream/b_*": True},
        loss="mse",
    )
    upstream = cascade.blocks["upstream"]
    before = {
        name: upstream.get_layer(name).get_weights()
        for name in ("a_dense", "a_norm")
    }
    moving = upstream.get_layer("b_norm").get_weights()[2]
    cascade.fit(rows, np.ones((8, 1), "float32"), epochs=2, verbose=0)
    for name, weights in before.items():
        same(weights, upstream.get_layer(name).get_weights())
    assert np.any(moving != upstream.get_layer("b_norm").get_weights()[2])


def test_augmentation_stays_active_in_a_frozen_part():
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, 3))
    images = images.astype("float32")
    block = _chain(
        layers.RandomFlip(seed=1, name="flip"),
        layers.RandomTranslation(0.5, 0.5, seed=2, name="shift"),
        shape=(8, 8, 3),
    )
    for layer in block.layers:
        layer.trainable = False
    still = _numpy(block(images, training=False))
    np.testing.assert_array_equal(still, images)
    assert np.any(_numpy(block(images, training=True)) != images)


def test_all_of_keras_augmentation_is_known():
    names = {layer.__name__ for layer in AUGMENTATIONS}
    assert {
        "RandomFlip",
        "RandomCrop",
        "MixUp",
        "CutMix",
        "AugMix",
        "RandAugment",
    } <= names
    assert "Dropout" not in names


def test_without_training_a_block_runs_in_inference_mode():
    # In stock Keras the layers after a preprocessing layer would train.
    images = np.ones((4, 8, 8, 3), "float32")
    block = _chain(layers.Resizing(4, 4), layers.Dropout(0.5), shape=(8, 8, 3))
    np.testing.assert_array_equal(_numpy(block(images)), images[:, :4, :4])


# --- Flags, seeds and files --------------------------------------------------


def test_flags_survive_saving(tmp_path):
    block = _nested_block()
    inner = block.get_layer("chain")
    inner.get_layer("i_dense").trainable = False
    block.get_layer("after").trainable = False
    loaded = _reload(block, tmp_path)
    assert [layer.trainable for _, layer in leaf_layers(loaded)] == [
        layer.trainable for _, layer in leaf_layers(block)
    ]
    assert not all(layer.trainable for _, layer in leaf_layers(loaded))


def test_a_wholly_frozen_block_loads_frozen(tmp_path):
    block = _nested_block()
    block.trainable = False
    loaded = _reload(block, tmp_path)
    assert not loaded.trainable_weights
    assert not any(layer.trainable for _, layer in leaf_layers(loaded))


@keras.saving.register_keras_serializable(package="tests")
class Composite(layers.Layer):
    """Two layers, whose flags are in no config."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one = layers.Dense(4, name="one")
        self.two = layers.Dense(4, name="two")

    def build(self, shape):
        self.one.build(shape)
        self.two.build(shape)

    def call(self, inputs):
        return self.two(self.one(inputs))


@pytest.mark.parametrize("saved", [False, True], ids=["copied", "loaded"])
def test_flags_inside_a_composite_layer_survive(saved, tmp_path):
    block = _chain(Composite(name="c"))
    block.get_layer("c").one.trainable = False
    again = _reload(block, tmp_path) if saved else copy_network(block, "chain")
    layer = again.get_layer("c")
    assert (layer.one.trainable, layer.two.trainable) == (False, True)
    assert [v.path for v in again.trainable_variables] == [
        "chain/c/two/kernel",
        "chain/c/two/bias",
    ]


def test_a_wholly_frozen_composite_layer_loads_frozen(tmp_path):
    x = keras.Input((4, 6), name="x")
    heads = keras.layers.MultiHeadAttention(2, 3, name="heads")
    block = Block(x, heads(x, x), name="block")
    heads.trainable = False
    loaded = _reload(block, tmp_path)
    assert read_flags(loaded.get_layer("heads")) == read_flags(heads)
    assert loaded.trainable_variables == []


def test_flags_inside_a_bidirectional_survive(tmp_path):
    block = _chain(
        layers.Bidirectional(layers.LSTM(2), name="both"), shape=(5, 4)
    )
    block.get_layer("both").backward_layer.trainable = False
    layer = _reload(block, tmp_path).get_layer("both")
    assert layer.forward_layer.trainable
    assert not layer.backward_layer.trainable


def test_random_layers_continue_from_the_saved_state(rows, same, tmp_path):
    block = _chain(layers.Dropout(0.5, seed=4), layers.GaussianNoise(0.1))
    block(rows, training=True)
    loaded = _reload(block, tmp_path)
    for _ in range(2):
        same(block(rows, training=True), loaded(rows, training=True))


def test_seeds_inside_nested_networks_are_saved_too(rows, same, tmp_path):
    block = _nested_block()
    block(rows, training=True)
    loaded = _reload(block, tmp_path)
    same(block(rows, training=True), loaded(rows, training=True))


def test_a_block_loads_alone_with_its_paths_and_outputs(rows, same, tmp_path):
    cascade = kc.build_cascade(
        _nested_block(), taps=["before", "chain/i_norm"], head=2
    )
    block = cascade.blocks["upstream"]
    loaded = _reload(block, tmp_path)
    assert type(loaded) is Block
    same([v.path for v in block.variables], [v.path for v in loaded.variables])
    same(block(rows), loaded(rows))


def test_a_block_can_be_used_as_a_network(rows, same):
    first = kc.build_cascade(
        _nested_block(), taps=["before", "chain/i_norm"], head=2
    )
    block = first.blocks["upstream"]
    second = kc.build_cascade(
        block, taps=["before", "chain/i_dense"], adapters=None, fusion=None
    )
    same(block(rows)["before"], second(rows)["before"])
    assert all(v.path.startswith("upstream/") for v in second.variables)
    assert set(second(rows)) == {"before", "i_dense"}


def test_a_block_gives_its_outputs_in_another_cascade(rows, same):
    first = kc.build_cascade(_nested_block(), taps=["before", "after"], head=2)
    block = first.blocks["upstream"]
    second = kc.build_cascade(block, adapters=None, fusion=None)
    same(block(rows), second(rows))


def test_leaf_layers_come_with_their_paths():
    paths = ["/".join(path) for path, _ in leaf_layers(_nested_block())]
    assert "chain/i_norm" in paths
    assert "chain" not in paths


def test_flags_are_set_parents_first():
    layer = Composite()
    layer.build((None, 4))
    assert read_flags(layer) == [True, True, True]
    apply_flags(layer, [False, True, False])
    assert read_flags(layer) == [False, True, False]
