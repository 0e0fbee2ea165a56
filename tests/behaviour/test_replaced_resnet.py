"""Tests `replace` in ResNet50: the layers before the entry are pruned.

How much is counted by hand, from the architecture (He et al. 2015, table 1,
with biases as in Keras): a stem, 16 bottleneck blocks, a classifier.
"""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.applications import images_for, make, settle, spread

CLASSES = 10
SAMPLES = 8
# Of each block: its name, its width, whether its shortcut has a convolution.
BLOCKS = [
    (f"conv{stage}_block{number}", width, number == 1)
    for stage, width, blocks in (
        (2, 64, 3),
        (3, 128, 4),
        (4, 256, 6),
        (5, 512, 3),
    )
    for number in range(1, blocks + 1)
]
NORM = 4  # gamma, beta, moving mean, moving variance


def _convolution(size, into, width):
    """Returns the parameters of a convolution with bias and normalization."""
    return size * size * into * width + width + NORM * width


def _parameters(index):
    """Returns the parameters of a block."""
    _, width, has_shortcut = BLOCKS[index]
    into = 64 if index == 0 else 4 * BLOCKS[index - 1][1]
    return (
        _convolution(1, into, width)
        + _convolution(3, width, width)
        + _convolution(1, width, 4 * width)
        + (_convolution(1, into, 4 * width) if has_shortcut else 0)
    )


def _variables(index):
    """Returns the variables of a block: six for each convolution."""
    return 6 * (3 + BLOCKS[index][2])


STEM_PARAMETERS, STEM_VARIABLES = _convolution(7, 3, 64), 6
HEAD_PARAMETERS, HEAD_VARIABLES = 2048 * CLASSES + CLASSES, 2


@pytest.fixture(scope="module")
def resnet():
    network = make("ResNet50", classes=CLASSES, classifier_activation=None)
    settle(network, images_for("ResNet50", SAMPLES))
    return network


@pytest.fixture(scope="module")
def sketch():
    """Returns a small upstream that gives a map."""
    layers = [
        keras.Input((16, 16, 3), name="sketch"),
        keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="map"),
    ]
    return keras.Sequential(layers, name="small")


@pytest.fixture
def sketches():
    random = np.random.default_rng(1)
    return random.normal(size=(SAMPLES, 16, 16, 3)).astype("float32")


def _entered(sketch, resnet, path):
    return kc.build_cascade(
        sketch,
        resnet,
        taps={"tap": "map"},
        inject={"tap": kc.Injection(path, "replace")},
        preprocess=None,
    )


def test_the_hand_computed_count_of_the_whole_is_that_of_keras(resnet):
    blocks = range(len(BLOCKS))
    parameters = STEM_PARAMETERS + sum(map(_parameters, blocks))
    assert resnet.count_params() == parameters + HEAD_PARAMETERS
    variables = STEM_VARIABLES + sum(map(_variables, blocks))
    assert len(resnet.variables) == variables + HEAD_VARIABLES


@pytest.mark.parametrize("entered", [4, 8, 12, 16])
def test_entered_after_a_quarter_of_the_blocks_the_rest_is_left(
    sketch, resnet, entered
):
    cascade = _entered(sketch, resnet, f"{BLOCKS[entered - 1][0]}_out")

    downstream = cascade.blocks["downstream"]
    left = range(entered, len(BLOCKS))
    assert len(downstream.variables) == HEAD_VARIABLES + sum(
        map(_variables, left)
    )
    assert downstream.count_params() == HEAD_PARAMETERS + sum(
        map(_parameters, left)
    )
    owners = {v.path.split("/")[1] for v in downstream.variables}
    blocks_left = {"_".join(owner.split("_")[:2]) for owner in owners}
    expected = {BLOCKS[index][0] for index in left}
    assert blocks_left == expected | {"predictions"}
    assert [x.name for x in cascade.inputs] == ["inputs"]


def test_entered_at_a_quarter_it_is_the_rest_on_the_features(
    sketch, resnet, sketches
):
    path = f"{BLOCKS[7][0]}_out"
    cascade = _entered(sketch, resnet, path)
    rest = keras.Model(resnet.get_layer(path).output, resnet.output)

    result = _numpy(cascade(sketches))

    tapped = sketch(keras.ops.convert_to_tensor(sketches))
    expected = _numpy(rest(cascade.adapters["tap"](tapped)))
    assert spread(expected) > 1e-2
    np.testing.assert_array_equal(result, expected)


def test_entered_inside_a_branch_the_shortcut_keeps_its_layers(sketch, resnet):
    cascade = _entered(sketch, resnet, "conv4_block1_2_relu")

    downstream = cascade.blocks["downstream"]
    gone = _convolution(1, 512, 256) + _convolution(3, 256, 256)
    assert downstream.count_params() == resnet.count_params() - gone
    assert len(downstream.variables) == len(resnet.variables) - 2 * 6


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)
