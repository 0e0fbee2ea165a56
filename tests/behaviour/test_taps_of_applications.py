"""Tests that taps of real architectures equal the network's tensors."""

from fnmatch import fnmatchcase

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.applications import images_for, make, settle, spread

# Network: an early layer, a pattern for layers in its middle. The output, -1,
# is the third tap.
NETWORKS = {
    "VGG16": ("block1_conv2", "block3_conv1..block3_pool"),
    "ResNet50V2": ("conv1_conv", "conv4_block[23]_out"),
    "InceptionV3": ("mixed0", "mixed[67]"),
    "DenseNet121": ("conv1_relu", "pool*_conv"),
    "EfficientNetV2B0": ("stem_activation", "block4?_add"),
    "ConvNeXtTiny": (
        "convnext_tiny_stage_0_block_0_layernorm",
        "*_stage_2_block_[13]_layernorm",
    ),
    "MobileNetV3Small": ("conv_bn", "expanded_conv_?_add"),
}
QUICKEST = ("VGG16", "MobileNetV3Small")
IMAGES = 8


def _numpy(x):
    return keras.ops.convert_to_numpy(x)


def _selected(network, pattern):
    """Returns the layers that a glob, or a range in a chain, should select."""
    names = [layer.name for layer in network.layers]
    if ".." in pattern:
        first, last = map(names.index, pattern.split(".."))
        return network.layers[first : last + 1]
    return [x for x in network.layers if fnmatchcase(x.name, pattern)]


def _networks():
    """Returns all on TensorFlow; elsewhere most are `large`."""
    everywhere = keras.backend.backend() == "tensorflow"
    return [
        pytest.param(
            name,
            marks=() if everywhere or name in QUICKEST else pytest.mark.large,
        )
        for name in NETWORKS
    ]


@pytest.mark.parametrize("name", _networks())
def test_taps_equal_the_original_networks_tensors(name, record_property):
    early, middle = NETWORKS[name]
    network = make(name, include_top=False)
    images = images_for(name, IMAGES)
    settle(network, images)
    before = [w.copy() for w in network.get_weights()]
    layers = [*_selected(network, early), *_selected(network, middle)]
    assert len(layers) > 1
    tensors = [*(layer.output for layer in layers), network.output]
    reference = keras.Model(network.input, tensors)(images)

    cascade = kc.build_cascade(
        network,
        taps=[early, middle, "-1"],
        adapters=None,
        fusion=None,
        preprocess=None,
    )
    given = cascade(images)

    assert len(given) == len(reference)
    differences = []
    for name_of_tap, expected in zip(cascade.taps, reference, strict=True):
        expected, found = _numpy(expected), _numpy(given[name_of_tap])
        scale = spread(expected)
        assert scale > 1e-2, name_of_tap
        differences.append(float(np.abs(found - expected).max()) / scale)
        assert differences[-1] <= 1e-5, name_of_tap
    record_property("taps", len(differences))
    record_property("largest_difference_by_spread", max(differences))
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
