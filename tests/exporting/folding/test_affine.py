"""Layers that are not linear, by channel and in float32 are not folded."""

import keras
import pytest
from keras import layers

from keras_cascade.exporting.folding.rules import fold
from keras_cascade.graph.flattening import as_program


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


class Always(layers.Dropout):
    def call(self, inputs, training=False):
        return inputs * 0.5


class Shifted(layers.BatchNormalization):
    def call(self, inputs, training=False):
        return super().call(inputs, training=training) + 1.0


KEPT = {
    "an activation is in between": (
        (4,),
        lambda: [
            layers.Dense(3, activation="relu"),
            layers.BatchNormalization(),
        ],
    ),
    "its channels are on another axis": (
        (4, 3),
        lambda: [layers.Dense(3), layers.BatchNormalization(axis=1)],
    ),
    "the other axis, before": (
        (3, 4),
        lambda: [layers.BatchNormalization(axis=1), layers.Dense(3)],
    ),
    "its kind is a subclass": (
        (4,),
        lambda: [Doubled(3), layers.BatchNormalization()],
    ),
    "the normalization is of a subclass": (
        (4,),
        lambda: [layers.Dense(3), Shifted()],
    ),
    "a dropout of a subclass does something": (
        (4,),
        lambda: [Always(0.5), layers.Dense(3)],
    ),
    "low rank": (
        (4,),
        lambda: [layers.BatchNormalization(), layers.Dense(3), "low rank"],
    ),
    "low rank, convolution": (
        (5, 5, 4),
        lambda: [layers.BatchNormalization(), layers.Conv2D(3, 1), "low rank"],
    ),
    "low rank, before": (
        (4,),
        lambda: [layers.Dense(3), "low rank", layers.BatchNormalization()],
    ),
    "half precision": (
        (4,),
        lambda: [
            layers.Dense(3, dtype="mixed_float16"),
            layers.BatchNormalization(),
        ],
    ),
    "a cast": (
        (4,),
        lambda: [layers.Dropout(0.5, dtype="float16"), layers.Dense(3)],
    ),
    "a normalization in half precision": (
        (4,),
        lambda: [
            layers.Dense(3),
            layers.BatchNormalization(dtype="mixed_float16"),
        ],
    ),
    "it would have more weights": (
        (8,),
        lambda: [layers.Dense(2), layers.Dense(8)],
    ),
    "the second looks around": (
        (5, 5, 4),
        lambda: [layers.Conv2D(3, 1), layers.Conv2D(3, 3)],
    ),
    "the second skips": (
        (5, 5, 4),
        lambda: [layers.Conv2D(3, 1), layers.Conv2D(3, 1, strides=2)],
    ),
    "groups do not mix": (
        (5, 5, 4),
        lambda: [layers.Conv2D(4, 1, groups=2), layers.Conv2D(2, 1)],
    ),
    "groups after": (
        (5, 5, 4),
        lambda: [layers.BatchNormalization(), layers.Conv2D(4, 1, groups=2)],
    ),
    "padding would be normalised": (
        (5, 5, 4),
        lambda: [
            layers.BatchNormalization(),
            layers.Conv2D(3, 3, padding="same"),
        ],
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_nothing_is_folded_where(folded, case):
    shape, make = KEPT[case]
    x = y = keras.Input(shape, name="x")
    last = None
    for layer in make():
        if layer == "low rank":
            last.enable_lora(2)
        else:
            y, last = layer(y), layer
    model = keras.Model(x, y)
    counts, kinds = folded(model, bound=1e-2 if "half" in case else 1e-5)
    assert counts == {}
    assert len(kinds) == len(model.layers) - 1


def test_quantized_layers_are_not_folded(settle):
    model = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3)]
    )
    settle(model).layers[-1].quantize("int8")
    assert fold(as_program(model), {}).counts == {}
