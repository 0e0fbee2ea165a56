"""What feeds the downstream: features, taps by name, its own inputs."""

import keras
import pytest
from keras import layers

from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.taps import resolve_taps
from keras_cascade.injection.arguments import normalise_injections
from keras_cascade.planning.direction import check_direction
from keras_cascade.planning.spec import CascadeSpec, ExtraInput
from keras_cascade.planning.wiring import (
    check_mode,
    wire,
    wire_without_downstream,
)


def expert():
    inputs = keras.Input((4,), name="x")
    x = layers.Dense(4, name="one")(inputs)
    y = layers.Dense(4, name="two")(x)
    x = layers.Add(name="sum")([x, y])
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="expert")


def decoder():
    names = ("low", "high", "noise")
    inputs = [keras.Input((4,), name=name) for name in names]
    return keras.Model(inputs, layers.Add(name="sum")(inputs), name="decoder")


@pytest.fixture(scope="module")
def graph():
    return read_graph(expert())


@pytest.fixture(scope="module")
def several():
    return read_graph(decoder())


def spec_of(
    taps=("a", "b"),
    extras=(),
    inject=None,
    mode=None,
    named_inputs=(),
    heads=(),
    fusion="concat",
):
    return CascadeSpec(
        networks={},
        taps=dict.fromkeys(taps, "path"),
        adapters={},
        extra_inputs=dict.fromkeys(extras, ExtraInput((2,), "float32")),
        inject=normalise_injections(inject, [*taps, *extras]),
        downstream_input=mode,
        fusion=fusion,
        inputs={"downstream": {name: name for name in named_inputs}},
        head=dict.fromkeys(heads, 2),
    )


def wired(graph, taps=("a", "b"), **arguments):
    return wire(graph, spec_of(taps, **arguments))


