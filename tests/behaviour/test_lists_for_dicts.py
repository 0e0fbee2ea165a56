"""Tests arrays without names for networks whose inputs are a dict."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 8, 3)).astype("float32")
Y = RNG.normal(size=(8, 2)).astype("float32")
REFUSED = r"sorted order|doesn't match the expected structure"
LIST, DICT = [A, B], {"IT": A, "IS": B}


def network(first="IT", second="IS", kind=dict):
    inputs = {name: keras.Input((3,), name=name) for name in (first, second)}
    x = layers.Subtract()(list(inputs.values()))
    x = layers.Dense(3, kernel_initializer="identity", name="same")(x)
    given = inputs if kind is dict else list(inputs.values())
    return keras.Model(given, x, name="difference")


# For each test: a predict that fails on JAX leaves a model without weights.
@pytest.fixture
def cascade():
    built = kc.build_cascade(
        network(),
        adapters=kc.adapters.PCAAdapter(1),
        head=2,
        loss="mse",
        trainable=True,
    )
    return built.adapt(DICT, verbose=False)


def upstreams(*networks, **arguments):
    names = dict(zip("ab", networks, strict=True))
    return kc.build_cascade(names, adapters=None, **arguments)


ENTRIES = {
    "call": lambda c, path: c(LIST),
    "tuple": lambda c, path: c(tuple(LIST)),
    "predict": lambda c, path: c.predict(LIST, verbose=0),
    "predict cached": lambda c, path: c.predict(
        LIST, cache_features=True, verbose=0
    ),
    "predict_on_batch": lambda c, path: c.predict_on_batch(LIST),
    "fit": lambda c, path: c.fit(LIST, Y, verbose=0),
    "fit cached": lambda c, path: c.fit(
        LIST, Y, cache_features=True, verbose=0
    ),
    "validation": lambda c, path: c.fit(
        DICT, Y, validation_data=(LIST, Y), cache_features=True, verbose=0
    ),
    "evaluate": lambda c, path: c.evaluate(LIST, Y, verbose=0),
    "train_on_batch": lambda c, path: c.train_on_batch(LIST, Y),
    "adapt": lambda c, path: c.adapt(LIST, verbose=False),
    "batches": lambda c, path: c.adapt(iter([(LIST, Y)]), verbose=False),
    "range test": lambda c, path: kc.find_learning_rates(c, (LIST, Y)),
    "drift": lambda c, path: c.fit(
        DICT, Y, callbacks=[kc.DriftMonitor(LIST)], verbose=0
    ),
    "old task": lambda c, path: c.fit(
        DICT,
        Y,
        callbacks=[
            kc.DriftMonitor(
                DICT,
                old_task=(LIST, A),
                metric="mse",
                pretrained={"upstream": network()},
            )
        ],
        verbose=0,
    ),
    "export": lambda c, path: kc.export(
        c, path / "c.keras", check_data=LIST, verbose=False
    ),
    "plain": lambda c, path: c.to_plain()(LIST),
    "block": lambda c, path: c.blocks["upstream"](LIST),
    "rebuilt": lambda c, path: c.rebuild()(LIST),
    "frozen part": lambda c, path: kc.split(c.rebuild(trainable=None))[0](LIST),
    "EWC": lambda c, path: kc.build_cascade(
        network(), trainable=True, retention={"upstream": kc.EWC(1.0, LIST)}
    ),
    "interface": lambda c, path: kc.check_interface(network(), data=LIST),
    "truncated": lambda c, path: kc.truncate(network(), "same")(LIST),
    "two upstreams": lambda c, path: upstreams(network(), network())(LIST),
    "shared by names": lambda c, path: upstreams(
        network(),
        network("b", "a"),
        inputs={"b": {"b": "IT", "a": "IS"}},
    )(LIST),
    "downstream": lambda c, path: kc.build_cascade(
        network(),
        network(),
        downstream_input="inputs",
        inject={"output": "same"},
        copy=False,
    )(LIST),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_list_is_refused_where_keras_refuses_it(entry, cascade, tmp_path):
    with pytest.raises(ValueError, match=REFUSED):
        ENTRIES[entry](cascade, tmp_path)


def test_a_loaded_cascade_refuses_it_too(cascade, tmp_path):
    cascade.save(tmp_path / "c.keras")
    again = keras.saving.load_model(tmp_path / "c.keras")
    with pytest.raises(ValueError, match="sorted order"):
        again.adapt(LIST, verbose=False)
    with pytest.raises(ValueError, match="doesn't match the expected"):
        again.predict(LIST, verbose=0)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (network, DICT),
        (lambda: network("IS", "IT"), LIST),
        (lambda: network("IS", "IT", list), LIST),
        (lambda: network("IS", "IT", list), {"IS": A, "IT": B}),
    ],
    ids=["dict", "sorted dict", "list", "list by name"],
)
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_what_keras_takes_is_taken(make, given):
    cascade = kc.build_cascade(make(), adapters=None)
    expected = make().predict(given, verbose=0)
    np.testing.assert_allclose(expected, A - B, atol=1e-6)
    for found in (cascade.predict(given, verbose=0), cascade(given)):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(found), expected, atol=1e-6
        )


def test_names_in_sorted_order_are_taken_in_the_order_of_the_network():
    names = {"upstream": {"IT": "first", "IS": "second"}}
    cascade = kc.build_cascade(network(), adapters=None, inputs=names)
    assert [x.name for x in cascade.inputs] == ["first", "second"]
    found = cascade.predict(LIST, verbose=0)
    np.testing.assert_allclose(found, A - B, atol=1e-6)
