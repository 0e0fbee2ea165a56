"""Tests networks and layers that are shared: one object stays one."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.testing import check_cascade

ROLES = ("anchor", "positive", "negative")
BLOCK = "anchor-positive-negative"
INPUTS = {role: f"{role}_x" for role in ROLES}
RNG = np.random.default_rng(0)
DATA = {x: RNG.normal(size=(8, 6)).astype("float32") for x in INPUTS.values()}
X = DATA["anchor_x"]
Y = RNG.normal(size=(8, 2)).astype("float32")


def face():
    x = keras.Input((6,), name="x")
    y = layers.Dense(6, activation="tanh", name="h")(x)
    return keras.Model(x, layers.Dense(6, name="out")(y), name="face")


def siamese(network, **arguments):
    upstream = dict.fromkeys(ROLES, network)
    arguments = {"trainable": True, "copy": True, **arguments}
    return kc.build_cascade(upstream, inputs=INPUTS, **arguments)


def stock(network):
    """Returns the siamese model as Keras's own users write it."""
    given = {x: keras.Input((6,), name=x) for x in INPUTS.values()}
    return keras.Model(
        given, layers.Concatenate()([network(x) for x in given.values()])
    )


def reload(cascade, tmp_path):
    cascade.save(tmp_path / "cascade.keras")
    return keras.saving.load_model(tmp_path / "cascade.keras")


def same(one, other):
    pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def paths(weights):
    return [weight.path for weight in weights]


def test_a_network_given_several_times_is_one_block():
    network = face()
    cascade = siamese(network)
    assert list(cascade.blocks) == [BLOCK, "fusion"]
    for role in ROLES:
        assert cascade.blocks[role] is cascade.blocks[BLOCK]
        assert role in cascade.blocks
        assert cascade.blocks.get(role) is cascade.blocks[BLOCK]
    assert "fourth" not in cascade.blocks
    assert cascade.blocks.get("fourth") is None
    assert paths(cascade.weights) == [
        f"{BLOCK}/{path}"
        for path in ("h/kernel", "h/bias", "out/kernel", "out/bias")
    ]
    found = []
    cascade.summary(print_fn=found.append)
    assert "one network for 'anchor', 'positive', 'negative'" in found[0]
    check_cascade(cascade, DATA)


@pytest.mark.parametrize("copy", [True, False])
def test_it_trains_saves_and_loads_as_in_stock_keras(copy, tmp_path):
    network, twin = face(), face()
    twin.set_weights(network.get_weights())
    cascade, expected = siamese(network, copy=copy), stock(twin)
    y = np.tile(Y, 9)
    for model in (cascade, expected):
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(DATA, y, epochs=2, shuffle=False, verbose=0)
    same(cascade.get_weights(), twin.get_weights())
    again = reload(cascade, tmp_path)
    assert len(again.weights) == 4
    assert again.blocks["anchor"] is again.blocks["negative"]
    for model in (again, again.rebuild(), expected):
        same(cascade.predict(DATA, verbose=0), model.predict(DATA, verbose=0))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(DATA, y, shuffle=False, verbose=0)
    same(again.get_weights(), twin.get_weights())
    cascade = again
    cascade.to_plain().save(tmp_path / "plain.keras")
    plain = keras.saving.load_model(tmp_path / "plain.keras")
    assert len(plain.weights) == 4
    same(plain.predict(DATA, verbose=0), cascade.predict(DATA, verbose=0))


def test_each_upstream_is_tapped_where_it_is_asked_to_be():
    network = face()
    taps = {"a": "anchor/h", "p": "positive/out", "n": "negative/h"}
    cascade = siamese(network, taps=taps, adapters=None, fusion=None)
    inner = keras.Model(network.input, network.get_layer("h").output)
    found = cascade.predict(DATA, verbose=0)
    same(found["a"], ops.convert_to_numpy(inner(DATA["anchor_x"])))
    same(found["p"], ops.convert_to_numpy(network(DATA["positive_x"])))
    same(found["n"], ops.convert_to_numpy(inner(DATA["negative_x"])))
    rebuilt = cascade.rebuild(taps={"a": "anchor/out", "p": "positive/out",
                                    "n": "negative/out"})  # fmt: skip
    found = rebuilt.predict(DATA, verbose=0)
    same(found["a"], ops.convert_to_numpy(network(DATA["anchor_x"])))


