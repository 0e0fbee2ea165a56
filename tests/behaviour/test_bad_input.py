"""Tests that mistakes are caught before any long work, and explained."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.adapters import DenseAdapter, PCAAdapter

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")


def upstream():
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(32, activation="tanh", name="hidden")(x)
    x = layers.Dense(5, name="features")(x)
    return keras.Model(inputs, x, name="encoder")


def downstream(width=130):
    return keras.Sequential(
        [keras.Input((width,)), layers.Dense(2, name="digits")],
        name="digits_expert",
    )


class Subclassed(keras.Model):
    """A network without a graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


def message_of(error, *args, **kwargs):
    """Returns the error of building, which is one line."""
    with pytest.raises(error) as caught:
        kc.build_cascade(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


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


# Injections.


def expert(shape=(6,), name="expert"):
    x = inputs = keras.Input(shape, name="image")
    x = layers.Dense(4, name="stem")(x)
    y = layers.Dense(4, name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name=name)


def mistake(inject, error=ValueError, second=None, **arguments):
    """Returns the error of injecting, which leaves the networks unchanged."""
    first, second = upstream(), second or expert()
    before = [network.get_config() for network in (first, second)]
    calls = [_calls_of(network) for network in (first, second)]
    arguments = {"taps": {"texture": "hidden"}, **arguments}
    message = message_of(error, first, second, inject=inject, **arguments)
    assert [network.get_config() for network in (first, second)] == before
    assert [_calls_of(network) for network in (first, second)] == calls
    return message


def _calls_of(network):
    return [len(layer._inbound_nodes) for layer in network.layers]


def test_an_injection_into_an_unknown_layer_names_the_closest():
    assert mistake({"texture": "brnch"}) == (
        "inject['texture'] names 'brnch', which is no layer of downstream "
        "'expert'. Closest: 'branch'. list_taps(network) shows them all."
    )


def test_an_injection_of_an_unknown_tap_names_the_closest():
    message = mistake({"textur": "stem"})
    assert "inject names 'textur', which is no tap and no extra input" in (
        message
    )
    assert "Closest: 'texture'" in message


def test_an_injection_into_layers_that_replace_prunes_names_both():
    message = mistake(
        {
            "texture": "stem",
            "shape": kc.Injection("sum", merge="replace"),
        },
        taps={"texture": "hidden", "shape": "features"},
    )
    assert message == (
        "inject['texture'] at 'stem' would enter a part of 'expert' that is "
        "not in the cascade: merge='replace' at 'sum' leaves out what came "
        "before. Enter after it, or drop one of the two."
    )


def test_an_injection_that_reaches_no_output_is_an_error():
    x = keras.Input((6,), name="x")
    used = layers.Dense(4, name="used")(x)
    network = keras.Model(x, [used], name="expert")
    lost = layers.Dense(4, name="lost")(used)
    both = keras.Model(x, [used, lost], name="both")
    outer = keras.Input((6,))
    keep, _ = both(outer)
    network = keras.Model(outer, layers.Dense(2)(keep), name="outer")
    message = mistake({"texture": "both/lost"}, second=network)
    assert "inject['texture'] at 'both/lost' would not reach any output" in (
        message
    )


def test_an_injection_back_into_the_upstream_is_a_cycle():
    message = mistake(
        {"texture": "upstream/hidden"}, taps={"texture": "features"}
    )
    assert message == (
        "inject['texture'] names 'upstream/hidden', a layer of the upstream "
        "'encoder': features enter the downstream. There it would be a cycle: "
        "the tap 'texture' at 'features' is computed from that layer. Name a "
        "layer of the downstream 'expert'; list_taps(network) shows them all."
    )


def test_an_injection_from_one_upstream_into_another_is_an_error():
    message = message_of(
        ValueError,
        {"shape": upstream(), "colour": upstream()},
        expert(),
        taps={"s": "shape/features", "c": "colour/features"},
        inject={"s": "colour/hidden"},
    )
    assert "inject['s'] names 'colour/hidden', a layer of the upstream" in (
        message
    )
    assert "features enter the downstream" in message
    assert "cycle" not in message


def test_one_network_as_upstream_and_downstream_is_no_cycle():
    network = expert()
    with pytest.warns(UserWarning, match="train apart"):
        cascade = kc.build_cascade(
            network,
            network,
            taps={"texture": "sum"},
            inject={"texture": "stem"},
        )
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(cascade(X)),
        keras.ops.convert_to_numpy(network(X)),
    )


def test_a_replaced_output_prunes_the_whole_downstream():
    message = mistake({"texture": kc.Injection("out", merge="replace")})
    assert message == (
        "merge='replace' at the output of 'expert' leaves nothing of the "
        "downstream. Leave the downstream out, or enter it at an earlier "
        "layer."
    )


