"""Builds a linear network and its cascade, and computes losses by hand."""

import keras
import numpy as np
from keras import layers, ops

import keras_cascade as kc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype("float32")
Y = RNG.normal(size=(8, 2)).astype("float32")
KERNEL = RNG.normal(size=(3, 4))
BIAS = RNG.normal(size=4)
MOVED = RNG.normal(size=(3, 4))  # away from the kernel
RATE = 0.1


def network(activation="linear", units=4):
    """Returns one Dense layer with the weights above."""
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(units, activation, name="dense")],
        name="linear",
    )
    model.layers[0].set_weights([KERNEL[:, :units], BIAS[:units]])
    return model


def cascade(retention, source=None, **arguments):
    """Returns a cascade of the network and a linear head that trains whole."""
    arguments = {
        "adapters": None,
        "head": layers.Dense(2, name="out"),
        "trainable": True,
        "optimizer": keras.optimizers.SGD(RATE),
        "loss": "mse",
        "retention": retention,
        **arguments,
    }
    return kc.build_cascade(source or network(), **arguments)


def move(model, path="upstream/dense/kernel"):
    """Moves the kernel, as training would, and returns it in float64."""
    variable = by_path(model)[path]
    variable.assign(
        KERNEL[:, : variable.shape[1]] + MOVED[:, : variable.shape[1]]
    )
    return value(variable)


def by_path(model):
    return {variable.path: variable for variable in model.variables}


def value(variable):
    return np.array(ops.convert_to_numpy(variable), "float64")


def loss_of(model, x=X, y=Y):
    """Returns the loss of `compute_loss`, as in a custom training loop."""
    prediction = model(x, training=True)
    loss = model.compute_loss(
        x=x, y=ops.convert_to_tensor(y), y_pred=prediction
    )
    return float(ops.convert_to_numpy(loss))


def mse(model, x=X, y=Y):
    """Returns the task's loss, computed by hand."""
    weights = {path: value(v) for path, v in by_path(model).items()}
    hidden = (
        x @ weights["upstream/dense/kernel"] + weights["upstream/dense/bias"]
    )
    out = hidden @ weights["head/out/kernel"] + weights["head/out/bias"]
    return float(((out - y) ** 2).mean())


def task_gradient(model, x=X, y=Y):
    """Returns the gradient of the task's loss in the upstream's kernel."""
    weights = {path: value(v) for path, v in by_path(model).items()}
    hidden = (
        x @ weights["upstream/dense/kernel"] + weights["upstream/dense/bias"]
    )
    out = hidden @ weights["head/out/kernel"] + weights["head/out/bias"]
    gradient = 2 * (out - y) / out.size
    return x.T.astype("float64") @ (gradient @ weights["head/out/kernel"].T)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