@pytest.mark.parametrize(
    ("trainable", "trained"),
    [
        (None, []),
        ({"upstream/out": True}, ["out"]),
        ({"positive/h": True}, ["h"]),
        ({"pos*/h": True, "neg*/o*": True}, ["h", "out"]),
        ({f"{BLOCK}/h": True}, ["h"]),
        ({"anchor": True, "negative/out": False}, ["h"]),
    ],
)
def test_flags_of_one_name_are_those_of_all(trainable, trained, tmp_path):
    cascade = siamese(face(), trainable=trainable, head=2, loss="mse")
    for model in (cascade, reload(cascade, tmp_path)):
        found = paths(model.blocks["anchor"].trainable_weights)
        assert [p.split("/")[1] for p in found[::2]] == trained


def test_names_of_one_network_that_contradict_each_other_are_an_error():
    with pytest.raises(ValueError, match="'anchor' changes nothing"):
        siamese(face(), trainable={"anchor": True, "positive": False})
    with pytest.raises(ValueError, match="'anchor', 'positive', 'negative'"):
        siamese(face(), trainable={"fourth": True})


def test_rates_stages_and_retention_take_the_name_of_any_upstream():
    cascade = siamese(
        face(),
        trainable=None,
        head=2,
        loss="mse",
        learning_rates={"positive": 1e-5},
        retention={"negative": kc.L2SP(0.1)},
    )
    drift = kc.DriftMonitor(DATA)
    stages = {1: "anchor/out"}
    log = cascade.fit(
        DATA, Y, epochs=2, unfreeze=stages, callbacks=[drift], verbose=0
    ).history
    assert cascade.learning_rates()[f"{BLOCK}/out/kernel"] == pytest.approx(
        1e-5
    )
    assert log[f"drift/{BLOCK}"][0] == 0 < log[f"drift/{BLOCK}"][1]
    assert {"cka/output", "cka/output_1", "cka/output_2"} <= set(log)


def test_rates_decay_in_a_network_that_is_called_several_times():
    decay = kc.LayerwiseDecay(1e-3, 0.5)
    cascade = siamese(face(), loss="mse", learning_rates={"anchor": decay})
    found = cascade.learning_rates()
    assert found[f"{BLOCK}/out/kernel"] == pytest.approx(1e-3)
    assert found[f"{BLOCK}/h/kernel"] == pytest.approx(5e-4)


def test_retention_is_rebuilt_for_a_network_that_still_exists():
    network = face()
    rebuilt = siamese(network).rebuild(retention={"anchor": kc.L2SP(0.1)})
    assert rebuilt.blocks["anchor"] is rebuilt.blocks["positive"]
    assert list(rebuilt.spec.retention) == ["anchor"]


def test_drift_compares_each_tap_on_the_inputs_of_its_upstream():
    cascade = siamese(face(), loss="mse")
    data = {**DATA, "negative_x": np.zeros_like(X)}
    drift = kc.DriftMonitor(data)
    log = cascade.fit(data, np.tile(Y, 9), callbacks=[drift], verbose=0).history
    # The representations of equal rows have no similarity.
    assert np.isnan(log["cka/output_2"][0])
    assert log["cka/output"][0] == pytest.approx(1, abs=1e-2)


