"""Makes small networks with injections, and calls and reads them."""

import keras
import numpy as np
from keras import layers, ops

import keras_cascade as kc

MERGES = ("add", "multiply", "film", "concat", "replace")
SILENT = MERGES[:-1]
RNG = np.random.default_rng(0)
# The shape of an inner layer's output, and the axis of its channels.
KINDS = {
    "vector": ((5,), -1),
    "sequence": ((3, 5), -1),
    "map": ((2, 3, 5), -1),
    "map with channels first": ((5, 2, 3), 1),
    "volume": ((2, 1, 2, 5), -1),
}


def array(*shape):
    return RNG.normal(size=shape).astype("float32")


def pooling(shape, axis):
    data_format = "channels_last" if axis == -1 else "channels_first"
    kinds = {
        2: layers.GlobalAveragePooling1D,
        3: layers.GlobalAveragePooling2D,
        4: layers.GlobalAveragePooling3D,
    }
    if len(shape) == 1:
        return layers.Identity(name="pool")
    return kinds[len(shape)](data_format=data_format, name="pool")


def expert(shape, axis=-1):
    """tanh, where features enter, the mean over positions, a dense layer."""
    inputs = keras.Input(shape, name="x")
    x = layers.Activation("tanh", name="hidden")(inputs)
    x = pooling(shape, axis)(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="expert")


def encoder(shape, axis=-1):
    """Gives its input as it is, as a map of the format that is asked for."""
    inputs = keras.Input(shape, name="y")
    x = layers.Identity(name="features")(inputs)
    return keras.Model(inputs, [x, pooling(shape, axis)(x)], name="encoder")


def build(shape, axis, features, merge, zero_init=True):
    return kc.build_cascade(
        encoder(features, axis),
        expert(shape, axis),
        taps={"texture": "features"},
        adapters=None,
        inject={"texture": kc.Injection("hidden", merge, zero_init)},
        inputs={"upstream": "features", "downstream": "x"},
    )


def weights(model):
    """Variables by the end of their path, as arrays."""
    return {
        v.path.split("/", 1)[1]: np.array(ops.convert_to_numpy(v))
        for v in model.variables
    }


def weight(model, name):
    """The weight of the injection whose path has this in it."""
    (found,) = [v for path, v in weights(model).items() if name in path]
    return found


def channels_last(x, axis):
    return np.moveaxis(x, axis, -1)


def merged(model, merge, x, f):
    """The table in merging.py, in NumPy, channels last."""
    if f.ndim < x.ndim:
        f = f.reshape(len(f), *[1] * (x.ndim - 2), -1)
    same = f.shape[-1] == x.shape[-1]
    if merge in ("add", "multiply"):
        kernel = weight(model, "gate" if same else "projection")
        g = f * kernel if same else f @ kernel
        return x + g if merge == "add" else x * (1 + g)
    if merge == "film":
        s, t = weight(model, "scaling"), weight(model, "shifting")
        return x * (1 + f @ s) + f @ t
    if merge == "concat":
        own, side = weight(model, "own"), weight(model, "projection")
        joined = np.concatenate(
            [x, np.broadcast_to(f, (*x.shape[:-1], f.shape[-1]))], -1
        )
        return x + joined @ np.concatenate([own, side])
    return f


def answer(model, x):
    """The expert's answer for its inner layer's tensor."""
    found = weights(model)
    pooled = x.reshape(len(x), -1, x.shape[-1]).mean(1)
    return pooled @ found["out/kernel"] + found["out/bias"]


def randomise(model):
    for variable in model.variables:
        variable.assign(RNG.normal(size=variable.shape))


def call(model, *args, **kwargs):
    return keras.tree.map_structure(
        ops.convert_to_numpy, model(*args, **kwargs)
    )
