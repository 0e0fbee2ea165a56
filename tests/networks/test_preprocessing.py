import types

import keras
import numpy as np
import pytest

from keras_cascade.assembly.preprocessing import preprocessing_network
from keras_cascade.networks.applications import MODES
from keras_cascade.networks.preprocessing import (
    MODE_SCALINGS,
    Preprocess,
    check_module,
)

FORMATS = ("channels_last", "channels_first")


@pytest.fixture(params=FORMATS)
def global_format(request):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(request.param)
    yield request.param
    keras.config.set_image_data_format(before)


def _layers(module, data_format="channels_last"):
    mode = MODES[module]
    return [] if mode is None else MODE_SCALINGS[mode].layers(data_format)


def _images(data_format):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), "uint8")
    first = data_format == "channels_first"
    return np.moveaxis(images, 3, 1).copy() if first else images


def _reference(module, images, data_format):
    function = getattr(keras.applications, module).preprocess_input
    return function(images.astype("float32"), data_format=data_format)


def _network(layers, images, dtype="float32"):
    tensor = keras.KerasTensor((None, *images.shape[1:]))
    preprocess = Preprocess("x", tuple(layers))
    return preprocessing_network(preprocess, tensor, "raw", dtype)


def _numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_every_module_of_applications_is_in_the_table():
    modules = {
        name
        for name, value in vars(keras.applications).items()
        if isinstance(value, types.ModuleType)
        and hasattr(value, "preprocess_input")
    }
    # The helper of all the others, which has no network.
    assert modules - {"imagenet_utils"} == set(MODES)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("module", MODES)
def test_the_layers_equal_preprocess_input(module, data_format, dtype):
    images = _images(data_format)
    expected = _reference(module, images, data_format)
    layers = _layers(module, data_format)
    if not layers:
        np.testing.assert_array_equal(expected, images)
        return
    network = _network(layers, images, dtype)
    found = _numpy(network(images.astype(dtype)))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("module", ["densenet", "resnet", "xception"])
def test_the_global_data_format_does_not_matter(
    module, data_format, global_format
):
    images = _images(data_format)
    expected = _reference(module, images, data_format)
    network = _network(_layers(module, data_format), images)
    found = _numpy(network(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("module", ["densenet", "resnet", "xception"])
def test_mixed_precision_costs_no_digits(module):
    images = _images("channels_last")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = _network(_layers(module), images)
    finally:
        keras.config.set_dtype_policy(before)
    expected = _reference(module, images, "channels_last")
    np.testing.assert_allclose(_numpy(network(images)), expected, atol=1e-5)


@pytest.mark.parametrize("module", ["densenet", "resnet", "xception"])
def test_the_network_of_the_layers_is_a_stock_model(module, tmp_path):
    images = _images("channels_last")
    network = _network(_layers(module), images)
    assert network.variables == []
    assert "keras_cascade" not in network.to_json()
    network.save(tmp_path / "p.keras")
    loaded = keras.saving.load_model(tmp_path / "p.keras")
    np.testing.assert_array_equal(
        _numpy(network(images)), _numpy(loaded(images))
    )


def test_the_network_has_the_shape_dtype_and_names_that_were_asked_for():
    layers = _layers("resnet")
    tensor = keras.KerasTensor((None, None, None, 3), dtype="float32")
    given = Preprocess("x", tuple(layers))
    network = preprocessing_network(given, tensor, "raw", "uint8")
    assert network.name == network.inputs[0].name == "raw"
    assert network.inputs[0].shape == (None, None, None, 3)
    assert network.inputs[0].dtype == "uint8"
    assert len(network.outputs) == 1
    default = preprocessing_network(given, tensor, "raw")
    assert default.inputs[0].dtype == "float32"


@pytest.mark.parametrize("preprocess", [None, Preprocess("has its own")])
def test_nothing_to_do_is_no_network(preprocess):
    tensor = keras.KerasTensor((None, 4, 4, 3))
    assert preprocessing_network(preprocess, tensor, "raw") is None


def test_an_adapted_layer_is_copied_with_its_statistics():
    data = np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype("float32")
    layer = keras.layers.Normalization()
    layer.adapt(data)
    network = _network([layer], data)
    expected = (data - data.mean(axis=0)) / data.std(axis=0)
    np.testing.assert_allclose(_numpy(network(data)), expected, atol=1e-4)
    assert not set(map(id, layer.variables)) & set(map(id, network.variables))


def test_a_layer_that_was_not_built_stays_so():
    layer = keras.layers.Dense(2)
    network = _network([layer], np.ones((1, 4), "float32"))
    assert not layer.built
    assert network.output_shape == (None, 2)


def test_a_network_keeps_its_weights_and_flags():
    x = keras.Input((4,))
    inner = keras.Model(x, keras.layers.Dense(3, name="h")(x), name="inner")
    inner.get_layer("h").trainable = False
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    network = _network([inner], rows)
    np.testing.assert_array_equal(_numpy(network(rows)), _numpy(inner(rows)))
    assert network.trainable_variables == []


def test_a_lambda_is_copied_by_its_function():
    layer = keras.layers.Lambda(lambda x: x / 4.0, output_shape=(4,))
    rows = np.ones((2, 4), "float32")
    assert float(_numpy(_network([layer], rows)(rows)).max()) == 0.25


@pytest.mark.parametrize("module", ["densenet", "resnet", "convnext"])
def test_a_preprocess_survives_serialisation(module):
    layers = _layers(module)
    given = Preprocess("what it does", tuple(layers))
    config = keras.saving.serialize_keras_object(given)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, Preprocess)
    assert again.name == "what it does"
    assert len(again.layers) == len(layers)
    if layers:
        images = _images("channels_last")
        np.testing.assert_array_equal(
            _numpy(_network(layers, images)(images)),
            _numpy(_network(again.layers, images)(images)),
        )


def test_an_unknown_module_is_named_with_the_closest():
    with pytest.raises(
        ValueError,
        match=r"no module 'resnetv2'\. Closest: 'resnet_v2'.*There are: conv",
    ):
        check_module("resnetv2", "preprocess")
