"""The stages of networks, beside what their authors write down."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

# The names of Keras applications in papers on detection and segmentation
# (`P2` to `P5`), or the ends of their blocks as the source names them.
APPLICATIONS = {
    "ResNet50": {
        2: "conv1_relu",
        4: "conv2_block3_out",
        8: "conv3_block4_out",
        16: "conv4_block6_out",
        32: "conv5_block3_out",
    },
    "VGG16": {
        1: "block1_conv2",
        2: "block2_conv2",
        4: "block3_conv3",
        8: "block4_conv3",
        16: "block5_conv3",
        32: "block5_pool",
    },
    "MobileNetV2": {
        2: "block_1_expand_relu",
        4: "block_3_expand_relu",
        8: "block_6_expand_relu",
        16: "block_13_expand_relu",
        32: "out_relu",
    },
    "InceptionV3": {
        2: "activation_2",
        4: "activation_4",
        8: "mixed2",
        16: "mixed7",
        32: "mixed10",
    },
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_stages_are_the_last_maps_of_each_resolution(name):
    size = 299 if name == "InceptionV3" else 224
    network = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    found = kc.stages(network)
    assert {x.reduction: x.path for x in found.rows} == APPLICATIONS[name]
    assert list(found) == [f"stage{i + 1}" for i in range(len(found))]
    for row in found.rows:
        tensor = network.get_layer(row.path).output
        assert (row.shape, row.channels) == (tensor.shape, tensor.shape[-1])


def test_open_sizes_and_squeezed_maps_do_not_matter():
    network = keras.applications.MobileNetV3Small(
        weights=None, include_top=False
    )
    found = kc.stages(network).rows
    assert [x.reduction for x in found] == [2, 4, 8, 16, 32]
    assert [x.channels for x in found] == [16, 72, 96, 288, 576]
    assert found[0].shape == (None, None, None, 16)


def test_the_contracting_path_has_the_stages_of_a_network_with_skips():
    x = inputs = keras.Input((32, 32, 3))
    maps = []
    for depth in range(3):
        x = layers.MaxPooling2D()(x) if depth else x
        x = layers.Conv2D(4 + depth, 3, padding="same", name=f"d{depth}")(x)
        maps.append(x)
    for depth in (1, 0):
        x = layers.Concatenate()([layers.UpSampling2D()(x), maps[depth]])
        x = layers.Conv2D(4, 3, padding="same", name=f"u{depth}")(x)
    found = kc.stages(keras.Model(inputs, x)).rows
    assert [(x.path, x.reduction) for x in found] == [
        ("d0", 1),
        ("d1", 2),
        ("d2", 4),
    ]


@pytest.mark.skipif(
    keras.config.backend() == "tensorflow",
    reason="TensorFlow has no such convolutions on a CPU",
)
def test_channels_may_come_first():
    x = inputs = keras.Input((3, 16, 16))
    for number, width in enumerate((4, 40)):
        x = layers.Conv2D(
            width,
            3,
            strides=2,
            padding="same",
            data_format="channels_first",
            name=f"conv{number}",
        )(x)
    found = kc.stages(keras.Model(inputs, x)).rows
    assert [(x.path, x.channels, x.reduction) for x in found] == [
        ("conv0", 4, 2),
        ("conv1", 40, 4),
    ]


def transformer(blocks):
    x = ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(50, 8)(x)
    for number in range(blocks):
        attended = layers.MultiHeadAttention(2, 4)(x, x)
        x = layers.Add(name=f"attended{number}")([x, attended])
        dense = layers.Dense(8)(layers.Dense(16, activation="relu")(x))
        x = layers.Add(name=f"block{number}")([x, dense])
    pooled = layers.GlobalAveragePooling1D()(x)
    return keras.Model(ids, layers.Dense(3)(pooled))


def test_a_network_of_one_resolution_has_every_nth_block():
    found = kc.stages(transformer(8))
    assert list(found.values()) == ["block1", "block3", "block5", "block7"]
    assert {x.reduction for x in found.rows} == {None}


def test_a_network_of_vectors_has_its_layers():
    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="first"),
            layers.ReLU(),
            layers.Dense(2, name="last"),
        ]
    )
    assert kc.stages(network) == {"stage1": "first", "stage2": "last"}


def two_stages(name="encoder"):
    x = inputs = keras.Input((8, 8, 3), name="image")
    for number in range(2):
        x = layers.Conv2D(4, 3, 2, padding="same", name=f"conv{number}")(x)
    return keras.Model(inputs, x, name=name)


def test_taps_may_be_the_stages(tmp_path):
    network = two_stages()
    cascade = kc.build_cascade(
        network, taps="stages", adapters=None, fusion=None
    )
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    outputs = keras.Model(network.input, network.get_layer("conv0").output)
    found = cascade(x)
    assert list(found) == ["stage1", "stage2"]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found["stage1"]),
        keras.ops.convert_to_numpy(outputs(x)),
        atol=1e-6,
    )
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    assert loaded.taps == cascade.taps


def test_stages_of_several_upstreams_have_their_names():
    cascade = kc.build_cascade(
        {"a": two_stages(), "b": two_stages()}, taps="stages"
    )
    assert cascade.taps["b_stage2"] == "b/conv1"
    assert list(cascade.taps) == [f"{u}_stage{i}" for u in "ab" for i in (1, 2)]


def test_an_operation_of_that_name_is_itself():
    inputs = keras.Input((4,))
    network = keras.Model(inputs, layers.Dense(2, name="stages")(inputs))
    cascade = kc.build_cascade(network, taps="stages")
    assert cascade.taps == {"stages": "stages"}


def test_stages_are_shown_as_a_table():
    text = str(kc.stages(two_stages()))
    assert "reduction" in text and "conv1" in text and "4 × 4 × 4" in text
