"""What `keras-cascade inspect` shows of a saved model."""

import json

import keras
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.display.inspection import inspect_model, inspection_text


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
    # hidden alone, 3 * 4 + 4: what lies behind the tap is not there.
    assert blocks["left"]["parameters"] == 16
    assert blocks["right"]["preprocessing"] == "halve"
    assert blocks["downstream"]["learning_rates"] == pytest.approx([1e-4])
    assert blocks["downstream"]["injections"] == [
        {"source": "low", "path": "hidden", "merge": "film", "zero_init": True}
    ]


def test_the_sums_are_those_of_keras():
    model = cascade()
    found = inspect_model(model)
    assert found["parameters"] == model.count_params()
    assert sum(b["parameters"] for b in found["blocks"]) == found["parameters"]


def test_as_text_every_block_and_injection_is_named():
    text = inspection_text(cascade())
    for words in ("left", "right", "low → hidden (film)", "halve", "inputs"):
        assert words in text


def test_of_any_other_model_it_tells_inputs_outputs_and_parameters():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="plain")
    assert inspect_model(model)["blocks"] == []
    assert "8 parameters, 8 of them trainable" in inspection_text(model)
