"""Tests that mistakes are caught before any long work, and explained."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.adapters import DenseAdapter, PCAAdapter
from tests.behaviour.mistaken_networks import (
    downstream,
    message_of,
    upstream,
)

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")


class Subclassed(keras.Model):
    """A network without a graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


def test_an_unknown_tap_names_the_closest_paths():
    message = message_of(ValueError, upstream(), taps="hiden")
    assert message == (
        "No tap at 'hiden' in upstream 'encoder'. Closest: 'hidden'. "
        "list_taps(network) shows them all."
    )


def test_a_tap_pattern_without_a_match_is_an_error():
    message = message_of(ValueError, upstream(), taps=["conv*"])
    assert "No tap matches 'conv*' in upstream 'encoder'." in message


@pytest.mark.parametrize("argument", ["trainable", "learning_rates"])
def test_a_block_pattern_without_a_match_names_the_blocks(argument):
    value = {"trainable": True, "learning_rates": 1e-3}[argument]
    message = message_of(
        ValueError, upstream(), head=2, **{argument: {"upstream/hiden": value}}
    )
    assert message.startswith(
        f"{argument} names 'upstream/hiden', which matches nothing in the "
        "cascade. Closest: 'upstream/hidden'"
    )
    assert message.endswith("begins with a block: 'upstream', 'head'.")


def test_widths_that_do_not_fit_are_an_error_that_shows_the_sum():
    message = message_of(
        ValueError,
        upstream(),
        downstream(),
        taps={"texture": "hidden", "shape": "features"},
        adapters={"texture": None, "shape": 96},
        extra_inputs={"metadata": (3,)},
    )
    assert "32 + 96 + 3 = 131, 'digits_expert' expects 130" in message
    assert "('texture', 'shape', 'metadata' by fusion='concat')" in message


def test_a_single_width_that_does_not_fit_needs_no_sum():
    message = message_of(
        ValueError, upstream(), downstream(), taps="features", adapters=None
    )
    assert "5 features, 'digits_expert' expects 130" in message


def test_an_open_width_without_features_left_is_an_error():
    message = message_of(
        ValueError,
        upstream(),
        downstream(40),
        taps=["hidden", "features"],
        adapters={"hidden": 37},
        extra_inputs={"side": (3,)},
    )
    assert "Nothing is left for 'features': 37 ('hidden') + 3 ('side')" in (
        message
    )
    assert "of the 40 features that 'digits_expert' expects" in message


def test_an_open_width_without_a_downstream_is_an_error():
    message = message_of(
        ValueError, upstream(), adapters=DenseAdapter(None), head=2
    )
    assert "DenseAdapter of 'output' is open" in message
    assert "give it units" in message


def test_shapes_that_do_not_fit_are_named():
    message = message_of(
        ValueError,
        upstream(),
        taps=["hidden", "features"],
        fusion="add",
    )
    assert "fusion='add': 'hidden' (32,), 'features' (5,)" in message


@pytest.mark.parametrize("name", ["my tap", "1st", "", "a/b", 3])
def test_a_tap_name_must_be_an_identifier(name):
    message = message_of(ValueError, upstream(), taps={name: "hidden"})
    assert f"Tap name {name!r} is no identifier" in message


@pytest.mark.parametrize("taps", [[], {}, "", ()])
def test_empty_taps_select_nothing(taps):
    message = message_of(ValueError, upstream(), taps=taps)
    assert f"taps={taps!r} selects nothing of upstream 'encoder'" in message


@pytest.mark.parametrize("role", ["upstream", "downstream"])
def test_a_network_without_an_input_shape_is_refused(role):
    networks = {"upstream": upstream(), "downstream": downstream()}
    networks[role] = keras.Sequential([layers.Dense(3)], name="shapeless")
    message = message_of(ValueError, **networks)
    assert f"{role} 'shapeless' has no defined input shape" in message
    assert "keras.Input" in message


def test_a_subclassed_network_that_was_never_called_has_no_input_shape():
    message = message_of(ValueError, Subclassed(name="mine"))
    assert "upstream 'mine' has no defined input shape" in message


@pytest.mark.parametrize("path", ["dense", "mine/dense"])
def test_a_subclassed_network_cannot_be_tapped_inside(path):
    network = Subclassed(name="mine")
    network(X)
    message = message_of(ValueError, network, taps=path)
    assert f"No tap at '{path}' in upstream 'mine'." in message
    assert "'mine' is a Subclassed, which has no graph to look into" in message
    assert "only its output can be tapped" in message


