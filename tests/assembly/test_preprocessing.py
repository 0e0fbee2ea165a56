"""Shared images are resized and preprocessed for each network."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.testing import check_cascade

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 12, 12, 3)).astype("float32")


def reader(size, name, dtype=None):
    """A network that returns its image, and the output of a layer."""
    inputs = keras.Input((*size, 3), name="pixels", dtype=dtype)
    x = layers.Identity(name="seen")(inputs)
    x = layers.Conv2D(2, 3, name="conv")(x)
    return keras.Model(inputs, x, name=name)


def call(model, x):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x))


def shared(*networks, **arguments):
    names = [chr(ord("a") + i) for i in range(len(networks))]
    return kc.build_cascade(
        dict(zip(names, networks, strict=True)),
        taps={name: f"{name}/seen" for name in names},
        adapters=None,
        fusion=None,
        inputs=dict.fromkeys(names, "image"),
        **arguments,
    )


def resized(images, size):
    return ops.convert_to_numpy(ops.image.resize(images, size, antialias=True))


def test_a_shared_image_is_resized_for_each_network():
    cascade = shared(reader((12, 12), "large"), reader((8, 6), "small"))
    result = call(cascade, IMAGES)
    np.testing.assert_array_equal(result["a"], IMAGES)
    np.testing.assert_allclose(
        result["b"], resized(IMAGES, (8, 6)), rtol=1e-5, atol=1e-3
    )
    assert [x.name for x in cascade.inputs] == ["image"]


def test_each_network_computes_what_it_computes_on_its_own_size():
    small = reader((8, 6), "small")
    cascade = kc.build_cascade(
        {"a": reader((12, 12), "large"), "b": small},
        taps={"a": "a/conv", "b": "b/conv"},
        adapters=None,
        fusion=None,
        inputs={"a": "image", "b": "image"},
    )
    np.testing.assert_allclose(
        call(cascade, IMAGES)["b"],
        call(small, resized(IMAGES, (8, 6))),
        rtol=1e-4,
        atol=1e-3,
    )


def test_networks_of_one_size_see_the_image_itself():
    cascade = shared(reader((12, 12), "one"), reader((12, 12), "other"))
    assert "preprocessing" not in cascade.blocks
    for value in call(cascade, IMAGES).values():
        np.testing.assert_array_equal(value, IMAGES)


def test_an_open_size_takes_the_image_as_it_is():
    cascade = shared(reader((12, 12), "fixed"), reader((None, None), "open"))
    for value in call(cascade, IMAGES).values():
        np.testing.assert_array_equal(value, IMAGES)


def test_channels_first_images_are_resized_along_their_own_axes():
    def first(size, name):
        x = inputs = keras.Input((3, *size), name="pixels")
        x = layers.Identity(name="seen")(x)
        x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
        return keras.Model(inputs, [x, inputs], name=name)

    cascade = shared(first((12, 12), "large"), first((6, 8), "small"))
    result = call(cascade, np.moveaxis(IMAGES, -1, 1))
    np.testing.assert_allclose(
        np.moveaxis(result["b"], 1, -1),
        resized(IMAGES, (6, 8)),
        rtol=1e-5,
        atol=1e-3,
    )


def test_each_network_has_preprocessing_of_its_own():
    cascade = shared(
        reader((12, 12), "one"),
        reader((12, 12), "other"),
        preprocess={
            "a": "mobilenet_v2",
            "b": layers.Rescaling(1 / 255, name="scaled"),
        },
    )
    result = call(cascade, IMAGES)
    expected = keras.applications.mobilenet_v2.preprocess_input(IMAGES.copy())
    np.testing.assert_allclose(result["a"], expected, atol=1e-5)
    np.testing.assert_allclose(result["b"], IMAGES / 255, atol=1e-6)


def test_an_image_is_resized_before_its_preprocessing():
    cascade = shared(
        reader((12, 12), "one"),
        reader((6, 6), "other"),
        preprocess={"b": "vgg16"},
    )
    expected = keras.applications.vgg16.preprocess_input(
        resized(IMAGES, (6, 6)).copy()
    )
    np.testing.assert_allclose(
        call(cascade, IMAGES)["b"], expected, rtol=1e-4, atol=1e-3
    )


def test_a_downstream_that_sees_the_inputs_has_preprocessing_too():
    downstream = reader((6, 6), "expert")
    cascade = kc.build_cascade(
        reader((12, 12), "encoder"),
        downstream,
        taps={"texture": "conv"},
        inject={"texture": "conv"},
        inputs={"upstream": "image", "downstream": "image"},
        preprocess={"downstream": layers.Rescaling(1 / 255)},
    )
    np.testing.assert_allclose(
        call(cascade, IMAGES),
        call(downstream, resized(IMAGES, (6, 6)) / 255),
        rtol=1e-4,
        atol=1e-5,
    )


def test_whole_numbers_are_taken_where_one_network_wants_floats():
    cascade = shared(reader((12, 12), "a"), reader((6, 6), "b", dtype="uint8"))
    pixels = IMAGES.astype("uint8")
    np.testing.assert_array_equal(call(cascade, pixels)["a"], IMAGES)


def test_it_is_kept_in_files_and_in_stock_models(tmp_path):
    cascade = shared(
        reader((12, 12), "one"),
        reader((6, 6), "other"),
        preprocess={"a": "resnet_v2"},
    )
    check_cascade(cascade, IMAGES)
    cascade.to_plain().save(tmp_path / "plain.keras")
    plain = keras.saving.load_model(tmp_path / "plain.keras")
    for name, value in call(cascade, IMAGES).items():
        np.testing.assert_allclose(call(plain, IMAGES)[name], value, atol=1e-4)


def test_the_networks_stay_as_they_are():
    layer = layers.Rescaling(1 / 255, name="mine")
    networks = reader((12, 12), "one"), reader((6, 6), "other")
    before = [network.get_config() for network in networks]
    shared(*networks, preprocess={"a": layer})
    assert [network.get_config() for network in networks] == before
    assert (
        layer.get_config()
        == layers.Rescaling(1 / 255, name="mine").get_config()
    )


def test_preprocessing_of_an_unknown_network_is_an_error():
    with pytest.raises(ValueError) as caught:
        shared(reader((12, 12), "one"), preprocess={"upstrem": None})
    assert "upstrem" in str(caught.value)
