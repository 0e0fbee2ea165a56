import hashlib
import inspect
from urllib.error import URLError

import keras
import numpy as np
import pytest
from keras.src.applications import imagenet_utils, mobilenet_v3
from keras.src.utils import file_utils

import keras_cascade as kc
from keras_cascade._reporting.messages import closest
from keras_cascade.networks.applications import (
    APPLICATIONS,
    MODES,
    Recognised,
    load_application,
    recognise,
)

layers = keras.layers
BACKEND = keras.backend.backend()
# The smallest of each module, with the smallest side that it takes.
SMALLEST = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "EfficientNetV2S": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "VGG19": 32,
    "Xception": 71,
}
QUICKEST = ("MobileNet", "MobileNetV3Small")
NO_NASNET = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras has no NASNet on torch, by its own error"
)


def _application(application, side, **kwargs):
    return getattr(keras.applications, application)(
        weights=None, include_top=False, input_shape=(side, side, 3), **kwargs
    )


@pytest.fixture(scope="module")
def mobilenet():
    """A quarter of the width: the first layers still identify the network."""
    return _application("MobileNet", 32, alpha=0.25)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keras's folder of downloaded weights, and no network."""

    def fail(origin, *_):
        raise URLError(f"no way to {origin}")

    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", fail)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


# --- By name ---------------------------------------------------------------


def test_the_table_has_every_application():
    names = {
        name
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value)
    }
    assert set(APPLICATIONS) == names
    for name, (module, _) in APPLICATIONS.items():
        constructor = getattr(keras.applications, name)
        assert constructor.__module__.rpartition(".")[2] == module


class Asked(BaseException):
    """Carries the requested size out of a constructor."""


def _names_with_a_default():
    marks = {"NASNetLarge": NO_NASNET, "NASNetMobile": NO_NASNET}
    return [
        pytest.param(name, marks=marks.get(name, ()))
        for name, (module, _) in APPLICATIONS.items()
        if module != "mobilenet_v3"
    ]


@pytest.mark.parametrize("name", _names_with_a_default())
def test_the_size_is_the_default_of_the_constructor(name, monkeypatch):
    def obtain(input_shape, default_size, *args, **kwargs):
        raise Asked(default_size)

    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", obtain)
    with pytest.raises(Asked) as asked:
        getattr(keras.applications, name)(weights=None)
    assert APPLICATIONS[name][1] == asked.value.args[0]


@pytest.mark.parametrize("name", ["MobileNetV3Large", "MobileNetV3Small"])
def test_the_size_is_that_of_the_only_weights_there_are(name):
    sizes = {key.split("_")[-3] for key in mobilenet_v3.WEIGHTS_HASHES}
    assert sizes == {str(APPLICATIONS[name][1])}


def test_a_name_gives_the_application_with_its_weights(cache):
    reference = _application("MobileNet", 224)
    reference.save(cache / "mobilenet_1_0_224_tf_no_top.h5")
    network = load_application("MobileNet", "upstream")
    assert network.input_shape == (None, 224, 224, 3)
    assert network.output_shape == (None, 7, 7, 1024)
    for one, other in zip(
        reference.get_weights(), network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name",
    [
        # Compiling three of them takes JAX 17 seconds.
        pytest.param(
            "MobileNetV3Small",
            marks=[pytest.mark.large] * (BACKEND == "jax"),
        )
    ],
)
def test_weights_are_checked_by_their_hash_as_keras_does(
    name, cache, monkeypatch
):
    reference = _application(name, 224)
    path = cache / "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    reference.save(path)
    with pytest.raises(RuntimeError, match=f"'{name}'"):
        load_application(name, "upstream")

    reference.save(path)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(
        mobilenet_v3.WEIGHTS_HASHES, "small_224_1.0_float", (found, found)
    )
    network = load_application(name, "upstream")
    for one, other in zip(
        reference.get_weights(), network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_failing_download_is_one_error(cache):
    with pytest.raises(
        RuntimeError,
        match=r"^upstream='MobileNet', with its ImageNet weights, could not be "
        r"loaded: URL fetch failure on https://.*mobilenet_1_0_224.*pass the "
        r"model: keras\.applications\.MobileNet\(",
    ) as error:
        load_application("MobileNet", "upstream")
    assert "\n" not in str(error.value)


def test_a_broken_file_is_one_error(cache):
    (cache / "mobilenet_1_0_224_tf_no_top.h5").write_bytes(b"no weights")
    with pytest.raises(RuntimeError, match=r"'MobileNet'.*could not be loaded"):
        load_application("MobileNet", "upstream")


def test_closest_names_look_past_the_case():
    found = closest("mobilenetv3smal", APPLICATIONS)
    assert found.startswith(" Closest: 'MobileNetV3Small'")
    assert closest("zzzz", APPLICATIONS) == ""


# --- Recognised ------------------------------------------------------------


def _smallest():
    """All on TensorFlow, the quickest elsewhere, where the rest is `large`."""
    for name in SMALLEST:
        marks = [NO_NASNET] if name.startswith("NASNet") else []
        if BACKEND != "tensorflow" and name not in QUICKEST:
            marks.append(pytest.mark.large)
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", list(_smallest()))
def test_the_smallest_of_each_module_is_recognised(name):
    module = APPLICATIONS[name][0]
    network = _application(name, SMALLEST[name])
    assert recognise(network) == Recognised(module, MODES[module])


def test_the_smallest_are_of_every_module():
    modules = {APPLICATIONS[name][0] for name in SMALLEST}
    assert modules == set(MODES) - {"resnet50"}  # an alias of resnet


@pytest.mark.large
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[NO_NASNET] * name.startswith("NASNet"))
        for name in APPLICATIONS
        if name not in SMALLEST
    ],
)
def test_all_others_are_recognised(name):
    module, side = APPLICATIONS[name]
    network = _application(name, side)
    assert recognise(network) == Recognised(module, MODES[module])


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("MobileNetV3Small", "tf"),
        pytest.param("ConvNeXtTiny", "torch", marks=pytest.mark.large),
        pytest.param("EfficientNetV2B0", "torch", marks=pytest.mark.large),
        pytest.param("EfficientNetV2B3", "torch", marks=pytest.mark.large),
        pytest.param("EfficientNetV2S", "128", marks=pytest.mark.large),
        pytest.param("EfficientNetV2L", "128", marks=pytest.mark.large),
    ],
)
def test_networks_without_their_own_preprocessing_need_it(name, needs):
    network = _application(name, 32, include_preprocessing=False)
    assert recognise(network) == Recognised(APPLICATIONS[name][0], needs)