def test_a_network_that_cannot_be_copied_says_what_its_class_lacks():
    class Unserialisable(Subclassed):
        def __init__(self, extra):
            super().__init__(name="mine")

    network = Unserialisable(object())
    network(X)
    message = message_of(ValueError, network)
    assert "'mine' (Unserialisable) cannot be copied from its config" in message
    assert "get_config()" in message
    assert "copy=False" in message


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("texture", "the tap at 'hidden'"),
        ("upstream", "a block of the cascade"),
        ("adapters", "a block of the cascade"),
    ],
)
def test_an_extra_input_needs_a_name_of_its_own(name, owner):
    message = message_of(
        ValueError,
        upstream(),
        taps={"texture": "hidden"},
        extra_inputs={name: (2,)},
    )
    assert message == (
        f"Extra input '{name}' has the name of {owner}; give it another."
    )


def test_an_extra_input_with_the_name_of_an_input_names_both():
    message = message_of(ValueError, upstream(), extra_inputs={"inputs": (2,)})
    assert message == (
        "The input 'inputs' of the cascade, which feeds 'upstream/x', has the "
        "name of the extra input 'inputs'. Call it otherwise, by "
        "inputs={'upstream': name}, or rename the other."
    )


def test_an_input_may_have_the_name_of_a_tap():
    cascade = kc.build_cascade(
        upstream(), taps={"texture": "hidden"}, inputs={"upstream": "texture"}
    )
    assert cascade.predict(X, verbose=0).shape == (20, 32)


def test_the_name_of_an_extra_input_is_an_identifier():
    message = message_of(
        ValueError, upstream(), extra_inputs={"ink mass": (1,)}
    )
    assert "'ink mass' is no identifier" in message


@pytest.mark.parametrize("shape", [2, "(2,)", (0,), (-1,), (2.0,)])
def test_an_extra_input_has_a_shape(shape):
    message = message_of(ValueError, upstream(), extra_inputs={"side": shape})
    assert "Extra input 'side' must have a shape without batch" in message
    assert repr(shape) in message


def test_an_integer_extra_input_needs_an_adapter():
    message = message_of(
        ValueError,
        upstream(),
        extra_inputs={"sex": keras.Input((1,), dtype="int32")},
        head=2,
    )
    assert "Extra input 'sex' is int32; features are floats" in message
    assert "adapter" in message


def pca_cascade(components=2):
    return kc.build_cascade(
        upstream(),
        taps={"texture": "hidden"},
        adapters=PCAAdapter(components),
        head=2,
        loss="sparse_categorical_crossentropy",
    )


def test_nan_in_the_data_of_adapt_names_the_tap():
    bad = X.copy()
    bad[3, 2] = np.nan
    cascade = pca_cascade()
    with pytest.raises(ValueError, match=r"'texture', batch 0: 1 of 20 rows"):
        cascade.adapt(bad, verbose=False)
    with pytest.raises(ValueError, match="have not been fitted"):
        cascade.predict(X, verbose=0)


def test_adapt_needs_at_least_as_many_rows_as_components():
    cascade = pca_cascade(4)
    with pytest.raises(ValueError) as caught:
        cascade.adapt(X[:3], verbose=False)
    assert str(caught.value) == (
        "Adapter 'texture': 4 components need at least 4 rows, received 3."
    )


def test_more_components_than_features_are_refused_when_building():
    message = message_of(
        ValueError,
        upstream(),
        taps={"shape": "features"},
        adapters=PCAAdapter(6),
    )
    assert "'shape' asks for 6 components of an input of 5 features" in message


def test_a_fraction_of_variance_must_be_fitted_before_building():
    message = message_of(ValueError, upstream(), adapters=PCAAdapter(0.95))
    assert "PCAAdapter(0.95).adapt(features)" in message
    assert "'output'" in message


def test_adapt_names_the_inputs_that_are_missing():
    cascade = kc.build_cascade(
        upstream(),
        adapters={"output": PCAAdapter(2)},
        extra_inputs={"side": (1,)},
        head=2,
    )
    with pytest.raises(ValueError, match="'inputs', 'side': it has 1 arrays"):
        cascade.adapt(X, verbose=False)
    with pytest.raises(ValueError, match="it has 'image' and lacks 'inputs'"):
        cascade.adapt({"image": X}, verbose=False)


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_nothing_runs_before_the_adapters_are_fitted(call):
    cascade = pca_cascade()
    data = (X,) if call == "predict" else (X, np.zeros(20))
    what = {"fit": "training", "evaluate": "evaluation"}
    with pytest.raises(ValueError) as caught:
        getattr(cascade, call)(*data, verbose=0)
    assert str(caught.value) == (
        "Adapters that learn from data have not been fitted: "
        "'adapters/texture'. Call cascade.adapt(data) before "
        f"{what.get(call, 'prediction')}."
    )


def test_an_unknown_fusion_lists_the_known_ones():
    message = message_of(ValueError, upstream(), fusion="sum")
    assert "Unknown fusion 'sum'" in message
    for name in ("concat", "add", "average", "multiply", "maximum"):
        assert f"'{name}'" in message


