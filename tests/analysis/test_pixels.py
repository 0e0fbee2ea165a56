"""Networks that are not fed what they were trained on are in the report."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

RNG = np.random.default_rng(0)


def severities(report):
    return [finding.severity for finding in report.findings]


def application(kind, name):
    network = getattr(keras.applications, kind)(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    # Found by what it is made of, not by its name.
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
    # Feeding both what they were trained on is not possible at one input.
    report = kc.check_interface(upstream, taps=taps, preprocess=None, head=2)
    assert severities(report) == ["warning"]


def test_what_building_warns_of_applications_is_in_the_report():
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


def test_the_preprocessing_of_another_application_is_warned_of():
    network = application("MobileNet", "net")
    report = kc.check_interface(network, taps="-1", preprocess="resnet")
    (found,) = report.findings
    assert "preprocess={'upstream': 'mobilenet'}" in found.advice


def test_pixels_that_were_scaled_already_are_warned_of():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(2, 3, name="conv")(layers.Rescaling(1 / 255)(x))
    network = keras.Model(inputs, x, name="eye")
    images = RNG.uniform(0, 255, size=(8, 8, 8, 3)).astype("float32")
    assert kc.check_interface(network, data=images).findings == []
    (found,) = kc.check_interface(network, data=images / 255).findings
    assert found.where == ("inputs",)
    assert "not scaled" in found.advice
