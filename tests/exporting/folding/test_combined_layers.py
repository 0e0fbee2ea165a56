"""Each kind of layer becomes one with another, and keeps its arguments."""

import keras
import pytest
from keras import layers

# TensorFlow's CPU has no channels-first convolutions.
FIRST_RUNS = keras.config.backend() != "tensorflow"


def line(shape, *made):
    """A model of one layer after the other."""
    x = y = keras.Input(shape, name="x")
    for layer in made:
        y = layer(y)
    return keras.Model(x, y)


NORM_AFTER = {
    "Dense": ((4,), lambda: layers.Dense(3)),
    "Dense on a map": ((3, 3, 4), lambda: layers.Dense(3)),
    "Conv1D": ((9, 4), lambda: layers.Conv1D(3, 3, padding="causal")),
    "Conv2D valid": ((7, 7, 4), lambda: layers.Conv2D(3, 3, use_bias=False)),
    "Conv2D same": ((7, 7, 4), lambda: layers.Conv2D(3, 3, padding="same")),
    "Conv2D strides": ((7, 7, 4), lambda: layers.Conv2D(3, 3, strides=2)),
    "Conv2D dilation": (
        (7, 7, 4),
        lambda: layers.Conv2D(3, 2, dilation_rate=2),
    ),
    "Conv2D groups": ((7, 7, 4), lambda: layers.Conv2D(6, 3, groups=2)),
    "Conv3D": ((4, 4, 4, 2), lambda: layers.Conv3D(3, 2)),
    "DepthwiseConv1D": ((9, 4), lambda: layers.DepthwiseConv1D(3)),
    "DepthwiseConv2D": (
        (7, 7, 4),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
    ),
    "SeparableConv1D": ((9, 4), lambda: layers.SeparableConv1D(3, 3)),
    "SeparableConv2D": (
        (7, 7, 4),
        lambda: layers.SeparableConv2D(3, 3, depth_multiplier=2),
    ),
    "Conv1DTranspose": ((9, 4), lambda: layers.Conv1DTranspose(3, 3)),
    "Conv2DTranspose": (
        (5, 5, 4),
        lambda: layers.Conv2DTranspose(
            3, 3, strides=2, padding="same", output_padding=1, use_bias=False
        ),
    ),
    "Conv3DTranspose": ((3, 3, 3, 2), lambda: layers.Conv3DTranspose(3, 2)),
}


@pytest.mark.parametrize("case", NORM_AFTER)
def test_a_batch_normalization_becomes_part_of_the_layer_before(folded, case):
    shape, make = NORM_AFTER[case]
    layer = make()
    counts, kinds = folded(line(shape, layer, layers.BatchNormalization()))
    assert counts == {"BatchNormalization into the layer before it": 1}
    assert kinds == [type(layer).__name__]


FIRST = {"data_format": "channels_first"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv2D(6, 3, groups=2, **FIRST),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, **FIRST),
        lambda: layers.SeparableConv2D(3, 3, **FIRST),
        lambda: layers.Conv2DTranspose(3, 3, **FIRST),
    ],
    ids=["Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose"],
)
def test_the_channels_may_be_the_first_axis(folded, make):
    layer = make()
    model = line((4, 7, 7), layer, layers.BatchNormalization(axis=1))
    _, kinds = folded(model, run=FIRST_RUNS)
    assert kinds == [type(layer).__name__]


def test_the_users_regularizers_constraints_and_activations(folded):
    class Cubed(layers.Layer):
        def build(self, shape):
            self.power = self.add_weight(name="factor")

        def call(self, x):
            return self.power * x**3

    for activation in (lambda x: keras.ops.sin(2.0 * x), Cubed()):
        dense = layers.Dense(
            3,
            activation=activation,
            kernel_initializer=lambda shape, dtype=None: keras.ops.ones(shape),
            kernel_regularizer="l2",
            kernel_constraint="max_norm",
            activity_regularizer="l1",
        )
        model = line((4,), layers.BatchNormalization(), dense)
        _, kinds = folded(model)
        assert kinds == ["Dense"]
