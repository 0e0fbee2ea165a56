"""Tests that mistakes in injections and inputs of downstreams are explained."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.behaviour.mistaken_networks import (
    expert,
    message_of,
    upstream,
)

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")


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