def test_features_of_another_shape_cannot_replace():
    message = mistake(
        {"texture": kc.Injection("stem", merge="replace")}, adapters=3
    )
    assert message == (
        "inject['texture'] brings features of shape (3,) into 'stem' (4,) by "
        "merge='replace', which do not go together. Leave its adapter to "
        "'auto', or give one that brings it to (4,)."
    )


def test_a_map_without_adapter_does_not_enter_a_vector():
    inputs = keras.Input((6, 6, 1))
    maps = keras.Model(
        inputs, layers.Conv2D(3, 3, name="map")(inputs), name="maps"
    )
    message = message_of(
        ValueError,
        maps,
        expert(),
        taps={"texture": "map"},
        adapters=None,
        inject={"texture": "stem"},
    )
    assert "features of shape (4, 4, 3) into 'stem' (4,)" in message


def test_without_an_automatic_rule_the_error_says_which_adapter_to_write():
    """No automatic adapter knows the meaning of five axes."""
    inputs = keras.Input((2, 2, 2, 2, 3))
    network = keras.Model(inputs, layers.Dense(3, name="d")(inputs), name="odd")
    message = message_of(
        ValueError,
        network,
        expert(),
        taps={"texture": "d"},
        inject={"texture": "stem"},
    )
    assert "No automatic adapter takes 'texture' (2, 2, 2, 2, 3) to (4,)" in (
        message
    )
    assert "adapters={'texture': layer}" in message


def test_maps_of_different_data_formats_are_an_error():
    def maps(data_format, name):
        shape = (3, 6, 6) if data_format == "channels_first" else (6, 6, 3)
        x = inputs = keras.Input(shape)
        x = layers.Activation("relu", name="map")(x)
        x = layers.GlobalAveragePooling2D(data_format=data_format)(x)
        return keras.Model(inputs, x, name=name)

    message = message_of(
        ValueError,
        maps("channels_first", "encoder"),
        maps("channels_last", "expert"),
        taps={"texture": "map"},
        inject={"texture": "map"},
    )
    assert "'texture' (3, 6, 6)" in message
    assert "'channels_first'" in message
    assert "'map' expects (6, 6, 3) in 'channels_last'" in message
    assert "keras.layers.Permute((2, 3, 1))" in message


def test_an_unknown_merge_lists_the_known_ones():
    with pytest.raises(ValueError) as caught:
        kc.Injection("stem", merge="sum")
    assert "there is no such merge" in str(caught.value)
    assert "'add', 'multiply', 'film', 'concat', 'replace'" in str(caught.value)


def test_nothing_is_injected_without_a_downstream():
    message = message_of(
        ValueError, upstream(), taps="hidden", inject={"hidden": "stem"}
    )
    assert "inject names 'hidden', and there is no downstream" in message


def test_an_integer_extra_input_is_injected_through_an_adapter():
    message = mistake(
        {"kind": "stem"},
        extra_inputs={"kind": keras.Input((1,), dtype="int32")},
        adapters={"texture": kc.adapters.DenseAdapter(6)},
    )
    assert message == (
        "inject['kind'] brings int32 into 'stem'; features are floats. Give "
        "'kind' an adapter, such as keras.layers.CategoryEncoding or "
        "keras.layers.Embedding, or a float dtype."
    )


def test_features_cannot_enter_integers():
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    x = layers.Flatten()(layers.Embedding(4, 2)(tokens))
    network = keras.Model(tokens, layers.Dense(2)(x), name="reader")
    message = mistake({"texture": "tokens"}, second=network)
    assert "enters 'tokens', which gives int32; features are floats" in message


def test_features_cannot_enter_a_network_that_is_called_twice():
    inner = expert((6,), "inner")
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    network = keras.Model(
        [a, b], layers.Add()([inner(a), inner(b)]), name="two"
    )
    message = mistake({"texture": "inner:0/stem"}, second=network)
    assert "the network 'inner' is called 2 times" in message
    assert "'inner:0' or 'inner:1'" in message


def test_features_cannot_enter_an_operation_with_several_outputs():
    x = keras.Input((6,), name="x")
    left, right = keras.ops.split(x, 2, axis=-1)
    network = keras.Model(x, layers.Add()([left, right]), name="halves")
    message = mistake({"texture": "split"}, second=network)
    assert "enters 'split', which gives 2 tensors" in message


# The input of the downstream.


def test_mode_features_needs_a_tap_that_is_not_injected():
    message = mistake({"texture": "stem"}, downstream_input="features")
    assert message == (
        "downstream_input='features', and every tap is injected ('texture'): "
        "no features are left for the input of 'expert'. Use 'inputs', or tap "
        "once more what is to feed it: an injected tap does not join the "
        "fusion."
    )