@pytest.mark.parametrize("rate", [-1e-3, float("nan"), "fast", None])
def test_an_invalid_learning_rate_is_refused(rate):
    message = message_of(
        ValueError, upstream(), learning_rates={"upstream": rate}
    )
    assert f"The learning rate of 'upstream' is {rate!r}" in message


def test_a_flag_that_later_ones_override_is_an_error():
    message = message_of(
        ValueError,
        upstream(),
        trainable={"upstream/hidden": True, "upstream": False},
    )
    assert "'upstream/hidden' changes nothing, as the later 'upstream'" in (
        message
    )


def test_several_streams_cannot_become_one_input_without_a_fusion():
    message = message_of(
        ValueError, upstream(), taps=["hidden", "features"], fusion=None, head=2
    )
    assert "2 streams (hidden, features) for one input" in message


def test_a_downstream_has_one_input():
    left, right = (
        keras.Input((2,), name="left"),
        keras.Input((2,), name="right"),
    )
    two = keras.Model([left, right], layers.Add()([left, right]), name="two")
    message = message_of(ValueError, upstream(), two)
    assert "downstream 'two' has 2 inputs ('left', 'right')" in message


def test_a_missing_file_is_named():
    message = message_of(ValueError, "nowhere.keras")
    assert message == "upstream: there is no file 'nowhere.keras'."
    message = message_of(ValueError, "resnet")
    assert "upstream='resnet' is no network. Closest: 'ResNet50'" in message
    assert "the path of a '.keras' file" in message


def test_a_list_of_adapters_has_one_for_each_tap():
    message = message_of(
        ValueError, upstream(), taps=["hidden", "features"], adapters=[3]
    )
    assert "adapters lists 1 for 2 taps ('hidden', 'features')" in message


# Argument, value and a part of the message.
WRONG_TYPES = {
    "upstream": ({"upstream": 3}, "upstream must be a keras.Model"),
    "downstream": ({"downstream": keras.Model}, "downstream must be a keras."),
    "taps": ({"taps": 3}, "taps must be None, a path, a list"),
    "adapters": ({"adapters": "pca"}, "'output' must be 'auto', None, a"),
    "adapter class": ({"adapters": layers.Dense}, "with parentheses"),
    "fusion": ({"fusion": 3}, "fusion must be a name, None, or a Keras layer"),
    "fusion class": ({"fusion": layers.Add}, "with parentheses"),
    "extra_inputs": ({"extra_inputs": (2,)}, "extra_inputs must be a mapping"),
    "head": ({"head": 2.5}, "head must be a number of units, or a Keras layer"),
    "a number first": ({"head": [5, layers.Dense(2)]}, "head[0]=5: a number"),
    "head class": ({"head": layers.Dense}, "with parentheses"),
    "head in a list": ({"head": ["dense"]}, "received 'dense' of type str"),
    "trainable": ({"trainable": "x"}, "trainable must be None, a bool or a"),
    "a flag": ({"trainable": {"upstream": 1}}, "must be True, False or"),
    "a pattern": ({"trainable": {3: True}}, "trainable names 3; a path"),
    "learning_rates": ({"learning_rates": 1e-3}, "One rate for all is the"),
    "a rate": ({"learning_rates": {3: 0.1}}, "learning_rates names 3; a path"),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_an_argument_of_a_wrong_type_is_a_type_error(case):
    arguments, expected = WRONG_TYPES[case]
    message = message_of(TypeError, **{"upstream": upstream(), **arguments})
    assert expected in message


# Impossible values of the right type.
WRONG_VALUES = {
    "adapters={'zz': 3}": ({"adapters": {"zz": 3}}, "no tap and no extra"),
    "adapters=0": ({"adapters": 0}, "Adapter 'output': `units` is a positive"),
    "a tap of another type": ({"taps": [3]}, "A tap is a path as text"),
    "head=0": ({"head": 0}, "head=0: a head has at least 1 unit"),
    "head=[.., 0]": ({"head": [layers.Dense(2), 0]}, "head[1]=0: a head has"),
    "head=[]": ({"head": []}, "head=[] has no layer"),
    "head={}": ({"head": {}}, "head={} gives no output"),
    "an output's name": ({"head": {"a b": 2}}, "'a b' in head is no identif"),
    "an empty pattern": ({"trainable": {"": True}}, "'' is no path"),
    "an empty segment": ({"taps": "a//b"}, "'a//b' is no path"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_an_impossible_value_is_a_value_error(case):
    arguments, expected = WRONG_VALUES[case]
    assert expected in message_of(ValueError, upstream(), **arguments)


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match=re.escape("'tap'")):
        kc.build_cascade(upstream(), tap="hidden")


def test_a_mistake_leaves_the_networks_unchanged():
    network = upstream()
    before = network.get_config()
    message_of(ValueError, network, trainable={"upstream/nothing": True})
    assert network.get_config() == before
    assert all(layer.trainable for layer in network.layers)
