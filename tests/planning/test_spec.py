"""The user's arguments, normalised once, and through a file unchanged."""

import json

import keras
import pytest
from keras import layers
from keras.optimizers import schedules

from keras_cascade.adapters import DenseAdapter, PCAAdapter
from keras_cascade.planning.normalization import (
    normalise_adapters,
    normalise_extra_inputs,
    normalise_head,
    normalise_rates,
    normalise_trainable,
)
from keras_cascade.planning.spec import CascadeSpec, ExtraInput, NetworkInfo

TAPS, EXTRAS = ["low", "high"], ["side"]


def test_auto_is_for_taps_and_nothing_for_extra_inputs():
    assert normalise_adapters("auto", TAPS, EXTRAS) == {
        "low": "auto",
        "high": "auto",
        "side": None,
    }


def test_what_a_mapping_leaves_out_gets_the_default():
    given = {"side": None, "high": None}
    assert normalise_adapters(given, TAPS, EXTRAS) == {
        "low": "auto",
        "high": None,
        "side": None,
    }


def test_a_list_goes_in_order_and_may_name_the_extra_inputs_too():
    layer = layers.Dense(3)
    assert normalise_adapters([None, layer], TAPS, EXTRAS) == {
        "low": None,
        "high": layer,
        "side": None,
    }
    assert normalise_adapters([None, None, layer], TAPS, EXTRAS)["side"] is (
        layer
    )


def test_a_number_is_a_dense_adapter():
    found = normalise_adapters(7, TAPS, [])
    assert [type(x) for x in found.values()] == [DenseAdapter] * 2
    assert [x.units for x in found.values()] == [7, 7]


def test_true_is_no_number_of_units():
    with pytest.raises(TypeError, match="received True"):
        normalise_adapters({"low": True}, TAPS, [])
    with pytest.raises(TypeError, match="received True"):
        normalise_head(True)


def test_extra_inputs_are_shapes_or_inputs():
    found = normalise_extra_inputs(
        {
            "a": (2,),
            "b": [None, 3],
            "c": keras.Input((1,), dtype="int32"),
            "d": (),
        },
        {},
    )
    assert found == {
        "a": ExtraInput((2,), "float32"),
        "b": ExtraInput((None, 3), "float32"),
        "c": ExtraInput((1,), "int32"),
        "d": ExtraInput((), "float32"),
    }


def test_one_head_has_no_name():
    layer = layers.Dense(2)
    assert normalise_head(None) is None
    assert normalise_head(3) == {"": 3}
    assert normalise_head(layer) == {"": [layer]}
    assert normalise_head({"a": 3, "b": layer}) == {"a": 3, "b": [layer]}


def test_rates_are_floats_or_schedules():
    schedule = schedules.ExponentialDecay(0.1, 10, 0.5)
    assert normalise_rates(None) == {}
    assert normalise_rates({"a": 1, "b": schedule}) == {"a": 1.0, "b": schedule}


def test_flags_stay_as_they_were_given():
    for given in (None, True, False, {"upstream/a*": True}):
        assert normalise_trainable(given) == given


def test_the_spec_goes_through_json_unchanged():
    spec = CascadeSpec(
        networks={"upstream": NetworkInfo("encoder", "Functional")},
        taps={"low": "block/conv", "high": "-1"},
        adapters={"low": PCAAdapter(3, name="pca"), "high": "auto"},
        fusion=layers.Maximum(name="most"),
        extra_inputs={"side": ExtraInput((None, 2), "float16")},
        head={"": 3, "low": [layers.Dense(2, name="last")]},
        trainable={"upstream": True, "upstream/a*": False},
        learning_rates={"head": schedules.ExponentialDecay(0.1, 10, 0.5)},
        reinitialized=("head/last/kernel",),
    )
    text = json.dumps(spec.get_config())
    loaded = CascadeSpec.from_config(json.loads(text))
    assert loaded.get_config() == spec.get_config()
    for name in ("networks", "taps", "extra_inputs", "trainable"):
        assert getattr(loaded, name) == getattr(spec, name)
    assert loaded.reinitialized == spec.reinitialized
    assert loaded.adapters["low"].n_components == 3
    assert isinstance(loaded.fusion, layers.Maximum)
    assert isinstance(loaded.head["low"][0], layers.Dense)


def test_a_changed_spec_is_another_one():
    spec = CascadeSpec({}, {"a": "b"}, {})
    assert spec.with_changes(fusion="add").fusion == "add"
    assert spec.fusion == "concat"