def test_an_unknown_mode_lists_the_known_ones():
    message = mistake(None, downstream_input="all")
    assert "Unknown downstream_input 'all'" in message
    assert "'features', 'inputs', 'both'" in message


def test_a_mode_needs_a_downstream():
    message = message_of(ValueError, upstream(), downstream_input="both")
    assert "downstream_input='both' says what a downstream sees" in message


@pytest.mark.parametrize("extras", [None, {"side": (2,)}])
def test_a_tap_or_extra_input_without_destination_is_named(extras):
    message = mistake(
        {"texture": "stem"},
        taps={"texture": "hidden", "shape": "features"},
        extra_inputs=extras,
        downstream_input="inputs",
    )
    gone = "'shape', 'side'" if extras else "'shape'"
    assert f"so {gone} goes nowhere" in message


def test_an_extra_input_has_no_destination_if_every_tap_is_injected():
    message = mistake({"texture": "stem"}, extra_inputs={"side": (2,)})
    assert "so 'side' goes nowhere" in message
    assert "Inject it, or use downstream_input='both'" in message


def two_inputs():
    left, right = (
        keras.Input((5,), name="left"),
        keras.Input((5,), name="right"),
    )
    return keras.Model([left, right], layers.Add()([left, right]), name="two")


def test_a_fusion_cannot_feed_several_inputs():
    message = mistake(None, second=two_inputs())
    assert "downstream 'two' has 2 inputs ('left', 'right')" in message
    assert "fusion='concat' makes one of 'texture'" in message
    assert "Use fusion=None" in message


def test_an_input_without_a_source_is_named():
    message = mistake(
        None, second=two_inputs(), taps={"left": "features"}, fusion=None
    )
    assert "Nothing feeds the input 'right' of downstream 'two'" in message
    assert "inputs={'downstream': {'right': 'right'}}" in message


def test_a_tap_without_an_input_of_its_name_is_named():
    message = mistake(
        None,
        second=two_inputs(),
        taps={"left": "features", "rigth": "features"},
        fusion=None,
    )
    assert "has none called 'rigth'. Closest: 'right'" in message


# Several upstreams.


@pytest.mark.parametrize(
    "name", ["adapters", "fusion", "downstream", "head", "preprocessing"]
)
def test_an_upstream_cannot_have_the_name_of_another_block(name):
    message = message_of(ValueError, {name: upstream()})
    assert f"An upstream cannot be called '{name}'" in message


@pytest.mark.parametrize("name", ["two words", "", 3, "a/b"])
def test_the_name_of_an_upstream_is_an_identifier(name):
    message = message_of(ValueError, {name: upstream()})
    assert f"Upstream name {name!r} is no identifier" in message


def test_no_upstream_is_an_error():
    assert message_of(ValueError, {}) == "upstream={} names no network."


def pair(**arguments):
    return message_of(
        ValueError, {"shape": upstream(), "colour": upstream()}, **arguments
    )


def test_a_tap_that_names_no_upstream_lists_the_upstreams():
    message = pair(taps=["colr/hidden"])
    assert "Tap 'colr/hidden' names no upstream. Closest: 'colour'" in message
    assert "'shape', 'colour'" in message


def test_an_upstream_that_no_tap_reads_is_an_error():
    assert pair(taps=["shape/hidden"]) == (
        "No tap reads the upstream 'colour'. Give it one, or leave the network "
        "out."
    )


def test_inputs_with_an_unknown_network_is_an_error():
    message = pair(taps=["*/hidden"], inputs={"color": "x"})
    assert "inputs names 'color', which is no network" in message
    assert "Closest: 'colour'" in message


def test_inputs_with_an_unknown_input_is_an_error():
    message = pair(taps=["*/hidden"], inputs={"shape": {"y": "image"}})
    assert "inputs['shape'] names 'y', which is no input of it" in message
    assert "There are: 'x'" in message


def test_inputs_that_cannot_be_shared_are_an_error():
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    message = message_of(
        ValueError,
        {"shape": upstream(), "colour": other},
        inputs={"shape": "image", "colour": "image"},
    )
    assert "inputs gives one name, 'image', to inputs that differ" in message
    assert "'shape' (6,) float32, 'colour' (4,) float32" in message


def test_an_input_cannot_have_the_name_of_a_block():
    message = pair(taps=["*/hidden"], inputs={"shape": "colour"})
    assert "The input 'colour' of the cascade, which feeds 'shape/x'" in message
    assert "has the name of a block of the cascade" in message
