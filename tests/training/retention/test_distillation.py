"""Compares old and new outputs with those of the network itself."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.copying import copy_network
from keras_cascade.training.retention.distillation import Distillation
from tests.training.retention import linear

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype("float32")
TOKENS = np.array([[1, 2, 0, 0], [3, 4, 1, 0], [2, 0, 0, 0]], "int32")


def plain():
    return linear.network("softmax"), X, None


def nested_and_called_twice():
    inner_x = keras.Input((3,))
    hidden = layers.Dense(3, "tanh", name="dense")(inner_x)
    inner = keras.Model(inner_x, hidden, name="linear")
    x = inputs = keras.Input((3,))
    x = inner(inner(x) * 2.0)
    outputs = layers.Dense(2, "softmax", name="old")(x)
    return keras.Model(inputs, outputs), X, "linear:0"


def masked():
    x = inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 3, mask_zero=True, name="table")(x)
    x = layers.LSTM(4, name="lstm")(x)
    outputs = layers.Dense(2, "softmax", name="old")(x)
    return keras.Model(inputs, outputs), TOKENS, "lstm"


def several_outputs():
    inputs = keras.Input((3,))
    x = layers.Dense(4, "tanh", name="dense")(inputs)
    outputs = {
        "a": layers.Dense(2, "softmax", name="a")(x),
        "b": layers.Dense(1, "sigmoid", name="b")(x),
    }
    return keras.Model(inputs, outputs), X, "dense"


def numpy(outputs):
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]


@pytest.mark.parametrize(
    "make", [plain, nested_and_called_twice, masked, several_outputs]
)
def test_outputs_are_those_of_the_network_before_and_after_training(make):
    """The network itself, its weights moved alike, gives the new outputs."""
    keras.utils.set_random_seed(0)
    network, x, tap = make()
    cascade = kc.build_cascade(
        network, taps=tap, adapters=None, fusion=None, trainable=True
    )
    teacher = copy_network(network, "teacher")
    distillation = Distillation(cascade, "upstream", teacher)
    expected_old = numpy(network(x))
    own = dict(leaf_layers(network))
    for path, layer in leaf_layers(cascade.blocks["upstream"]):
        for one in (layer, own[path]) if layer.weights else ():
            one.set_weights([1.5 * value for value in one.get_weights()])
    expected_new = numpy(network(x))
    assert not np.allclose(expected_old[0], expected_new[0], atol=1e-5)
    [(old, new)] = distillation.outputs(x)
    for found, expected in zip(numpy(old), expected_old, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for found, expected in zip(numpy(new), expected_new, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_inputs_of_the_network_are_preprocessed():
    twice = layers.Rescaling(2.0)
    cascade = kc.build_cascade(
        linear.network("softmax"), preprocess=twice, adapters=None
    )
    teacher = copy_network(linear.network("softmax"), "teacher")
    [(old, _)] = Distillation(cascade, "upstream", teacher).outputs(X)
    logits = 2 * X.astype("float64") @ linear.KERNEL + linear.BIAS
    np.testing.assert_allclose(
        numpy(old)[0], linear.softmax(logits), rtol=1e-4, atol=1e-6
    )


def test_an_injection_does_not_enter_the_outputs_of_a_downstream():
    x = inputs = keras.Input((3,), name="x")
    x = layers.Dense(4, name="dense")(x)
    downstream = keras.Model(inputs, layers.Softmax(name="old")(x))
    downstream.get_layer("dense").set_weights([linear.KERNEL, linear.BIAS])
    cascade = kc.build_cascade(
        linear.network(),
        downstream,
        inject={"dense": kc.Injection("dense", zero_init=False)},
        taps=["dense"],
    )
    teacher = copy_network(downstream, "teacher")
    [(_, new)] = Distillation(cascade, "downstream", teacher).outputs(X)
    np.testing.assert_allclose(
        numpy(new)[0], numpy(downstream(X))[0], rtol=1e-5, atol=1e-6
    )


def test_layers_that_feed_a_network_get_no_gradient_from_its_outputs():
    cascade = kc.build_cascade(
        linear.network("tanh"),
        linear.network("softmax", units=2),
        adapters=layers.Dense(3, name="to_features"),
        trainable=True,
        retention={"downstream": kc.LwF(1.0, 1.0)},
        optimizer=keras.optimizers.SGD(1.0),
        loss=_nothing,
    )
    linear.move(cascade, "downstream/dense/kernel")
    before = {v.path: linear.value(v) for v in cascade.trainable_variables}
    cascade.train_on_batch(X, np.zeros((len(X), 2), "float32"))
    moved = {
        variable.path
        for variable in cascade.trainable_variables
        if (linear.value(variable) != before[variable.path]).any()
    }
    assert moved == {"downstream/dense/kernel", "downstream/dense/bias"}


def _nothing(y_true, y_pred):
    """Returns a task's loss without a gradient."""
    return 0.0 * ops.sum(y_pred, axis=-1)