def test_old_outputs_are_distilled_on_the_inputs_of_all_upstreams():
    x = keras.Input((6,))
    network = keras.Model(x, layers.Dense(3, activation="softmax")(x))
    cascade = siamese(
        network, retention={"anchor": kc.LwF(1.0)}, head=2, loss="mse"
    )
    kernel = cascade.blocks["anchor"].weights[0]
    kernel.assign(kernel + RNG.normal(size=kernel.shape))
    total, loss = cascade.evaluate(DATA, Y, verbose=0)[:2]
    plain = np.mean((cascade.predict(DATA, verbose=0) - Y) ** 2)
    found = []
    for given in DATA.values():
        alone = kc.build_cascade(
            network,
            trainable=True,
            retention={"upstream": kc.LwF(1.0)},
            head=2,
            loss="mse",
        )
        value = ops.convert_to_numpy(kernel)
        alone.blocks["upstream"].weights[0].assign(value)
        found.append(alone.evaluate(given, Y, verbose=0)[1])
    assert loss == pytest.approx(np.mean(found), rel=1e-4)
    assert total == pytest.approx(plain + loss, rel=1e-4)


def test_low_rank_updates_and_cached_features_of_one_network(tmp_path):
    lora = {"anchor/out": kc.LoRA(2)}
    live = siamese(face(), trainable=lora, head=2, loss="mse")
    cached = reload(live, tmp_path)
    logs = [
        model.fit(
            DATA, Y, epochs=3, shuffle=False, verbose=0, cache_features=cache
        ).history["loss"]
        for model, cache in ((live, False), (cached, True))
    ]
    same(*logs)
    again = reload(cached, tmp_path)
    same(again.predict(DATA, verbose=0), cached.predict(DATA, verbose=0))


def test_two_objects_are_two_networks():
    network = face()
    twin = keras.models.clone_model(network)
    cascade = kc.build_cascade({"a": network, "b": twin}, loss="mse")
    assert list(cascade.blocks) == ["a", "b", "fusion"]
    assert len(cascade.weights) == 8


def test_inputs_and_preprocessing_of_each_upstream_are_its_own():
    network = face()
    cascade = siamese(
        network,
        preprocess={"anchor": layers.Rescaling(2.0)},
        adapters=None,
        fusion=None,
    )
    found = list(cascade.predict(DATA, verbose=0).values())
    same(found[0], network.predict(2 * DATA["anchor_x"], verbose=0))
    same(found[1], network.predict(DATA["positive_x"], verbose=0))


# --- An upstream that is the downstream, too ------------------------------


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("tap", ["out", "h"])
def test_an_upstream_that_is_the_downstream_trains_as_one(copy, tap, tmp_path):
    network, twin = face(), face()
    twin.set_weights(network.get_weights())
    cascade = kc.build_cascade(
        network, network, taps=tap, adapters=None, trainable=True, copy=copy
    )
    inner = keras.Model(twin.input, twin.get_layer(tap).output)
    expected = keras.Model(twin.input, twin(inner(twin.input)))
    for model in (cascade, expected):
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(X, np.tile(Y, 3), epochs=2, shuffle=False, verbose=0)
    again = reload(cascade, tmp_path)
    cascade.to_plain().save(tmp_path / "plain.keras")
    plain = keras.saving.load_model(tmp_path / "plain.keras")
    for model in (cascade, again, again.rebuild(), plain):
        assert len(model.weights) == 4
        same(
            model.predict(X, verbose=0),
            expected.predict(X, verbose=0),
        )
    found = []
    cascade.summary(print_fn=found.append)
    assert "shares layers" in found[0]


@pytest.mark.parametrize(
    "arguments",
    [{"inject": {"h": "h"}}, {"downstream_input": "both", "adapters": "auto"}],
    ids=["injected", "joined"],
)
@pytest.mark.parametrize("copy", [True, False])
def test_a_downstream_that_features_enter_is_another(copy, arguments, tmp_path):
    network = face()
    build = lambda: kc.build_cascade(  # noqa: E731
        network, network, taps="h", trainable=True, copy=copy, loss="mse",
        **{"adapters": None, **arguments},
    )  # fmt: skip
    if copy:
        with pytest.warns(UserWarning, match="train apart"):
            cascade = build()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            cascade = build()
    cascade.fit(X, np.tile(Y, 3), verbose=0)
    again = reload(cascade, tmp_path)
    same(again.predict(X, verbose=0), cascade.predict(X, verbose=0))
    assert len(again.weights) == len(cascade.weights)
    for model in (cascade, again):
        model.fit(X, np.tile(Y, 3), shuffle=False, verbose=0)
    same(again.predict(X, verbose=0), cascade.predict(X, verbose=0))
    assert not again.rebuild().spec.reinitialized


