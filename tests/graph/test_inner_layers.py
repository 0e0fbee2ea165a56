"""Layers inside wrappers have paths for flags and rates."""

import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers


def steps():
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(2, 3, name="c1")(image)
    x = layers.Conv2D(2, 3, name="c2")(x)
    cnn = keras.Model(image, layers.Flatten()(x), name="cnn")
    video = keras.Input((2, 6, 6, 3))
    return keras.Model(video, layers.TimeDistributed(cnn, name="td")(video))


def both_ways():
    inputs = keras.Input((3, 4))
    layer = layers.Bidirectional(layers.LSTM(2, name="lstm"), name="both")
    return keras.Model(inputs, layer(inputs))


def attending():
    inputs = keras.Input((3, 4))
    layer = layers.MultiHeadAttention(1, 2, name="mha")
    return keras.Model(inputs, layer(inputs, inputs))


CASES = {
    "td/cnn/c2": (steps, ("c2/kernel", "c2/bias")),
    "td/**/c2": (steps, ("c2/kernel", "c2/bias")),
    "both/forward_lstm": (both_ways, ("forward_lstm/",)),
    "mha/query": (attending, ("query/kernel", "query/bias")),
}


@pytest.mark.parametrize("pattern", CASES)
def test_a_layer_inside_trains_alone_also_after_loading(pattern, tmp_path):
    make, expected = CASES[pattern]
    network = make()
    path = f"upstream/{pattern}"
    options = {"trainable": {path: True}, "learning_rates": {path: 1e-2}}
    cascade = kc.build_cascade(network, head=2, loss="mse", **options)
    x = np.random.default_rng(0).normal(size=(4, *network.input_shape[1:]))
    x, y = x.astype("float32"), np.ones((4, 2))
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    for model in (cascade, again, again.rebuild()):
        before = {v.path: to_numpy(v) for v in model.variables}
        model.fit(x, y, verbose=0)
        moved = [
            v.path
            for v in model.blocks["upstream"].weights
            if not np.array_equal(to_numpy(v), before[v.path])
        ]
        assert moved
        assert all(any(part in p for part in expected) for p in moved)
        rates = model.learning_rates()
        assert {round(rates[path], 6) for path in moved} == {1e-2}


def to_numpy(value):
    return np.array(keras.ops.convert_to_numpy(value))


def test_stages_freezing_and_thawing_reach_inside():
    cascade = kc.build_cascade(steps(), head=2, loss="mse")
    x, y = np.ones((4, 2, 6, 6, 3), "float32"), np.ones((4, 2))
    cascade.fit(x, y, epochs=2, unfreeze={1: "upstream/td/cnn/c2"}, verbose=0)
    assert trained(cascade) == {"c2"}
    cascade.unfreeze("upstream/td/cnn/c1")
    assert trained(cascade) == {"c1", "c2"}
    cascade.freeze("upstream/td/cnn/c2")
    assert trained(cascade) == {"c1"}
    cascade.freeze("upstream")
    assert trained(cascade) == set()


def trained(cascade):
    weights = cascade.blocks["upstream"].trainable_weights
    return {v.path.split("/")[-2] for v in weights}


def test_later_patterns_win_inside_too():
    flags = {"upstream/td/cnn/c2": True, "upstream/td/cnn/*": False}
    with pytest.raises(ValueError, match=r"'upstream/td/cnn/c2' changes noth"):
        kc.build_cascade(steps(), head=2, trainable=flags)
    flags = {"upstream": True, "upstream/td/cnn/c2": False}
    cascade = kc.build_cascade(steps(), head=2, trainable=flags)
    assert trained(cascade) == {"c1"}


def test_weights_around_a_layer_are_not_thawed_silently():
    class Scaled(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4, name="dense")

        def build(self, input_shape):
            self.scale = self.add_weight(shape=(4,), name="scale")
            self.dense.build(input_shape)

        def call(self, x):
            return self.dense(x) * self.scale

    inputs = keras.Input((4,))
    network = keras.Model(inputs, Scaled(name="scaled")(inputs))
    flags = {"upstream/scaled/dense": True}
    with pytest.raises(ValueError, match=r"weights of its own \(scale\)"):
        kc.build_cascade(network, head=2, trainable=flags)


@pytest.mark.parametrize("inner_last", [True, False])
def test_a_rate_inside_counts_beside_that_of_the_layer(inner_last):
    rates = {"upstream": 1e-5, "upstream/td/cnn/c2": 1e-2}
    if not inner_last:
        rates = {"upstream/td/cnn/c2": 1e-2, "upstream/td": 1e-5}
    cascade = kc.build_cascade(
        steps(), head=2, trainable=True, learning_rates=rates, loss="mse"
    )
    found = {
        path.split("/")[-2]: round(rate, 6)
        for path, rate in cascade.learning_rates().items()
        if path.startswith("upstream")
    }
    assert found == {"c1": 1e-5, "c2": 1e-2 if inner_last else 1e-5}


def test_layers_inside_have_no_depth_and_no_retention_of_their_own():
    path = "upstream/td/cnn/c2"
    with pytest.raises(ValueError, match="divides layers by their depth"):
        kc.build_cascade(
            steps(),
            head=2,
            trainable={path: True},
            learning_rates={path: kc.LayerwiseDecay(1e-3, 0.5)},
            loss="mse",
        )
    with pytest.raises(ValueError, match="retention names 'upstream/td"):
        kc.build_cascade(steps(), head=2, retention={path: kc.L2SP(0.1)})
