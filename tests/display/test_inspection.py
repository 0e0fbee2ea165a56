"""Tests what `keras-cascade inspect` shows of a saved model."""

import json

import keras
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.display.inspection import (
    inspect_model,
    inspection_tables,
)


def network(name="encoder", width=4):
    x = keras.Input((3,))
    y = layers.Dense(width, activation="tanh", name="hidden")(x)
    return keras.Model(x, layers.Dense(2, name="out")(y), name=name)


def cascade():
    return kc.build_cascade(
        {"left": network(), "right": network()},
        network("expert"),
        taps={"low": "left/hidden", "high": "right/hidden"},
        inject={"low": kc.Injection("hidden", "film")},
        downstream_input="both",
        preprocess={"right": layers.Rescaling(0.5, name="halve")},
        loss="mse",
        learning_rates={"downstream": 1e-4},
    )


def test_a_cascade_is_described_in_plain_values():
    found = json.loads(json.dumps(inspect_model(cascade())))
    blocks = {block["name"]: block for block in found["blocks"]}
    assert found["inputs"] == [
        {"name": "inputs", "shape": [None, 3], "dtype": "float32"}
    ]
    assert found["outputs"] == [
        {"name": "output", "shape": [None, 2], "dtype": "float32"}
    ]
    assert blocks["left"]["taps"] == {"low": "hidden"}
    assert blocks["left"]["trainable_parameters"] == 0
    # hidden alone, 3 * 4 + 4: layers after the tap are pruned.
    assert blocks["left"]["parameters"] == 16
    assert blocks["right"]["preprocessing"] == "halve"
    assert blocks["downstream"]["learning_rates"] == pytest.approx([1e-4])
    assert blocks["downstream"]["injections"] == [
        {"source": "low", "path": "hidden", "merge": "film", "zero_init": True}
    ]


def test_parameter_counts_are_those_of_keras():
    model = cascade()
    found = inspect_model(model)
    assert found["parameters"] == model.count_params()
    assert sum(b["parameters"] for b in found["blocks"]) == found["parameters"]


def test_the_text_names_every_block_and_injection():
    text = str(inspection_tables(cascade()))
    for words in ("left", "right", "low → hidden (film)", "halve", "inputs"):
        assert words in text


def test_the_cut_lists_what_caching_stores_and_saves():
    found = inspect_model(cascade())["cut"]
    # The stored tensors are the taps; the downstream also reads the input.
    assert found["nothing"] is None and found["blocked"] == []
    assert found["inputs"] == ["inputs"]
    stored = {x["name"]: x["bytes"] for x in found["features"]}
    assert stored == {"left/hidden": 16, "right/hidden": 16}
    assert found["bytes"] == 32
    # Two products of 3 by 4, and the halving of three values.
    assert found["flops_saved"] == 2 * (2 * 3 * 4) + 3
    assert found["flops_repeated"] == 0
    text = str(inspection_tables(cascade()))
    assert "saves 51 FLOPs for each sample" in text and "'inputs'" in text


def test_the_cut_names_the_layer_that_prevents_caching():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.RandomFlip(name="flip")(x)
    x = layers.Conv2D(4, 3, name="conv")(x)
    augmented = kc.build_cascade(keras.Model(inputs, x, name="net"), head=2)
    found = inspect_model(augmented)["cut"]
    assert found["features"] == [] and found["bytes"] == 0
    assert found["blocked"][0]["name"] == "upstream/flip"
    text = str(inspection_tables(augmented))
    assert "nothing to store: RandomFlip 'upstream/flip', which is augm" in text


def test_numbers_that_depend_on_open_sizes_are_unknown():
    x = inputs = keras.Input((None, 4), name="sequence")
    x = layers.Dense(3, name="dense", trainable=False)(x)
    model = keras.Model(inputs, layers.LSTM(2, name="lstm")(x), name="open")
    found = inspect_model(model)["cut"]
    assert found["bytes"] is None and found["flops_saved"] is None
    assert "saves ? FLOPs" in str(inspection_tables(model))


def test_any_other_model_has_inputs_outputs_and_parameters():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="plain")
    assert inspect_model(model)["blocks"] == []
    assert "8 parameters, 8 of them trainable" in str(inspection_tables(model))