def test_the_classifier_is_recognised_too():
    network = keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=(32, 32, 3), classes=3
    )
    assert recognise(network) == Recognised("mobilenet", "tf")


def test_the_name_does_not_matter():
    network = _application("MobileNet", 32, alpha=0.25, name="mine")
    assert recognise(network) == Recognised("mobilenet", "tf")


def test_a_network_that_ends_inside_is_recognised(mobilenet):
    inner = kc.truncate(mobilenet, "conv_pw_3_relu")
    assert recognise(inner) == Recognised("mobilenet", "tf")


def test_a_network_that_begins_with_it_is_recognised(mobilenet):
    network = keras.Sequential([mobilenet, layers.GlobalAveragePooling2D()])
    network.build((None, 32, 32, 3))
    assert recognise(network) == Recognised("mobilenet", "tf")


def test_a_loaded_network_is_recognised(mobilenet, tmp_path):
    mobilenet.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    assert recognise(loaded) == Recognised("mobilenet", "tf")


def test_a_network_that_is_scaled_before_needs_nothing(mobilenet):
    x = keras.Input((32, 32, 3))
    scaled = layers.Rescaling(1 / 127.5, -1)(x)
    network = keras.Model(x, mobilenet(scaled))
    assert recognise(network) == Recognised("mobilenet", None)


def _resnet50(kernel, side=8):
    """A network by its name alone, with the layer names of its stem."""
    x = keras.Input((side, side, 3))
    y = layers.ZeroPadding2D(name="conv1_pad")(x)
    y = layers.Conv2D(4, kernel, strides=2, name="conv1_conv")(y)
    y = layers.BatchNormalization(name="conv1_bn")(y)
    y = layers.Activation("relu", name="conv1_relu")(y)
    y = layers.ZeroPadding2D(name="pool1_pad")(y)
    return keras.Model(x, y, name="resnet50")


def test_the_kernels_count_besides_the_names():
    assert recognise(_resnet50(kernel=3)) is None
    assert recognise(_resnet50(kernel=7)) == Recognised("resnet", "caffe")


@keras.saving.register_keras_serializable(package="tests_applications")
class Subclassed(keras.Model):
    """A network without a graph."""

    def call(self, inputs):
        return inputs * 2.0


def test_other_networks_are_not_recognised():
    x = keras.Input((8, 8, 3))
    side = keras.Input((8, 8, 3))
    plain = keras.Model(x, layers.Conv2D(4, 3)(x), name="vgg16")
    two = keras.Model([x, side], layers.Add()([x, side]), name="resnet50")
    unbuilt = keras.Sequential([layers.Dense(2)], name="vgg16")
    for network in (plain, two, unbuilt, Subclassed(name="resnet50")):
        assert recognise(network) is None
