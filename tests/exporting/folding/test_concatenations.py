"""Linear layers through concatenations."""

import keras
import pytest
from keras import layers

THROUGH = "linear layers through a concatenation"
JOINED = "concatenation into the next"


def model_of(parts, last, shape=(8,), axis=-1):
    """x -> each part, joined -> last; a part that is None is x, tanh'ed."""
    x = keras.Input(shape, name="x")
    tensors = [
        layers.Activation("tanh")(x) if part is None else part(x)
        for part in parts
    ]
    return keras.Model(x, last(layers.Concatenate(axis=axis)(tensors)))


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_of_three_parts_has_no_layer(folded, axis):
    parts = [layers.Dense(8), None, layers.Dense(9, use_bias=False)]
    model = model_of(parts, layers.Dense(3, activation="relu"), axis=axis)
    counts, kinds = folded(model)
    assert counts == {THROUGH: 1}
    assert kinds == ["Activation", "Concatenate", "Dense"]


@pytest.mark.parametrize("axis", [-1, 3])
def test_convolutions_of_size_one(folded, axis):
    parts = [layers.Conv2D(4, 1), layers.Conv2D(5, 1), None]
    last = layers.Conv2D(3, 1, activation="relu")
    counts, kinds = folded(model_of(parts, last, (5, 5, 4), axis))
    assert counts == {THROUGH: 1}
    assert kinds == ["Activation", "Concatenate", "Conv2D"]


def test_the_other_axis_is_not_mixed(folded):
    parts = [layers.Dense(4), layers.Dense(4)]
    counts, _ = folded(model_of(parts, layers.Dense(3), (5, 4), axis=1))
    assert counts == {}


def test_larger_convolutions_stay(folded):
    parts = [layers.Conv2D(4, 3, padding="same"), None]
    counts, _ = folded(model_of(parts, layers.Conv2D(3, 1), (5, 5, 4)))
    assert counts == {}


def test_a_layer_with_an_activation_stays(folded):
    parts = [layers.Dense(8, activation="relu"), layers.Dense(8)]
    counts, kinds = folded(model_of(parts, layers.Dense(3)))
    assert counts == {THROUGH: 1}
    assert kinds.count("Dense") == 2


def test_nothing_is_folded_into_more_weights(folded):
    parts = [layers.Dense(2), layers.Dense(2)]
    counts, _ = folded(model_of(parts, layers.Dense(9)))
    assert counts == {}


def test_a_part_that_is_needed_elsewhere_stays(folded):
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="y")(x)
    joined = layers.Concatenate()([y, layers.Activation("tanh")(x)])
    model = keras.Model(x, {"y": y, "z": layers.Dense(2)(joined)})
    assert folded(model)[0] == {}


def test_a_part_that_comes_twice_stays(folded):
    x = keras.Input((4,), name="x")
    y = layers.Dense(4)(x)
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()([y, y])))
    assert folded(model)[0] == {}


def test_a_shared_layer_stays(folded):
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4)
    tensors = [dense(x), dense(layers.Activation("tanh")(x))]
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()(tensors)))
    assert folded(model)[0] == {}


@pytest.mark.parametrize("axes", [(-1, -1), (-1, 1), (1, -1)])
def test_a_concatenation_in_a_concatenation(folded, axes):
    x = keras.Input((4,), name="x")
    inner = layers.Concatenate(axis=axes[0])([x, layers.ReLU()(x)])
    outer = layers.Concatenate(axis=axes[1])([x, inner])
    counts, kinds = folded(keras.Model(x, outer))
    assert counts == {JOINED: 1}
    assert kinds == ["ReLU", "Concatenate"]


def test_a_concatenation_that_is_a_part_twice_stays(folded):
    x = keras.Input((4,), name="x")
    inner = layers.Concatenate()([x, layers.ReLU()(x)])
    model = keras.Model(x, layers.Concatenate()([inner, inner]))
    assert folded(model)[0] == {}


def test_a_concatenation_on_another_axis_stays(folded):
    x = keras.Input((4, 4), name="x")
    inner = layers.Concatenate(axis=1)([x, layers.ReLU()(x)])
    model = keras.Model(x, layers.Concatenate(axis=2)([inner, -inner]))
    assert folded(model)[0] == {}


def test_all_rules_at_once(folded):
    x = keras.Input((8,), name="x")
    norm = layers.BatchNormalization()(layers.Dense(8)(x))
    inner = layers.Concatenate()([norm, layers.Dropout(0.1)(x)])
    outer = layers.Concatenate()([inner, layers.Dense(9)(x)])
    model = keras.Model(x, layers.Dense(2, activation="tanh")(outer))
    counts, kinds = folded(model)
    assert set(counts) >= {THROUGH, JOINED}
    assert kinds == ["Concatenate", "Dense"]
