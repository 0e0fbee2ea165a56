"""Networks that share what they call once per step: it stays one."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.graph.test_taps_of_steps import (
    VIDEO,
    image_network,
    of_each_step,
    to_numpy,
)


def two_networks():
    keras.utils.set_random_seed(0)
    td = layers.TimeDistributed(image_network(), name="td")
    one, other = (keras.Input((3, 6, 6, 3), name=x) for x in ("one", "other"))
    pooled = layers.GlobalAveragePooling1D(name="pool")(td(other))
    return {
        "a": keras.Model(one, layers.LSTM(4, name="lstm")(td(one)), name="a"),
        "b": keras.Model(other, pooled, name="b"),
    }


def called_twice():
    network = two_networks()["a"]
    td, lstm = network.layers[1:]
    one, other = (keras.Input((3, 6, 6, 3), name=x) for x in ("one", "other"))
    both = layers.Add(name="both")([lstm(td(one)), lstm(td(other))])
    return keras.Model([one, other], both, name="twice")


TAPS = {
    "at two layers": {"x": "a/td/cnn/c1", "y": "b/td/cnn/enc/c2"},
    "at the same": {"x": "a/td/cnn/c1", "y": "b/td/cnn/c1"},
    "inside and whole": {"x": "a/td/cnn/c1", "y": "b/td"},
    "whole and inside": {"x": "a/lstm", "y": "b/td/cnn/c1"},
}


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("case", TAPS)
def test_networks_that_share_it_have_one_with_one_path(case, share, tmp_path):
    networks = two_networks()
    cnn = networks["a"].get_layer("td").layer
    cascade = kc.build_cascade(
        networks, taps=TAPS[case], adapters=None, fusion=None, copy=not share
    )
    inputs = VIDEO
    (name,) = [n for n, x in TAPS[case].items() if x.endswith("c1")][:1]
    expected = of_each_step(cnn, cnn.get_layer("c1").output, VIDEO)
    answers = cascade(inputs)
    np.testing.assert_allclose(to_numpy(answers[name]), expected, atol=1e-5)
    kernels = [v for v in cascade.weights if v.path.endswith("c1/kernel")]
    assert len(kernels) == 1
    if share:
        return
    assert kernels[0].path == "a/td/c1/kernel"
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    assert [v.path for v in again.variables] == [
        v.path for v in cascade.variables
    ]
    for model in (again, again.rebuild(), cascade.to_plain()):
        found = model(inputs)
        for key, value in answers.items():
            np.testing.assert_allclose(
                to_numpy(found[key]), to_numpy(value), atol=1e-6
            )


def test_two_calls_in_a_network_may_be_tapped_apart(tmp_path):
    network = called_twice()
    cascade = kc.build_cascade(
        network,
        taps={"x": "td:1/cnn/c1", "out": "both"},
        adapters=None,
        fusion=None,
    )
    assert len(cascade.weights) == len(network.weights)
    inputs = {"one": VIDEO, "other": VIDEO[:, ::-1]}
    cnn = network.get_layer("td").layer
    expected = of_each_step(cnn, cnn.get_layer("c1").output, VIDEO[:, ::-1])
    cascade.save(tmp_path / "cascade.keras")
    for model in (
        cascade,
        keras.saving.load_model(tmp_path / "cascade.keras"),
    ):
        found = model(inputs)
        np.testing.assert_allclose(to_numpy(found["x"]), expected, atol=1e-5)
        np.testing.assert_allclose(
            to_numpy(found["out"]),
            to_numpy(network(list(inputs.values()))),
            atol=1e-5,
        )


@pytest.mark.parametrize("part", [None, "a/td/cnn/enc/c2"])
def test_what_is_shared_is_cached_as_it_trains_live(part):
    histories = []
    for cached in (False, True):
        keras.utils.set_random_seed(0)
        cascade = kc.build_cascade(
            two_networks(),
            taps={"x": "a/td/cnn/enc/c2", "y": "b/td/cnn/c1"},
            trainable=part and {part: True},
            head=2,
            loss="mse",
        )
        inputs = VIDEO
        fit = cascade.fit(
            *(inputs, np.ones((2, 2)), 1, 2, 0),
            shuffle=False,
            cache_features=cached,
        )
        histories.append(fit.history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-4)


def test_the_flag_of_a_layer_inside_counts_in_every_network():
    cascade = kc.build_cascade(
        two_networks(),
        taps={"x": "a/td/cnn/enc/c2", "y": "b/td/cnn/c1"},
        trainable={"a/td/cnn/c1": True},
        head=2,
    )
    for name in ("a", "b"):
        block = cascade.blocks[name]
        assert [v.path for v in block.trainable_variables] == [
            "a/td/c1/kernel",
            "a/td/c1/bias",
        ]
    cascade.freeze("b/td/cnn/c1")
    assert not cascade.blocks["a"].trainable_variables