def error(*args, **kwargs):
    with pytest.raises(ValueError) as caught:
        wired(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_features_replace_the_input(graph):
    wiring = wired(graph, extras=["side"])
    assert wiring.mode == "features"
    assert wiring.fused == ("a", "b", "side")
    assert wiring.own == ()
    assert wiring.joint is None


def test_where_every_tap_is_injected_the_downstream_sees_the_input(graph):
    wiring = wired(graph, inject={"a": "one", "b": "two"})
    assert wiring.mode == "inputs"
    assert wiring.own == (0,)
    assert wiring.fused == ()
    assert [site.label for site in wiring.sites] == ["a_into_one", "b_into_two"]


def test_what_is_injected_does_not_join_the_fusion(graph):
    wiring = wired(graph, extras=["side"], inject={"a": "one", "side": "two"})
    assert wiring.mode == "features"
    assert wiring.fused == ("b",)


def test_an_extra_input_that_joins_needs_a_tap_or_both(graph):
    wiring = wired(
        graph, extras=["side"], inject={"a": "one", "b": "one"}, mode="both"
    )
    assert wiring.fused == ("side",)
    assert wiring.joint is not None


def test_an_input_that_replace_leaves_unused_is_none_of_the_cascades(graph):
    wiring = wired(graph, taps=["a"], inject={"a": replaced("sum")})
    assert wiring.own == ()


def replaced(path):
    from keras_cascade.injection import Injection

    return Injection(path, "replace")


def test_taps_feed_the_inputs_of_their_names(several):
    wiring = wired(several, taps=["high", "low"], extras=["noise"], fusion=None)
    assert wiring.fed == {name: name for name in ("low", "high", "noise")}
    assert wiring.own == ()
    assert wiring.fused == ()


def test_an_input_that_inputs_names_is_the_cascades(several):
    wiring = wired(
        several, taps=["high", "low"], fusion=None, named_inputs=["noise"]
    )
    assert wiring.own == (2,)


def test_a_tap_that_a_head_reads_need_not_go_further(graph, several):
    wiring = wired(graph, heads=["a", "b"], mode="inputs")
    assert (wiring.fused, wiring.own) == ((), (0,))
    wired(
        several,
        taps=["low", "high", "noise", "aux"],
        fusion=None,
        heads=["aux"],
    )


def test_without_a_downstream_everything_is_fused():
    assert wire_without_downstream(spec_of("a", ["side"])).fused == (
        "a",
        "side",
    )


def test_there_is_nothing_to_inject_into_without_a_downstream():
    with pytest.raises(ValueError) as caught:
        wire_without_downstream(spec_of("a", inject={"a": "x"}))
    assert str(caught.value).startswith(
        "inject names 'a', and there is no downstream whose layers they could "
        "enter. Give downstream="
    )


def test_a_mode_is_one_of_three():
    with pytest.raises(ValueError) as caught:
        check_mode("feature", expert())
    assert str(caught.value) == (
        "Unknown downstream_input 'feature'. Possible: 'features', 'inputs', "
        "'both', or None, which is 'inputs' if every tap is injected."
    )
    with pytest.raises(ValueError, match="there is none"):
        check_mode("both", None)
    check_mode(None, None)


@pytest.mark.parametrize("mode", ["features", "both"])
def test_features_need_a_tap_that_is_not_injected(graph, mode):
    message = error(graph, inject={"a": "one", "b": "two"}, mode=mode)
    assert f"downstream_input='{mode}'" in message
    assert "every tap is injected ('a', 'b')" in message
    assert "Use 'inputs'" in message


def test_with_inputs_a_tap_that_goes_nowhere_is_an_error(graph):
    message = error(graph, extras=["side"], inject={"a": "one"}, mode="inputs")
    assert message == (
        "'expert' sees the cascade's own inputs (downstream_input='inputs'), "
        "so 'b', 'side' goes nowhere. Inject it, or use "
        "downstream_input='both'."
    )


def test_a_fusion_makes_one_input_of_several(several):
    message = error(several, taps=["low", "high"])
    assert message == (
        "downstream 'decoder' has 3 inputs ('low', 'high', 'noise'), and "
        "fusion='concat' makes one of 'low', 'high'. Use fusion=None, which "
        "feeds each input by the tap or extra input of its name."
    )


def test_a_name_that_no_input_has_is_an_error(several):
    message = error(several, taps=["low", "hihg"], fusion=None)
    assert "'decoder' has none called 'hihg'. Closest: 'high'." in message
    assert message.endswith("There are: 'low', 'high', 'noise'.")


def test_an_input_that_nothing_feeds_is_an_error(several):
    message = error(several, taps=["low", "high"], fusion=None)
    assert message.startswith(
        "Nothing feeds the input 'noise' of downstream 'decoder'."
    )
    assert "inputs={'downstream': {'noise': 'noise'}}" in message


def test_what_enters_a_part_that_replace_leaves_out_is_an_error(graph):
    message = error(graph, inject={"a": "one", "b": replaced("sum")})
    assert message == (
        "inject['a'] at 'one' would enter a part of 'expert' that is not in "
        "the cascade: merge='replace' at 'sum' leaves out what came before. "
        "Enter after it, or drop one of the two."
    )


def test_features_that_replace_leaves_unused_are_an_error(graph):
    message = error(graph, inject={"b": replaced("sum")})
    assert message.startswith("The features would enter a part of 'expert'")


def test_a_replacement_of_the_output_leaves_nothing(graph):
    message = error(graph, taps=["a"], inject={"a": replaced("out")})
    assert message.startswith(
        "merge='replace' at the output of 'expert' leaves nothing of the "
        "downstream."
    )


# Which way: into the downstream, never back.


@pytest.fixture(scope="module")
def encoder():
    x = inputs = keras.Input((4,), name="x")
    for name in ("conv1", "conv2", "conv3"):
        x = layers.Dense(4, name=name)(x)
    return read_graph(keras.Model(inputs, x, name="encoder"))


def direction(encoder, path, downstream, tap="conv2", label="upstream"):
    taps = resolve_taps(encoder, {"texture": tap}, label)
    injections = normalise_injections({"texture": path}, ["texture"])
    with pytest.raises(ValueError) as caught:
        check_direction(injections, {label: encoder}, downstream, taps)
    return str(caught.value)


@pytest.mark.parametrize("path", ["upstream/conv1", "conv1"])
def test_a_layer_that_the_tap_is_computed_from_would_be_a_cycle(
    encoder, graph, path
):
    assert direction(encoder, path, graph) == (
        f"inject['texture'] names '{path}', a layer of the upstream "
        "'encoder': features enter the downstream. There it would be a cycle: "
        "the tap 'texture' at 'conv2' is computed from that layer. Name a "
        "layer of the downstream 'expert'; list_taps(network) shows them all."
    )


@pytest.mark.parametrize("path", ["upstream/conv3", "conv3"])
def test_a_later_layer_of_the_upstream_is_no_cycle_and_still_the_wrong_side(
    encoder, graph, path
):
    message = direction(encoder, path, graph)
    assert "a layer of the upstream 'encoder'" in message
    assert "cycle" not in message


def test_a_path_that_the_downstream_has_is_the_downstreams(encoder):
    """One network on both sides: a copy each, so there is no cycle."""
    taps = resolve_taps(encoder, {"texture": "conv2"}, "upstream")
    injections = normalise_injections({"texture": "conv1"}, ["texture"])
    check_direction(injections, {"upstream": encoder}, encoder, taps)


def test_a_path_that_neither_has_is_left_to_where_it_is_looked_for(
    encoder, graph
):
    taps = resolve_taps(encoder, {"texture": "conv2"}, "upstream")
    injections = normalise_injections({"texture": "cnv"}, ["texture"])
    check_direction(injections, {"upstream": encoder}, graph, taps)