def test_networks_that_share_layers_share_them_in_the_cascade(tmp_path):
    network = face()
    part = keras.Model(network.input, network.get_layer("h").output)
    cascade = kc.build_cascade(
        {"whole": network, "part": part},
        adapters=None,
        trainable={"part": True},
        loss="mse",
    )
    assert paths(cascade.trainable_weights) == [
        "whole/h/kernel",
        "whole/h/bias",
    ]
    again = reload(cascade, tmp_path)
    for model in (cascade, again):
        model.fit(X, np.tile(Y, 6), shuffle=False, verbose=0)
        assert len(model.weights) == 4
    same(again.predict(X, verbose=0), cascade.predict(X, verbose=0))


def test_a_shared_layer_that_keras_numbers_differently_is_an_error():
    x = keras.Input((6,))
    first, second = layers.Dense(6), layers.Dense(6)
    whole = keras.Model(x, second(first(x)))
    part = keras.Model(x, second(x))
    with pytest.raises(ValueError, match="'dense_1' in the one and 'dense' in"):
        kc.build_cascade({"whole": whole, "part": part})


# --- Layers that nested networks share ------------------------------------


def _two_with_a_layer():
    shared, parts = layers.Dense(6), []
    for name in "ab":
        x = keras.Input((6,))
        y = layers.Dense(6)(x) if name == "b" else x
        parts.append(keras.Model(x, layers.Dense(3)(shared(y)), name=name))
    x = keras.Input((6,))
    return keras.Model(x, layers.Concatenate()([part(x) for part in parts]))


def _two_with_a_network():
    inner, parts = face(), []
    for name in "ab":
        x = keras.Input((6,))
        parts.append(keras.Model(x, layers.Dense(3)(inner(x)), name=name))
    x = keras.Input((6,))
    return keras.Model(x, layers.Concatenate()([part(x) for part in parts]))


def _inside_and_outside():
    shared = layers.Dense(6)
    x = keras.Input((6,))
    inner = keras.Model(x, shared(x), name="inner")
    return keras.Model(x, shared(inner(shared(x))))


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "make", [_two_with_a_layer, _two_with_a_network, _inside_and_outside]
)
def test_layers_that_nested_networks_share(make, copy, tmp_path):
    network = make()
    cascade = kc.build_cascade(network, adapters=None, copy=copy)
    found = paths(cascade.weights)
    if copy:
        assert len(set(found)) == len(network.weights)
        assert all(path.startswith("upstream/") for path in found)
        assert max(map(len, found)) < 40
    cascade.to_plain().save(tmp_path / "plain.keras")
    again = reload(cascade, tmp_path)
    clone = kc.Cascade.from_config(cascade.get_config())
    clone.set_weights(cascade.get_weights())
    plain = keras.saving.load_model(tmp_path / "plain.keras")
    for model in (cascade, again, clone, again.rebuild(), plain):
        assert len(model.weights) == len(network.weights)
        same(model.predict(X, verbose=0), network.predict(X, verbose=0))
    assert not copy or paths(again.weights) == found


def test_a_shared_network_may_be_tapped_in_one_of_those_that_contain_it():
    network = _two_with_a_network()
    inner = network.get_layer("a").get_layer("face")
    taps = {"inside": "a/face/h", "out": "b"}
    cascade = kc.build_cascade(network, taps=taps, adapters=None, fusion=None)
    found = cascade.predict(X, verbose=0)
    hidden = keras.Model(inner.input, inner.get_layer("h").output)
    same(found["inside"], hidden.predict(X, verbose=0))
    same(found["out"], network.get_layer("b").predict(X, verbose=0))
