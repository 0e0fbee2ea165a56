"""Tests findings for networks that get other values than in training."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import read_graph
from keras_cascade.values.requirements import required_range
from tests.analysis.networks import severities

RNG = np.random.default_rng(0)


def application(kind, name):
    network = getattr(keras.applications, kind)(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    # Applications are recognised by their layers, not by their names.
    network.name = name
    return network


def test_networks_that_share_an_input_and_disagree_are_both_named():
    upstream = {
        "a": application("MobileNet", "first"),
        "b": application("VGG16", "second"),
    }
    taps = {"a": "a/conv1_relu", "b": "b/block1_pool"}
    report = kc.check_interface(upstream, taps=taps, head=2)
    (found,) = report.findings
    assert found.severity == "warning"
    assert found.where == ("a", "b")
    assert "preprocess={'a': 'mobilenet', 'b': 'vgg16'}" in found.advice
    settled = {"a": "mobilenet", "b": "vgg16"}
    report = kc.check_interface(upstream, taps=taps, preprocess=settled, head=2)
    assert report.findings == []
    # One input cannot have the values that both were trained on.
    report = kc.check_interface(upstream, taps=taps, preprocess=None, head=2)
    assert severities(report) == ["warning"]


def test_a_warning_of_building_is_a_finding_of_the_report():
    network = application("MobileNet", "net")
    # Warnings are errors in these tests: there is none.
    (found,) = kc.check_interface(network, taps="conv1_relu").findings
    assert found.severity == "warning"
    assert "preprocess={'upstream': 'mobilenet'}" in found.advice
    with pytest.warns(UserWarning, match="keras.applications.mobilenet"):
        kc.build_cascade(network, taps="conv1_relu")


def test_other_warnings_are_not_silenced():
    layers.Dense(1)  # has the name that the network's first one would have
    inputs = keras.Input((3,))
    x = layers.Dense(2)(layers.Dense(2)(inputs))
    with pytest.warns(UserWarning, match="numbered within their network"):
        kc.check_interface(keras.Model(inputs, x), taps="dense_1")


def test_the_preprocessing_of_another_application_is_a_warning():
    network = application("MobileNet", "net")
    report = kc.check_interface(network, taps="-1", preprocess="resnet")
    (found,) = report.findings
    assert "preprocess={'upstream': 'mobilenet'}" in found.advice


def test_scaled_pixels_are_a_warning():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(2, 3, name="conv")(layers.Rescaling(1 / 255)(x))
    network = keras.Model(inputs, x, name="eye")
    images = RNG.uniform(0, 255, size=(8, 8, 8, 3)).astype("float32")
    assert kc.check_interface(network, data=images).findings == []
    (found,) = kc.check_interface(network, data=images / 255).findings
    assert found.where == ("inputs",)
    assert "not scaled" in found.advice


def expected_by(network):
    flat = flatten(read_graph(network))
    return required_range(flat, flat.inputs[0].reference, network)


def chain(*several, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *several])


def test_a_rescaling_at_the_start_requires_pixels():
    network = chain(
        layers.Rescaling(1 / 255), layers.Conv2D(2, 1), shape=(4, 4, 3)
    )
    expected = expected_by(network)
    assert (expected.low, expected.high) == (0, 255)
    assert "pixels" in str(expected)


def test_a_keras_application_requires_its_preprocessing():
    network = keras.applications.MobileNet(
        weights=None, alpha=0.25, include_top=False, input_shape=(32, 32, 3)
    )
    expected = expected_by(network)
    np.testing.assert_allclose((expected.low, expected.high), (-1, 1))
    x = keras.applications.mobilenet.preprocess_input(np.array([0.0, 255.0]))
    np.testing.assert_allclose((expected.low, expected.high), (x[0], x[1]))


def trained(mean, variance):
    layer = layers.BatchNormalization(scale=False, center=False)
    network = chain(layers.Dropout(0.1), layer, layers.Dense(2), shape=(2,))
    layer.set_weights([np.asarray(mean), np.asarray(variance)])
    return network


def test_a_batch_normalization_at_the_start_requires_its_statistics():
    assert expected_by(trained([0.1, -0.2], [1.1, 0.8])).standardised
    assert not expected_by(trained([5.0, 6.0], [1.0, 1.0])).standardised
    assert expected_by(trained([5.0, 6.0], [1.0, 1.0])).sums_to_one is False
    # Such moments do not exclude probabilities.
    assert expected_by(trained([0.1, 0.2], [0.01, 0.02])).sums_to_one is None
