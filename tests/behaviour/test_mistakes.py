"""Tests the mistakes of new users: each is told before the first step.

The table is the documentation: what was tried, and what the message says.
"""

from functools import cache

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(20, 6, 6, 3)).astype("float32")
Y = np.arange(20) % 10
SIDE = RNG.normal(size=(20, 2)).astype("float32")
ONE_HOT = np.eye(10, dtype="float32")[Y]
SPARSE = "sparse_categorical_crossentropy"


def network(channels=3):
    images = keras.Input((6, 6, channels), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv1")(images)
    x = layers.Conv2D(5, 3, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, x, name="eye")


@cache
def plain():
    return build()


@cache
def with_side():
    return build(extra_inputs={"side": (2,)})


def build(loss=SPARSE, head=10, metrics=None, upstream=None, **arguments):
    return kc.build_cascade(
        network() if upstream is None else upstream,
        head=head,
        loss=loss,
        metrics=metrics,
        **arguments,
    )


def pca():
    return build(adapters=kc.adapters.PCAAdapter(2))


def two_heads(**arguments):
    losses = {"kind": SPARSE, "size": "mse"}
    heads = {"kind": 10, "size": layers.Dense(1)}
    return build(**{"loss": losses, "head": heads, **arguments})


def fit(cascade, *data, **arguments):
    return cascade.fit(*data, verbose=0, **arguments)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.samples = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(10 * index, 10 * index + 10)
        return tuple(part[rows] for part in self.samples)


# The mistake, what is done, and words of the message in their order.
MISTAKES = {
    "text as a tap of another network": (
        lambda: build(taps=network().get_layer("conv2")),
        ["conv2", "none of the networks", "'eye'", "give its path", "'conv2'"],
    ),
    "a tap counted from the start": (
        lambda: build(taps=3),
        ["taps must be", "received 3"],
    ),
    "a sequence as an extra input": (
        lambda: build(extra_inputs={"m": (None, 2)}),
        ["'m' (None, 2)", "adapters={'m': 'auto'}", "{'m': (2,)}"],
    ),
    "the name of a layer without its block": (
        lambda: plain().get_layer("conv2"),
        ["'conv2'", "matches nothing", "Closest: 'upstream/conv2'"],
    ),
    "a misspelt block": (
        lambda: plain().blocks["upstrem"],
        ["no block 'upstrem'", "Closest: 'upstream'"],
    ),
    "a layer of the network in place of its copy": (
        lambda: plain().block_of(network().get_layer("conv1")),
        ["in no block", "copies of the networks", "get_layer("],
    ),
    "a number as labels of adapt": (
        lambda: pca().adapt(X, 32),
        ["y are labels", "received 32", "batch_size=32"],
    ),
    "a call before adapt": (
        lambda: pca()(X),
        ["'adapters/output'", "cascade.adapt(data) before calling"],
    ),
    "grey images": (
        lambda: fit(plain(), X[..., :1], Y),
        ["'inputs'", "(6, 6, 1)", "(6, 6, 3)", "np.repeat(x, 3, -1)"],
    ),
    "grey images without an axis of channels": (
        lambda: fit(plain(), X[..., 0], Y),
        ["(6, 6)", "(6, 6, 3)", "np.repeat(np.expand_dims(x, -1), 3, -1)"],
    ),
    "grey images, predicted": (
        lambda: plain().predict(X[..., :1], verbose=0),
        ["(6, 6, 1)", "np.repeat(x, 3, -1)"],
    ),
    "grey images, called": (
        lambda: plain()(X[..., :1]),
        ["(6, 6, 1)", "np.repeat(x, 3, -1)"],
    ),
    "grey images, validated": (
        lambda: fit(plain(), X, Y, validation_data=(X[..., :1], Y)),
        ["(6, 6, 1)", "np.repeat(x, 3, -1)"],
    ),
    "grey images, cached": (
        lambda: fit(plain(), X[..., :1], Y, cache_features=True),
        ["(6, 6, 1)", "np.repeat(x, 3, -1)"],
    ),
    "colours for a grey network": (
        lambda: fit(build(upstream=network(1)), X, Y),
        ["(6, 6, 3)", "(6, 6, 1)", "x.mean(-1, keepdims=True)"],
    ),
    "images with opacity": (
        lambda: plain()(np.concatenate([X, X[..., :1]], axis=-1)),
        ["(6, 6, 4)", "opacity", "x[..., :3]"],
    ),
    "channels first": (
        lambda: plain()(np.moveaxis(X, -1, 1)),
        ["(3, 6, 6)", "channels come first", "np.moveaxis(x, 1, -1)"],
    ),
    "one image": (
        lambda: plain()(X[0]),
        ["takes (6, 6, 3)", "one sample", "x[None]"],
    ),
    "images of another size": (
        lambda: plain()(np.zeros((2, 8, 8, 3))),
        ["(8, 8, 3)", "(6, 6, 3)", "keras.layers.Resizing"],
    ),
    "lists in another order": (
        lambda: fit(with_side(), [SIDE, X], Y),
        ["'inputs'", "(2,)", "come in the order 'inputs', 'side'"],
    ),
    "one array for two inputs": (
        lambda: fit(with_side(), X, Y),
        ["'inputs', 'side'", "1 arrays without names", "dict"],
    ),
    "a misspelt key": (
        lambda: fit(with_side(), {"inputs": X, "sides": SIDE}, Y),
        ["'sides'", "lacks 'side'"],
    ),
    "a tuple in place of x and y": (
        lambda: fit(plain(), (X, Y)),
        ["tuple of 2", "fit(x, y)"],
    ),
    "a tuple to predict": (
        lambda: plain().predict((X, Y), verbose=0),
        ["tuple of 2", "predict(x)"],
    ),
    "a list of numbers": (
        lambda: fit(plain(), X, Y.tolist()),
        ["y is a list of numbers", "np.asarray(y)"],
    ),
    "nested lists": (
        lambda: fit(plain(), X.tolist(), Y),
        ["x is a list of numbers", "np.asarray(x)"],
    ),
    "no samples": (
        lambda: fit(plain(), X[:0], Y[:0]),
        ["empty", "no rows"],
    ),
    "no labels": (
        lambda: fit(plain(), X),
        ["fit have no labels", f"'{SPARSE}'", "Pass them as y"],
    ),
    "no labels of validation": (
        lambda: fit(plain(), X, Y, validation_data=X),
        ["validation_data have no labels", f"'{SPARSE}'"],
    ),
    "labels that are text": (
        lambda: fit(plain(), X, np.array(["cat", "dog"] * 10)),
        ["labels y are of dtype <U3", "np.unique(y, return_inverse=True)"],
    ),
    "labels that are objects": (
        lambda: fit(plain(), X, Y.astype(object)),
        ["labels y are of dtype object", "y.astype('float32')"],
    ),
    "one-hot labels with a sparse loss": (
        lambda: fit(plain(), X, ONE_HOT),
        ["(batch, 10)", "one-hot", f"'{SPARSE}'", "y.argmax(-1)"],
    ),
    "one-hot labels in batches": (
        lambda: fit(plain(), Batches(X, ONE_HOT)),
        ["(batch, 10)", "one-hot", f"'{SPARSE}'", "y.argmax(-1)"],
    ),
    "one-hot labels, evaluated": (
        lambda: plain().evaluate(X, ONE_HOT, verbose=0),
        ["(batch, 10)", "one-hot", f"'{SPARSE}'", "y.argmax(-1)"],
    ),
    "one-hot labels, on a batch": (
        lambda: plain().train_on_batch(X, ONE_HOT),
        ["(batch, 10)", "one-hot", f"'{SPARSE}'", "y.argmax(-1)"],
    ),
    "one-hot labels, validated": (
        lambda: fit(plain(), X, Y, validation_data=(X, ONE_HOT)),
        ["(batch, 10)", "one-hot", f"'{SPARSE}'", "y.argmax(-1)"],
    ),
    "class numbers with a one-hot loss": (
        lambda: fit(build("categorical_crossentropy"), X, Y),
        ["(batch,)", "one-hot rows, (batch, 10)", f"'{SPARSE}'"],
    ),
    "labels 1 to 10 of 10 classes": (
        lambda: fit(plain(), X, Y + 1),
        ["from 1 to 10", "10 classes", "from 0 to 9", "y - 1"],
    ),
    "labels 1 to 10 in batches": (
        lambda: fit(plain(), Batches(X, Y + 1)),
        ["from 1 to 10", "10 classes", "y - 1"],
    ),
    "labels 1 to 10, cached": (
        lambda: fit(plain(), X, Y + 1, cache_features=True),
        ["from 1 to 10", "10 classes", "y - 1"],
    ),
    "labels 1 to 10 in batches, cached": (
        lambda: fit(plain(), Batches(X, Y + 1), cache_features=True),
        ["from 1 to 10", "10 classes", "y - 1"],
    ),
    "labels 1 to 10, staged": (
        lambda: fit(plain(), X, Y + 1, epochs=2, unfreeze={1: "upstream"}),
        ["from 1 to 10", "10 classes", "y - 1"],
    ),
    "labels 1 to 10, evaluated": (
        lambda: plain().evaluate(X, Y + 1, verbose=0),
        ["from 1 to 10", "10 classes", "y - 1"],
    ),
    "a head that is too narrow": (
        lambda: fit(build(head=8), X, Y),
        ["from 0 to 9", "8 classes", "head=10"],
    ),
    "labels that mean nothing": (
        lambda: fit(plain(), X, Y - 1),
        ["from -1 to 8", "y + 1", "ignore_class=-1"],
    ),
    "labels between classes": (
        lambda: fit(plain(), X, Y + 0.5),
        ["such as 0.5", "whole", "loss='mse'"],
    ),
    "a sparse loss on one output": (
        lambda: fit(build(head=1), X, Y % 2),
        ["a single value", "loss='binary_crossentropy'"],
    ),
    "ten classes with a binary loss": (
        lambda: fit(build("binary_crossentropy", 1), X, Y),
        ["in [0, 9]", "from 0 to 1", f"'{SPARSE}'"],
    ),
    "one-hot labels of another width": (
        lambda: fit(build("categorical_crossentropy", 5), X, ONE_HOT),
        ["(batch, 10)", "(batch, 5)", "head=10"],
    ),
    "numbers for an output of ten": (
        lambda: fit(build("mse"), X, Y),
        ["(batch,)", "'mse'", "(batch, 10)"],
    ),
    "labels that are not finite": (
        lambda: fit(build("mse", 1), X, np.where(Y > 7, np.nan, Y)),
        ["4 values that are not finite", "np.isfinite(y)"],
    ),
    "one array of labels for two heads": (
        lambda: fit(two_heads(), X, Y),
        ["outputs 'kind', 'size'", "one array", "dict"],
    ),
    "a misspelt head in the labels": (
        lambda: fit(two_heads(), X, {"kin": Y, "size": Y}),
        ["lack 'kind'", "'kin', 'size'"],
    ),
    "a misspelt loss": (
        lambda: build("sparse_categorical_cross_entropy"),
        ["loss", "'sparse_categorical_cross_entropy'", f"'{SPARSE}'"],
    ),
    "a misspelt metric": (
        lambda: build(metrics=["acuracy"]),
        ["metrics", "'acuracy'", "Closest: 'accuracy'"],
    ),
    "a misspelt optimizer": (
        lambda: build(optimizer="adamm"),
        ["optimizer", "'adamm'", "'Adam'"],
    ),
    "a misspelt head in the losses": (
        lambda: two_heads(loss={"kin": SPARSE, "size": "mse"}),
        ["loss names 'kin'", "Closest: 'kind'"],
    ),
    "a misspelt head in the metrics": (
        lambda: two_heads(metrics={"kin": ["accuracy"]}),
        ["metrics names 'kin'", "Closest: 'kind'"],
    ),
    "one list of metrics for two heads": (
        lambda: two_heads(metrics=["accuracy"]),
        ["list of 1", "2 outputs", "{'kind': ['accuracy']}"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained_before_the_first_step(mistake):
    run, expected = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError, KeyError)) as caught:
        run()
    message = str(caught.value)
    at = 0
    for words in expected:
        assert words in message[at:], message
        at = message.index(words, at)
    assert "\n" not in message


SAME_AS = {
    "-1": lambda net: -1,
    "a layer": lambda net: net.get_layer("pool"),
    "an output": lambda net: net.get_layer("pool").output,
    "the network's output": lambda net: net.output,
    "a list": lambda net: [net.get_layer("pool")],
    "a mapping": lambda net: {"pool": net.get_layer("pool").output},
}


@pytest.mark.parametrize("form", SAME_AS)
def test_a_tap_may_be_a_number_a_layer_or_its_output(form):
    net = network()
    cascade = kc.build_cascade(net, taps=SAME_AS[form](net), adapters=None)
    assert list(cascade.taps.values()) == ["pool"]
    found = keras.tree.flatten(cascade.predict(X, verbose=0))[0]
    expected = net.predict(X, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_layers_of_several_upstreams_are_told_apart():
    first, second = network(), network(1)
    tap = second.get_layer("conv1")
    taps = {"a": first.get_layer("conv1").output, "b": tap}
    cascade = kc.build_cascade({"a": first, "b": second}, taps=taps, head=2)
    assert cascade.taps == {"a": "a/conv1", "b": "b/conv1"}


def test_a_layer_that_is_called_twice_has_to_be_named():
    layer = layers.Dense(3, name="twice")
    inputs = keras.Input((3,))
    middle = layer(inputs)
    net = keras.Model(inputs, layer(middle))
    with pytest.raises(ValueError, match=r"called 2 times.*'twice:0', 't"):
        kc.build_cascade(net, taps=layer)
    cascade = kc.build_cascade(net, taps=middle)
    assert list(cascade.taps.values()) == ["twice:0"]


def test_adapt_and_the_range_test_take_x_and_y_apart():
    cascade = pca()
    found, expected = [], []
    for data, results in (((X, Y), found), (((X, Y),), expected)):
        cascade.adapt(*data, verbose=False)
        tests = kc.find_learning_rates(
            cascade, *data, steps=20, blocks="head", verbose=False
        ).tests
        mean = cascade.adapters["output"].weights[0]
        results += [keras.ops.convert_to_numpy(mean), tests["head"].losses]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_superfluous_key_is_said_once_and_not_read():
    cascade = with_side()
    data = {"inputs": X, "side": SIDE, "more": Y}
    with pytest.warns(UserWarning, match="'more'.*does not read") as caught:
        found = cascade.predict(data, verbose=0)
        cascade.predict(data, verbose=0)
    told = [x for x in caught if "structure" in str(x.message)]
    assert len([x for x in caught if x.category is UserWarning]) == 1
    assert not told
    expected = cascade.predict({"inputs": X, "side": SIDE}, verbose=0)
    np.testing.assert_array_equal(found, expected)


def test_a_list_is_taken_in_the_order_of_the_inputs():
    cascade = with_side()
    found = cascade.predict([X, SIDE], verbose=0)
    expected = cascade.predict({"inputs": X, "side": SIDE}, verbose=0)
    np.testing.assert_array_equal(found, expected)
