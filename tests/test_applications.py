"""Taps of real architectures equal the original network's tensors."""

from fnmatch import fnmatchcase

import keras
import numpy as np
import pytest

import keras_cascade as kc

# Network: the smallest size that it takes, an early layer, a pattern for
# layers in its middle. The output, -1, is the third tap.
NETWORKS = {
    "VGG16": (32, "block1_conv2", "block3_conv1..block3_pool"),
    "ResNet50V2": (32, "conv1_conv", "conv4_block[23]_out"),
    "InceptionV3": (75, "mixed0", "mixed[67]"),
    "DenseNet121": (32, "conv1_relu", "pool*_conv"),
    "EfficientNetV2B0": (32, "stem_activation", "block4?_add"),
    "ConvNeXtTiny": (
        32,
        "convnext_tiny_stage_0_block_0_layernorm",
        "*_stage_2_block_[13]_layernorm",
    ),
    "MobileNetV3Small": (32, "conv_bn", "expanded_conv_?_add"),
}
QUICKEST = ("VGG16", "MobileNetV3Small")
IMAGES = 8


def settle(network, inputs):
    """Gives BatchNormalization the statistics of its inputs.

    Networks with random weights hardly depend on their input else: one pass
    in training mode with momentum 0 makes each moving statistic the batch's.
    """
    norms = [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    network(inputs, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _spread(values):
    """How far the samples lie apart: the mean deviation at a feature."""
    return float(np.std(values.reshape(len(values), -1), axis=0).mean())


def _numpy(x):
    return keras.ops.convert_to_numpy(x)


def _selected(network, pattern):
    """What a glob, or a range in a chain of layers, should select."""
    names = [layer.name for layer in network.layers]
    if ".." in pattern:
        first, last = map(names.index, pattern.split(".."))
        return network.layers[first : last + 1]
    return [x for x in network.layers if fnmatchcase(x.name, pattern)]


def _networks():
    """All on TensorFlow, the quickest elsewhere, where the rest is `large`."""
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
    size, early, middle = NETWORKS[name]
    network = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (IMAGES, size, size, 3)).astype("float32")
    settle(network, images)
    before = [w.copy() for w in network.get_weights()]
    layers = [*_selected(network, early), *_selected(network, middle)]
    assert len(layers) > 1
    tensors = [*(layer.output for layer in layers), network.output]
    reference = keras.Model(network.input, tensors)(images)

    cascade = kc.build_cascade(
        network, taps=[early, middle, "-1"], adapters=None, fusion=None
    )
    given = cascade(images)

    assert len(given) == len(reference)
    differences = []
    for name_of_tap, expected in zip(cascade.taps, reference, strict=True):
        expected, found = _numpy(expected), _numpy(given[name_of_tap])
        spread = _spread(expected)
        assert spread > 1e-2, name_of_tap
        differences.append(float(np.abs(found - expected).max()) / spread)
        assert differences[-1] <= 1e-5, name_of_tap
    record_property("taps", len(differences))
    record_property("largest_difference_by_spread", max(differences))
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
