import keras
import numpy as np
import pytest

from keras_cascade.assembly.preprocessing import preprocessing_network
from keras_cascade.networks.preprocess_argument import resolve_preprocess
from keras_cascade.networks.preprocessing import (
    Preprocess,
)

layers = keras.layers


@pytest.fixture(scope="module")
def mobilenet():
    """A recognised application, at a quarter of its width."""
    return keras.applications.MobileNet(
        weights=None, alpha=0.25, include_top=False, input_shape=(32, 32, 3)
    )


@pytest.fixture
def plain():
    """A network that is no application."""
    x = keras.Input((6, 5, 3), name="x")
    return keras.Model(x, layers.Conv2D(2, 3)(x), name="plain")


def _resolve(preprocess, network, source=None, role="upstream"):
    sources = {role: network if source is None else source}
    return resolve_preprocess(preprocess, [role], sources, {role: network})[
        role
    ]


def _applied(preprocess, network, images):
    front = preprocessing_network(preprocess, network.inputs[0], "raw")
    return keras.ops.convert_to_numpy(front(images))


def _images(shape=(2, 6, 5, 3)):
    random = np.random.default_rng(0)
    return random.integers(0, 256, shape).astype("float32")


def test_an_application_that_needs_one_warns(mobilenet):
    with pytest.warns(
        UserWarning,
        match=r"upstream 'mobilenet_0\.25_32' is a network of "
        r"keras\.applications\.mobilenet.*preprocess=\{'upstream': "
        r"'mobilenet'\}.*preprocess=\{'upstream': None\}",
    ):
        assert _resolve("auto", mobilenet) is None


@pytest.mark.parametrize(
    "preprocess",
    [None, "mobilenet", {"upstream": None}, {"upstream": "nasnet"}],
)
def test_an_explicit_choice_does_not_warn(preprocess, mobilenet):
    _resolve(preprocess, mobilenet)


def test_a_mapping_leaves_the_others_to_auto(mobilenet, plain):
    networks = {"a": plain, "b": mobilenet}
    with pytest.warns(UserWarning, match="^b 'mobilenet_0"):
        found = resolve_preprocess(
            {"a": "resnet"}, ["a", "b"], networks, networks
        )
    assert found["a"].name.startswith("resnet: ")
    assert found["b"] is None


def test_other_networks_get_nothing(plain):
    assert _resolve("auto", plain) is None


def test_networks_that_have_their_own_get_nothing_and_do_not_warn():
    network = keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    assert _resolve("auto", network) is None
    named = _resolve("auto", network, source="MobileNetV3Small")
    assert named == Preprocess("mobilenet_v3: done by its networks themselves")
    assert _resolve({"upstream": "mobilenet_v3"}, network) == named


def test_an_application_by_name_gets_its_preprocessing(mobilenet):
    found = _resolve("auto", mobilenet, source="MobileNet")
    assert found.name == "mobilenet: pixels / 127.5 - 1"
    images = _images((2, 32, 32, 3))
    expected = keras.applications.mobilenet.preprocess_input(images.copy())
    np.testing.assert_allclose(
        _applied(found, mobilenet, images), expected, atol=1e-5
    )


def test_networks_that_disagree_each_get_their_own(plain):
    roles = ["a", "b"]
    networks = dict.fromkeys(roles, plain)
    found = resolve_preprocess(
        {"a": "vgg16", "b": "densenet"}, roles, networks, networks
    )
    images = _images()
    for role, module in (("a", "vgg16"), ("b", "densenet")):
        function = getattr(keras.applications, module).preprocess_input
        np.testing.assert_allclose(
            _applied(found[role], plain, images),
            function(images.copy()),
            atol=1e-5,
        )


def test_the_axis_of_three_channels_decides_the_data_format():
    x = keras.Input((3, 6, 5))
    network = keras.Model(x, layers.Flatten()(x))
    images = _images((2, 3, 6, 5))
    expected = keras.applications.vgg16.preprocess_input(
        images.copy(), data_format="channels_first"
    )
    np.testing.assert_allclose(
        _applied(_resolve("vgg16", network), network, images),
        expected,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV3Small",
        pytest.param("ConvNeXtTiny", marks=pytest.mark.large),
        pytest.param("EfficientNetV2B0", marks=pytest.mark.large),
        pytest.param("EfficientNetV2S", marks=pytest.mark.large),
    ],
)
def test_a_network_built_without_preprocessing_gets_it(name):
    constructor = getattr(keras.applications, name)
    module = {
        "M": "mobilenet_v3",
        "C": "convnext",
        "E": "efficientnet_v2",
    }[name[0]]
    given = {
        "weights": None,
        "include_top": False,
        "input_shape": (32, 32, 3),
    }
    whole = constructor(**given)
    bare = constructor(**given, include_preprocessing=False)
    bare.set_weights(whole.get_weights())
    images = _images((2, 32, 32, 3))
    with pytest.warns(UserWarning, match=f"'upstream': '{module}'"):
        _resolve("auto", bare)
    found = _resolve({"upstream": module}, bare)
    # At the first convolution: after many layers of random weights,
    # differences drown.
    first = next(x.name for x in bare.layers if x.weights)
    expected = keras.Model(whole.input, whole.get_layer(first).output)(images)
    stem = keras.Model(bare.input, bare.get_layer(first).output)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(stem(_applied(found, bare, images))),
        keras.ops.convert_to_numpy(expected),
        atol=1e-5,
    )


def test_layers_of_the_user_are_taken(plain):
    one = layers.Rescaling(2.0, name="twice")
    two = layers.Rescaling(1.0, 1.0, name="plus")
    found = _resolve({"upstream": [one, two]}, plain)
    assert found.name == "twice, plus"
    images = _images()
    np.testing.assert_array_equal(
        _applied(found, plain, images), images * 2 + 1
    )
    np.testing.assert_array_equal(
        _applied(_resolve(one, plain), plain, images), images * 2
    )


def test_a_resolved_preprocess_is_taken_again(plain):
    found = _resolve("resnet", plain)
    assert _resolve({"upstream": found}, plain) is found


def test_an_unknown_module_is_an_error_with_the_closest(plain):
    with pytest.raises(
        ValueError,
        match=r"preprocess of 'upstream': keras\.applications has no module "
        r"'mobilenetv2'\. Closest: 'mobilenet_v2'.*There are: convnext",
    ):
        _resolve("mobilenetv2", plain)


def test_a_network_that_is_not_there_is_an_error(plain):
    with pytest.raises(
        ValueError,
        match=r"'upstrem', which is no network of the cascade\. "
        r"Closest: 'upstream'\. There are: upstream\.",
    ):
        _resolve({"upstrem": None}, plain)


def test_a_network_that_reads_features_is_an_error(plain):
    networks = {"upstream": plain, "downstream": plain}
    with pytest.raises(
        ValueError, match=r"'downstream', which does not read.*do: upstream\."
    ):
        resolve_preprocess(
            {"downstream": "resnet"}, ["upstream"], networks, networks
        )


@pytest.mark.parametrize("preprocess", [3, [], ["resnet"], layers.Rescaling])
def test_objects_that_are_no_preprocessing_are_refused(preprocess, plain):
    with pytest.raises(TypeError, match=r"preprocess of 'upstream' must be"):
        _resolve({"upstream": preprocess}, plain)


def test_images_of_another_depth_are_refused():
    x = keras.Input((6, 5, 1))
    network = keras.Model(x, layers.Flatten()(x), name="grey")
    with pytest.raises(
        ValueError, match=r"three channels; 'grey' takes shape \(None, 6, 5, 1"
    ):
        _resolve("resnet", network)
    # A single scale for all channels fits any number of them.
    assert _resolve("resnet_v2", network).layers


def test_several_inputs_are_refused_unless_nothing_is_asked(plain):
    a, b = keras.Input((6, 5, 3), name="a"), keras.Input((6, 5, 3), name="b")
    network = keras.Model([a, b], layers.Add()([a, b]), name="two")
    with pytest.raises(ValueError, match=r"'two' has 2 inputs \('a', 'b'\)"):
        _resolve("resnet", network)
    assert _resolve("auto", network) is None
    assert _resolve(None, network) is None
